"""Whole training runs on a small cohort."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors import safe_open

from corereg.data.pairs import read_dataset
from corereg.method.features.model_file import load_model
from corereg.settings import with_settings
from corereg.training import loop, process
from corereg.training.config import TrainConfig
from corereg.training.objective.objective import new_model
from corereg.training.process import cohort_volumes
from corereg.training.schedule import WEIGHTS, seed_at
from corereg.training.session import Session
from corereg.training.train import BEST, CONFIG, MODEL
from helpers.training import LEAST, SMALL, rows_of, run, same, weights_of


def card_of(model: Path) -> dict[str, Any]:
    with safe_open(model, "pt") as file:
        return json.loads(file.metadata()["corereg"])["card"]


def test_a_run_leaves_what_a_user_needs(finished: Path):
    rows = rows_of(finished)
    steps = [row for row in rows if "loss" in row]
    assert [(row["cycle"], row["step"]) for row in steps] == [(c, s) for c in range(2) for s in range(3)]
    assert all(row["loss"] == pytest.approx(row["registration"] + row["lambda"] * row["contrast"], rel=1e-4)
               for row in steps)  # fmt: skip
    assert [row["lambda"] for row in steps] == pytest.approx([10 * (1 - n / 6) for n in range(6)], rel=1e-4)
    assert steps[0]["learning_rate"] == steps[3]["learning_rate"] == 1e-3
    measured = [row for row in rows if "dice" in row]
    assert len(measured) == 2
    assert all(0 < row["dice_before"] < 1 and 0 < row["dice"] <= 1 for row in measured)
    assert all(0 <= row["match_accuracy"] <= 1 and 0 < row["match_auc"] <= 1 for row in measured)
    assert len({row["mind_auc"] for row in measured}) == 1
    assert with_settings(TrainConfig(), yaml.safe_load((finished / CONFIG).read_text("utf-8"))) == with_settings(
        TrainConfig(), SMALL
    )
    assert (finished / "progress.png").read_bytes()[:4] == b"\x89PNG"
    model = load_model(finished / MODEL)
    assert same(model.state_dict(), weights_of(finished))
    assert model.passes == (8, 4)


def test_the_model_file_carries_its_card(finished: Path):
    card = card_of(finished / MODEL)
    assert card["data"]["name"] == "Blobs"
    assert card["data"]["scans"] == 3
    assert card["data"]["pairs"] == 3
    assert len(card["data"]["fingerprint"]) == 64
    assert card["training"]["cycles"] == 2
    assert card["metrics"]["dice"] > 0
    assert "licence" in card


def test_a_validated_patient_is_in_no_training_pair(cohort_json: Path):
    dataset = read_dataset(cohort_json)
    assert {scan for pair in dataset.training for scan in pair} == {0, 1, 2}


def test_same_seed_same_run_other_seed_another(
    cohort_json: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The estimate before a run leaves no trace in it."""
    lines: list[str] = []
    for name, seed, fewest in (("first", 0, 2), ("again", 0, 1), ("other", 1, 2)):
        monkeypatch.setattr(process, "FEWEST_STEPS", fewest)
        run(cohort_json, tmp_path / name, cache, seed=seed, cycles=1, steps_per_cycle=1, log=lines.append)
    (estimate,) = (line for line in lines if line.startswith("estimate: "))
    assert re.search(r"GB of memory and 0\.0 GB of disk for 3 pairs to label of [0-9.]+ s, 1 step of", estimate)
    assert same(weights_of(tmp_path / "again"), weights_of(tmp_path / "first"))
    assert not same(weights_of(tmp_path / "other"), weights_of(tmp_path / "first"))


@pytest.mark.parametrize(
    ("objective", "views"), [("registration", "geometric"), ("contrastive", "geometric"), ("joint", "intensity"),
                             ("joint", "both")]
)  # fmt: skip
def test_each_ablation_is_one_switch(objective: str, views: str, cohort_json: Path, cache: Path, tmp_path: Path):
    run(cohort_json, tmp_path / "run", cache, objective=objective, views=views, **LEAST)
    steps = [row for row in rows_of(tmp_path / "run") if "loss" in row]
    with_labels = ["registration" in row for row in steps]
    with_contrast = ["contrast" in row for row in steps]
    if objective == "registration":
        assert (with_labels, with_contrast) == ([True, True], [False, False])
    elif objective == "contrastive":
        assert (with_labels, with_contrast) == ([False, True], [True, False])
    else:
        assert (with_labels, with_contrast) == ([True, True], [True, True])


@pytest.fixture
def unlisted(cohort_json: Path) -> Iterator[Path]:
    """The same scans without validation pairs."""
    content = json.loads(cohort_json.read_text("utf-8"))
    content["registration_val"] = []
    path = cohort_json.with_name("Unlisted_dataset.json")
    path.write_text(json.dumps(content))
    yield path
    path.unlink()


def test_without_validation_pairs_the_run_says_what_it_measures(unlisted: Path, cache: Path, tmp_path: Path):
    lines: list[str] = []
    run(unlisted, tmp_path / "run", cache, cycles=1, steps_per_cycle=1, log=lines.append)
    assert any("training pairs are measured" in line and "--val-fraction" in line for line in lines)


@pytest.fixture
def nnunet(cohort_json: Path, tmp_path: Path) -> Path:
    """The same scans and label maps in nnU-Net's raw layout."""
    folder = tmp_path / "Dataset001_Blobs"
    for split in ("imagesTr", "labelsTr"):
        (folder / split).mkdir(parents=True)
    for image in sorted((cohort_json.parent / "imagesTr").iterdir()):
        case = image.name.removesuffix("_0000.nii.gz")
        shutil.copy(image, folder / "imagesTr" / f"{case}_0000.nii.gz")
        shutil.copy(cohort_json.parent / "labelsTr" / image.name, folder / "labelsTr" / f"{case}.nii.gz")
    content = {"labels": {"background": 0, "bright": 1, "dark": 2}, "file_ending": ".nii.gz", "numTraining": 5}
    (folder / "dataset.json").write_text(json.dumps(content | {"channel_names": {"0": "CT"}}))
    return folder


def test_held_out_scans_validate_by_their_label_maps_and_do_not_train(nnunet: Path, cache: Path, tmp_path: Path):
    lines: list[str] = []
    settings = {"cycles": 1, "steps_per_cycle": 1, "val_fraction": 0.4, "log": lines.append}
    result = run(nnunet, tmp_path / "run", cache, **settings)
    assert not any("training pairs are measured" in line for line in lines)
    assert 0 < result.metrics["dice_before"] < 1
    assert 0 < result.metrics["dice"] <= 1
    assert result.best_cycle == 1
    assert card_of(tmp_path / "run" / BEST)["metrics"] == pytest.approx(result.metrics, rel=1e-5)
    data = card_of(tmp_path / "run" / MODEL)["data"]
    assert (data["scans"], data["pairs"]) == (3, 3)


def test_abdominal_intensities_are_clamped_in_training_unless_switched_off(cohort_json: Path, tmp_path: Path):
    dataset = read_dataset(cohort_json)
    for clamp, low in ((True, -0.4), (False, -2.0)):
        config = with_settings(
            TrainConfig(), SMALL | {"modality": "ct-abdomen", "clamp_abdomen": clamp, "affine": "none"}
        )
        volumes = cohort_volumes(dataset, config, tmp_path)
        assert volumes.array.min() == pytest.approx(low, abs=0.05)


def test_the_first_labels_come_from_other_weights_than_training_starts_from(
    cohort_json: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Stage 0 labels with a random network, and then the weights are drawn again."""
    labelling, started = [], []
    sweep, prepare = loop.sweep, loop._prepare

    def noted_sweep(model, *arguments):
        labelling.append({key: value.clone() for key, value in model.extractor.state_dict().items()})
        sweep(model, *arguments)

    def noted_prepare(model, phase):
        prepare(model, phase)
        started.append({key: value.clone() for key, value in model.extractor.state_dict().items()})

    monkeypatch.setattr(loop, "sweep", noted_sweep)
    monkeypatch.setattr(loop, "_prepare", noted_prepare)
    run(cohort_json, tmp_path / "run", cache, **LEAST)
    weights = [key for key in labelling[0] if key.endswith("0.weight")]
    assert weights
    assert not any(torch.equal(labelling[0][key], started[0][key]) for key in weights)
    fresh = new_model(with_settings(TrainConfig(), SMALL), seed=seed_at(TrainConfig(), WEIGHTS, 0))
    assert all(torch.equal(fresh.extractor.state_dict()[key], started[0][key]) for key in weights)
    assert all(torch.equal(labelling[1][key], started[1][key]) for key in weights)


def test_running_statistics_follow_the_phase(
    cohort_json: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Contrast fills those of the extractor alone; with the extractor frozen, registration fills those of the head."""
    states, save = {}, Session.save

    def noted_save(self, cycle, step, model, optimiser):
        states[cycle, step] = {key: v.clone() for key, v in model.state_dict().items() if "running" in key}
        save(self, cycle, step, model, optimiser)

    monkeypatch.setattr(Session, "save", noted_save)
    run(cohort_json, tmp_path / "contrastive", cache, objective="contrastive", **LEAST)
    fresh, contrast, registration = states[0, 0], states[1, 0], states[2, 0]
    blocks = {f"extractor.block{n}.1.running_{what}" for n in (1, 2, 3, 4) for what in ("mean", "var")}
    head = {f"head.block.1.running_{what}" for what in ("mean", "var")}
    assert blocks | head == set(fresh)
    assert {key for key in fresh if not torch.equal(fresh[key], contrast[key])} == blocks
    assert {key for key in fresh if not torch.equal(contrast[key], registration[key])} == head
    run(cohort_json, tmp_path / "joint", cache, **LEAST | {"cycles": 1})
    assert {key for key in fresh if not torch.equal(fresh[key], states[1, 0][key])} == blocks | head
