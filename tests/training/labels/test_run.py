"""Training on label maps: whole runs on a small cohort, and what they refuse."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from corereg.data.pairs import read_dataset
from corereg.errors import Interrupted
from corereg.evaluation.metrics import dice
from corereg.io.images.image import read_labels, write_image
from corereg.method.features.label_network import LabelNetwork
from corereg.method.features.model_file import load_model, read_card
from corereg.method.models import get_model
from corereg.training.labels.maps import labels_on_grid, read_label_maps
from corereg.training.scans.volumes import Volumes
from corereg.training.session import Session
from corereg.training.train import MODEL
from corereg.training.trial import FEWEST_STEPS
from helpers.images import stored_along
from helpers.refusals import refusal
from helpers.training import GRID, comparable, run, same, weights_of

LABELS: dict[str, Any] = {
    "labels": True,
    "cycles": 1,
    "labels__channels": [8, 16],
    "labels__crop": 32,
    "validation_pairs": 0,
}


def learn(dataset: Path, out: Path, cache: Path, **settings: Any) -> Any:
    return run(dataset, out, cache, **(LABELS | settings))


@pytest.fixture(scope="module")
def learned(cohort_json: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two cycles, the second with predictions for the scan whose map is hidden."""
    folder = tmp_path_factory.mktemp("labels")
    partly = without_map(cohort_json, folder / "cohort", case=3)
    learn(partly, folder / "run", cache, cycles=2, steps_per_cycle=50, learning_rate=0.01, labels__sure=0.5)
    return folder / "run"


def test_a_run_that_is_validated_says_beforehand_what_it_takes(cohort_json: Path, cache: Path, tmp_path: Path):
    lines: list[str] = []
    learn(cohort_json, tmp_path / "run", cache, steps_per_cycle=FEWEST_STEPS, validation_pairs=1, log=lines.append)
    (estimate,) = (line for line in lines if line.startswith("estimate: "))
    assert re.search(r"for 30 steps of [0-9.]+ s, 1 pair to validate on of [0-9.]+ s$", estimate)
    assert read_card(tmp_path / "run" / MODEL)["metrics"]["dice"] > 0


def without_map(dataset: Path, folder: Path, *, case: int) -> Path:
    """The cohort without the label map of one scan."""
    shutil.copytree(dataset.parent, folder)
    content = json.loads((folder / dataset.name).read_text("utf-8"))
    del content["training"][case - 1]["label"]
    (folder / f"labelsTr/Blobs_{case:04d}_0000.nii.gz").unlink()
    (folder / dataset.name).write_text(json.dumps(content), "utf-8")
    return folder / dataset.name


def test_the_network_labels_scans_that_it_has_not_seen(learned: Path, cohort_json: Path, volumes: Volumes):
    network = load_model(learned / MODEL)
    assert isinstance(network, LabelNetwork)
    assert network.config.labels == (1, 2)
    dataset = read_dataset(cohort_json)
    for scan in (3, 4):
        with torch.no_grad():
            found = network.probabilities(volumes.image(volumes.rows[scan]))[0].argmax(0).numpy()
        truth = labels_on_grid(dataset.scans[scan], volumes, scan)
        assert min(dice(truth, found, truth).values()) > 0.35


def test_scans_without_a_map_train_by_predictions_from_the_second_cycle_on(learned: Path, volumes: Volumes):
    with np.load(learned / "labels" / "cycle_001.npz") as stored:
        assert list(stored) == [str(volumes.rows[2])]
        predicted = stored[str(volumes.rows[2])]
    assert set(np.unique(predicted)) <= {-1, 0, 1, 2}
    assert (predicted > 0).any()


def test_the_model_file_registers_and_says_what_it_was_trained_on(learned: Path):
    choice = get_model(learned / MODEL, both_ct=True)
    assert choice.spacing_mm == pytest.approx(4.0)
    card = read_card(learned / MODEL)
    assert card["training"]["objective"] == "labels"
    assert (card["data"]["labelled_scans"], card["network"]["labels"]) == (2, [1, 2])


def test_a_run_stopped_at_every_step_and_resumed_is_the_run_that_was_not(
    cohort_json: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    dataset = without_map(cohort_json, tmp_path / "cohort", case=1)
    options = {"cycles": 2, "steps_per_cycle": 2, "labels__sure": 0.0}
    learn(dataset, tmp_path / "whole", cache, **options)
    with monkeypatch.context() as patch:
        patch.setattr(Session, "anyone_stops", lambda self: True)
        for step in range(3):
            with pytest.raises(Interrupted):
                learn(dataset, tmp_path / "run", cache, resume=step > 0, **options)
    learn(dataset, tmp_path / "run", cache, resume=True, **options)
    assert comparable(tmp_path / "run") == comparable(tmp_path / "whole")
    assert same(weights_of(tmp_path / "run"), weights_of(tmp_path / "whole"))


def test_maps_may_lie_in_a_folder_of_their_own(cohort_json: Path, cache: Path, tmp_path: Path):
    (tmp_path / "maps").mkdir()
    source = cohort_json.parent / "labelsTr" / "Blobs_0002_0000.nii.gz"
    shutil.copy(source, tmp_path / "maps" / "Blobs_0002.nii.gz")
    bare = without_map(cohort_json, tmp_path / "cohort", case=1)
    for case in (2, 3):
        (bare.parent / f"labelsTr/Blobs_{case:04d}_0000.nii.gz").unlink()
    content = json.loads(bare.read_text("utf-8"))
    content["training"] = [{"image": entry["image"]} for entry in content["training"]]
    bare.write_text(json.dumps(content), "utf-8")
    assert "none of whose 3 training scans has a label map" in refusal(learn, bare, tmp_path / "none", cache)
    learn(bare, tmp_path / "run", cache, labels=str(tmp_path / "maps"), steps_per_cycle=1)
    assert read_card(tmp_path / "run" / MODEL)["data"]["labelled_scans"] == 1


def changed_map(dataset: Path, folder: Path, change: Any) -> Path:
    """The cohort with the first scan's map changed."""
    shutil.copytree(dataset.parent, folder)
    path = folder / "labelsTr" / "Blobs_0001_0000.nii.gz"
    labels = read_labels(path)
    write_image(path, *change(labels.array, labels.grid))
    return folder / dataset.name


@pytest.mark.parametrize("axes", ["LPS", "SAR"])
def test_a_map_stored_along_other_axes_than_its_scan_teaches_the_same(axes, cohort_json, volumes: Volumes, tmp_path):
    turned = changed_map(cohort_json, tmp_path / "cohort", lambda array, grid: stored_along(axes, array, grid))
    maps = [read_label_maps(read_dataset(dataset), volumes) for dataset in (cohort_json, turned)]
    assert maps[0].fingerprint("") == maps[1].fingerprint("")


REFUSED: dict[str, tuple[Any, str]] = {
    "another place": (lambda array, grid: (array, _moved(grid, 25.0)), "expected the grid of"),
    "outside the scan": (lambda array, grid: (array[1:], _moved(grid, 2500.0, smaller=1)), "marks nothing of"),
    "labels that are not listed": (lambda array, grid: (np.where(array == 2, 7, array), grid), "with the labels [7]"),
}


def _moved(grid: Any, by_mm: float, smaller: int = 0) -> Any:
    affine = grid.affine.copy()
    affine[:3, 3] += by_mm
    return type(grid)((grid.shape[0] - smaller, *grid.shape[1:]), affine)


@pytest.mark.parametrize("name", REFUSED)
def test_a_map_that_does_not_belong_to_its_scan_or_data_set_is_refused(name, cohort_json, cache, tmp_path):
    change, words = REFUSED[name]
    dataset = changed_map(cohort_json, tmp_path / "cohort", change)
    message = refusal(learn, dataset, tmp_path / "run", cache)
    assert words in message
    assert "Blobs_0001_0000.nii.gz" in message
    assert not (tmp_path / "run").exists()


def test_a_map_without_its_image_is_refused(cohort_json: Path, cache: Path, tmp_path: Path):
    (tmp_path / "maps").mkdir()
    write_image(tmp_path / "maps" / "Blobs_0009_0000.nii.gz", np.ones(GRID.shape, np.uint8), GRID)
    message = refusal(learn, cohort_json, tmp_path / "run", cache, labels=tmp_path / "maps")
    assert "Blobs_0009_0000.nii.gz without an image" in message
    assert "is no folder" in refusal(learn, cohort_json, tmp_path / "run", cache, labels=tmp_path / "nowhere")
