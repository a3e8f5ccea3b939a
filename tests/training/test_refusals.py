"""Scans, folders and checkpoints that training cannot use: one line, and nothing lost."""

import errno
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
    with pytest.raises(InputError, match="expected a checkpoint"):
        load_checkpoint(path)


def test_a_loss_that_is_no_number_stops_the_run_and_names_the_scans(
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
