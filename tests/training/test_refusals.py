"""Scans, folders and checkpoints that training cannot use: one line, and nothing lost."""

import errno
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from corereg.errors import InputError
from corereg.io.images.image import write_image
from corereg.training import checkpoint as checkpoint_module
from corereg.training.checkpoint import CHECKPOINT, load_checkpoint
from corereg.training.objective.objective import Losses, Objective
from corereg.training.train import MODEL, train
from helpers.pickles import Planted
from helpers.training import GRID, SMALL, patient, rows_of, run, weights_of


def test_fewer_than_two_scans(tmp_path, cache):
    (tmp_path / "scans").mkdir()
    write_image(tmp_path / "scans" / "a.nii.gz", patient(1), GRID)
    with pytest.raises(InputError, match="two"):
        run(tmp_path / "scans", tmp_path / "out", cache)
    assert not (tmp_path / "out" / MODEL).exists()


def test_labels_in_place_of_images(tmp_path):
    (tmp_path / "scans").mkdir()
    for n in range(3):
        write_image(tmp_path / "scans" / f"{n}.nii.gz", (patient(n) > 100).astype(np.uint8), GRID)
    with pytest.raises(InputError, match="label"):
        run(tmp_path / "scans", tmp_path / "out", tmp_path / "cache")


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "an unknown setting": ({"settings": {"cycels": 1}}, "did you mean cycles?"),
    "a setting out of bounds": ({"settings": {"cycles": 0}}, "at least 1"),
    "an unknown recipe": ({"recipe": "abdomen"}, "abdomen-ct"),
    "an unknown device": ({"device": "tpu"}, "device"),
    "no device": ({"devices": 0}, "at least 1"),
    "no checkpoint": ({"resume": True}, "start without --resume"),
    "a negative number of stages": ({"more_stages": -1}, "--more-stages"),
    "no data set": ({"dataset": "nowhere.json"}, "nowhere.json"),
    "an empty folder": ({"dataset": "empty"}, "empty"),
    "a single scan": ({"dataset": "single"}, "two"),
    "scans that cannot be read": ({"dataset": "broken"}, "usable"),
}


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("there", [False, True], ids=["a new folder", "a folder of the user's"])
def test_a_refused_run_leaves_no_folder_and_no_file(name, there, cohort_json, tmp_path, monkeypatch):
    options, words = REFUSED[name]
    for folder in ("empty", "single", "broken"):
        (tmp_path / folder).mkdir()
    write_image(tmp_path / "single" / "a.nii.gz", patient(1), GRID)
    for n in range(3):
        (tmp_path / "broken" / f"{n}.nii.gz").write_bytes(b"nothing")
    out = tmp_path / "new" / "run"
    if there:
        out.mkdir(parents=True)
        (out / "notes.txt").write_text("mine")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=re.escape(words)):
        train(**{"dataset": cohort_json, "out": out, "settings": SMALL, "device": "cpu"} | options)
    if there:
        assert [path.name for path in out.iterdir()] == ["notes.txt"]
    else:
        assert not (tmp_path / "new").exists()


def test_a_folder_that_holds_a_run_is_not_overwritten(finished, cohort_json, cache, tmp_path):
    shutil.copytree(finished, tmp_path / "run")
    before = (tmp_path / "run" / CHECKPOINT).read_bytes()
    with pytest.raises(InputError, match="--resume"):
        run(cohort_json, tmp_path / "run", cache)
    with pytest.raises(InputError, match=r"contrast\.points: 40 -> 50"):
        run(cohort_json, tmp_path / "run", cache, contrast__points=50, resume=True)
    assert (tmp_path / "run" / CHECKPOINT).read_bytes() == before


def test_resume_where_nothing_was_begun(cohort_json, cache, tmp_path):
    with pytest.raises(InputError, match="start without --resume"):
        run(cohort_json, tmp_path / "run", cache, resume=True)


def test_resume_with_other_scans(finished, cache, tmp_path):
    shutil.copytree(finished, tmp_path / "run")
    (tmp_path / "others").mkdir()
    for n in range(3):
        write_image(tmp_path / "others" / f"{n}.nii.gz", patient(n + 7), GRID)
    with pytest.raises(InputError, match="other scans"):
        run(tmp_path / "others", tmp_path / "run", cache, resume=True)


def test_a_checkpoint_that_is_none(tmp_path):
    path = tmp_path / CHECKPOINT
    path.write_bytes(b"not a checkpoint")
    with pytest.raises(InputError, match="expected a checkpoint") as caught:
        load_checkpoint(path)
    assert "weights_only" not in str(caught.value)


def test_a_pickle_in_place_of_a_checkpoint_is_neither_run_nor_said_to_be_safe(tmp_path):
    torch.save({"planted": Planted(tmp_path / "executed")}, tmp_path / CHECKPOINT)
    with pytest.raises(InputError, match="expected a checkpoint") as caught:
        load_checkpoint(tmp_path / CHECKPOINT)
    assert "weights_only" not in str(caught.value)
    assert "likely succeed" not in str(caught.value)
    assert not (tmp_path / "executed").exists()


def test_a_nan_loss_stops_the_run_and_names_the_scans(
    cohort_json, cache, tmp_path, monkeypatch
):  # fmt: skip
    forward, calls = Objective.forward, []

    def spoilt(self: Objective, *args: Any) -> Losses:
        calls.append(True)
        losses = forward(self, *args)
        return losses._replace(total=losses.total * float("nan")) if len(calls) == 2 else losses

    monkeypatch.setattr(Objective, "forward", spoilt)
    with pytest.raises(InputError, match=r"cycle 0, step 1, on Blobs_000\d_0000 and Blobs_000\d_0000"):
        run(cohort_json, tmp_path / "run", cache)
    state = load_checkpoint(tmp_path / "run" / CHECKPOINT)
    assert (state.cycle, state.step) == (0, 1)
    assert all(bool(value.isfinite().all()) for value in state.weights.values())


def test_a_full_disk_keeps_the_checkpoint_before_it(cohort_json, cache, tmp_path, monkeypatch):
    save, calls = torch.save, []

    def full(content: Any, path: Path) -> None:
        calls.append(True)
        if len(calls) == 3:  # after the one at the start and the one of the first step
            Path(path).write_bytes(b"half of it")
            raise OSError(errno.ENOSPC, "No space left on device")
        save(content, path)

    monkeypatch.setattr(checkpoint_module.torch, "save", full)
    with pytest.raises(InputError, match="no room"):
        run(cohort_json, tmp_path / "run", cache)
    assert load_checkpoint(tmp_path / "run" / CHECKPOINT).step == 1


@pytest.mark.parametrize(("devices", "nodes"), [(0, 1), (1, 0)])
def test_no_devices(devices, nodes, cohort_json, cache, tmp_path):
    with pytest.raises(InputError, match="at least 1"):
        train(cohort_json, tmp_path / "run", settings=SMALL, devices=devices, nodes=nodes, cache=cache)


def test_the_run_says_what_it_left_out(cohort_json, tmp_path, cache):
    scans = tmp_path / "scans"
    scans.mkdir()
    for n in range(3):
        write_image(scans / f"{n}.nii.gz", patient(n), GRID)
    (scans / "broken.nii.gz").write_bytes(b"nothing")
    lines: list[str] = []
    train(scans, tmp_path / "run", settings=SMALL | {"cycles": 1, "steps_per_cycle": 1}, device="cpu", log=lines.append)
    assert any(line.startswith("skipped broken") for line in lines)
    assert any("3 scans" in line and "1 skipped" in line for line in lines)
    assert [row["cycle"] for row in rows_of(tmp_path / "run") if "inverse_error_mm" in row] == [0]
    assert weights_of(tmp_path / "run")
