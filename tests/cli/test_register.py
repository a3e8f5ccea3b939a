"""`corereg register`: its files, its one-line refusals with exit status 2, and nothing left behind by a failure."""

import gzip
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import SimpleITK
import torch

from corereg import Image, Transform, read_image
from helpers.commands import Command, one_line
from helpers.forks import forked
from helpers.images import save_nifti
from helpers.pairs import FIXED, MOVING
from helpers.pickles import Planted
from helpers.scenes import scan, voxels_mm

OUTPUTS = {"warped.nii.gz", "transform.nii.gz", "inverse_transform.nii.gz", "transform.h5", "result.json"}

QUICK = ["--affine", "none", "--refine-steps", "3", "--no-report"]


def test_label_maps_that_number_structures_differently_give_a_warning(scans: Path, tmp_path: Path) -> None:
    labels = nibabel.load(scans / "moving_labels.nii.gz")
    other = np.where(np.asarray(labels.dataobj) > 0, 100 + np.asarray(labels.dataobj), 0).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(other, labels.affine), tmp_path / "other.nii.gz")
    given = ["--moving-labels", tmp_path / "other.nii.gz", "--fixed-labels", scans / "fixed_labels.nii.gz"]
    out = tmp_path / "out"
    done = forked("register", scans / "fixed.nii.gz", scans / "moving.nii.gz", "-o", out, *given, *QUICK)
    assert done.returncode == 0
    assert "the label maps share no label (fixed: 3, 17, 90; moving: 103, 117, 190)" in done.stderr
    assert any("share no label" in each for each in json.loads((out / "result.json").read_text("utf-8"))["warnings"])


def test_register_writes_its_files_and_one_line(scans: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "out"
    labels = ["--moving-labels", scans / "moving_labels.nii.gz", "--fixed-labels", scans / "fixed_labels.nii.gz"]
    done = forked("register", scans / "fixed.nii.gz", scans / "moving.nii.gz", "-o", out, *labels, "--uncertainty")
    assert (done.returncode, done.stderr) == (0, "")
    (line,) = done.stdout.splitlines()
    assert line.startswith(f"{out / 'report.html'}: PASS, CT, affine ")
    assert {file.name for file in out.iterdir()} == OUTPUTS | {
        *("report.html", "warped_labels.nii.gz", "uncertainty.nii.gz"),
    }
    summary = json.loads((out / "result.json").read_text("utf-8"), parse_constant=pytest.fail)
    assert {"sdlogj", "fold_percent", "dice", "dice_before"} <= set(summary["metrics"])
    assert summary["metrics"]["dice"] > 0.5
    assert (summary["quality"]["verdict"], summary["quality"]["reasons"]) == ("pass", [])
    assert summary["quality"]["measures"]["similarity_above_chance"] > 0.3
    assert summary["warnings"] == []
    assert summary["seconds"]["total"] > 0
    assert summary["peak_memory_mb"] > 0
    assert summary["model"]["name"] == "mind"
    assert summary["seed"] == 0
    assert summary["intensities"]["moving"] == {
        "modality": "ct",
        "offset_hu": 0.0,
        "certain": True,
        "hounsfield": True,
    }
    page = (out / "report.html").read_text("utf-8")
    assert "Modality" in page
    assert '<div class="verdict pass"' in page
    assert '<section id="uncertainty"' in page
    measures = summary["quality"]["measures"]
    assert 0.1 < measures["uncertainty_mean_mm"] < measures["uncertainty_p95_mm"] < 20
    assert set(summary["versions"]) >= {"corereg", "torch", "numpy", "python"}
    assert set(summary["inputs"]) == {"fixed", "moving", "fixed_labels", "moving_labels"}
    assert all(len(entry["sha256"]) == 64 for entry in summary["inputs"].values())
    assert "moving.nii.gz" in summary["command"]
    fixed = nibabel.load(scans / "fixed.nii.gz")
    for name in ("warped.nii.gz", "warped_labels.nii.gz", "uncertainty.nii.gz"):
        np.testing.assert_array_equal(nibabel.load(out / name).affine, fixed.affine)
        assert nibabel.load(out / name).shape == fixed.shape
    assert nibabel.load(out / "warped_labels.nii.gz").get_data_dtype() == np.uint8


def test_strict_ends_with_3_if_the_verdict_is_fail_and_everything_is_written(
    scans: Path, tmp_path: Path, command: Command
) -> None:
    fixed = read_image(scans / "fixed.nii.gz")
    noise = np.random.default_rng(0).normal(0, 300, fixed.grid.shape).astype(np.float32)
    save_nifti(tmp_path / "noise.nii", noise, fixed.grid.affine)
    words = ["register", scans / "fixed.nii.gz", tmp_path / "noise.nii", "--modality", "ct", *QUICK]
    for strict, status in (([], 0), (["--strict"], 3)):
        out = tmp_path / f"out{status}"
        done = command(*words, "-o", out, *strict)
        assert done.status == status
        assert done.out.startswith(f"{out}: FAIL, CT, affine off")
        assert "looks wrong: " in done.err
        assert {file.name for file in out.iterdir()} == OUTPUTS
        quality = json.loads((out / "result.json").read_text("utf-8"))["quality"]
        assert quality["verdict"] == "fail"
        assert quality["reasons"][0] in done.err


def test_written_transforms_give_the_written_image_in_simpleitk(scans: Path, tmp_path: Path, command: Command) -> None:
    """The affine part is in the field: rotated 300 mm away, one file is enough."""
    moving = read_image(scans / "moving.nii.gz")
    away = np.eye(4)
    away[:3, :3] = [[0.98, -0.199, 0], [0.199, 0.98, 0], [0, 0, 1]]
    away[:3, 3] = 220, -190, 80
    save_nifti(tmp_path / "moving.nii", moving.array, away @ moving.grid.affine)
    done = command(
        "register", scans / "fixed.nii.gz", tmp_path / "moving.nii", "-o", tmp_path, "--no-report", "--seed", 3
    )
    assert (done.status, done.err) == (0, "")
    assert {file.name for file in tmp_path.iterdir()} == OUTPUTS | {"moving.nii"}
    summary = json.loads((tmp_path / "result.json").read_text("utf-8"), parse_constant=pytest.fail)
    assert summary["affine"]["needed"]
    assert summary["affine"]["metric_before"] is None
    warped = SimpleITK.ReadImage(str(tmp_path / "warped.nii.gz"))
    vectors = SimpleITK.ReadImage(str(tmp_path / "transform.nii.gz"), SimpleITK.sitkVectorFloat64)
    source = SimpleITK.ReadImage(str(tmp_path / "moving.nii"), SimpleITK.sitkFloat32)
    outside = float(moving.array.min())
    oracle = SimpleITK.Resample(
        source, warped, SimpleITK.DisplacementFieldTransform(vectors), SimpleITK.sitkLinear, outside
    )
    ours, theirs = SimpleITK.GetArrayFromImage(warped), SimpleITK.GetArrayFromImage(oracle)
    assert np.quantile(np.abs(ours - theirs)[2:-2, 2:-2, 2:-2], 0.999) < 1e-3 * float(np.ptp(moving.array))
    there, back = (Transform.load(tmp_path / f"{name}transform.nii.gz") for name in ("", "inverse_"))
    points = voxels_mm(FIXED)[8:-8, 8:-8, 8:-8]
    assert np.linalg.norm(back.apply_points(there.apply_points(points)) - points, axis=-1).mean() < 0.5


def damaged(name: str, make: Callable[[Path, Image], Any]) -> Any:
    """A broken file, by what is wrong with it."""
    return pytest.param(make, id=name)


def write_values(path: Path, values: Any, **fields: Any) -> None:
    save_nifti(path.with_suffix(""), values, FIXED.affine, **fields)
    path.write_bytes(gzip.compress(path.with_suffix("").read_bytes()))
    path.with_suffix("").unlink()


def truncate(path: Path, image: Image) -> None:
    write_values(path, image.array)
    path.write_bytes(path.read_bytes()[:-500])


def make_rgb(path: Path, image: Image) -> None:
    write_values(path, np.zeros(FIXED.shape, dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")]))


BAD_IMAGES = [
    damaged("missing", lambda path, image: None),
    damaged("not an image", lambda path, image: path.write_text("patient 1")),
    damaged("truncated gzip", truncate),
    damaged("all NaN", lambda path, image: write_values(path, np.full(FIXED.shape, np.nan, np.float32))),
    damaged("2-D", lambda path, image: write_values(path, image.array[:, :, 5])),
    damaged("single slice", lambda path, image: write_values(path, image.array[:, :, 5:6])),
    damaged("4-D series", lambda path, image: write_values(path, np.stack([image.array] * 3, -1))),
    damaged("complex", lambda path, image: write_values(path, image.array.astype(np.complex64))),
    damaged("RGB", make_rgb),
    damaged("constant", lambda path, image: write_values(path, np.full(FIXED.shape, 7, np.int16))),
    damaged("zero spacing", lambda path, image: write_values(path, image.array, pixdim=[1, 0, 3, 3, 0, 0, 0, 0])),
    damaged("negative spacing", lambda path, image: write_values(path, image.array, pixdim=[1, 3, -3, 3, 0, 0, 0, 0])),
    damaged(
        "singular affine",
        lambda path, image: write_values(path, image.array, srow_x=[3, 3, 0, 0], srow_y=[3, 3, 0, 0], sform_code=1),
    ),
]


@pytest.mark.parametrize("make", BAD_IMAGES)
@pytest.mark.parametrize("place", ["fixed", "moving"])
def test_image_that_cannot_be_used_is_refused_without_output(
    scans: Path, tmp_path: Path, command: Command, make: Callable[[Path, Image], Any], place: str
) -> None:
    bad = tmp_path / "bad.nii.gz"
    make(bad, scan(FIXED))
    pair = [bad, scans / "moving.nii.gz"] if place == "fixed" else [scans / "fixed.nii.gz", bad]
    assert "bad.nii.gz" in one_line(command("register", *pair, "-o", tmp_path / "new" / "out", *QUICK))
    assert not (tmp_path / "new").exists()


def test_nan_voxels_are_replaced_with_a_warning_of_one_line(scans: Path, tmp_path: Path, command: Command) -> None:
    array = scan(FIXED).array.copy()
    array[3, 4, 5:8] = np.nan
    array[9, 9, 9] = np.inf
    write_values(tmp_path / "nan.nii.gz", array)
    done = command("register", tmp_path / "nan.nii.gz", scans / "moving.nii.gz", "-o", tmp_path / "out", *QUICK)
    assert done.status == 0
    assert done.err.startswith("corereg: warning: ")
    assert "4 NaN or infinite voxels" in done.err
    assert len(done.err.splitlines()) == 1
    assert np.isfinite(nibabel.load(tmp_path / "out" / "warped.nii.gz").get_fdata()).all()


def save_elsewhere(folder: Path) -> Path:
    moved = FIXED.affine.copy()
    moved[:3, 3] += 900
    save_nifti(folder / "far.nii", scan(FIXED).array, moved)
    return folder / "far.nii"


def save_mask(folder: Path, shape: tuple[int, int, int], value: float = 1.0, away_mm: float = 0.0) -> Path:
    affine = FIXED.affine.copy()
    affine[:3, 3] += away_mm
    save_nifti(folder / "mask.nii", np.full(shape, value, np.float32), affine)
    return folder / "mask.nii"


def save_float_labels(folder: Path) -> Path:
    save_nifti(folder / "labels.nii", scan(MOVING).array * 0.37, MOVING.affine)
    return folder / "labels.nii"


def save_pickle(folder: Path) -> Path:
    torch.save({"planted": Planted(folder / "executed")}, folder / "model.safetensors")
    return folder / "model.safetensors"


BAD_OPTIONS: dict[str, tuple[Callable[[Path, Path], list[object]], str]] = {
    "mask elsewhere": (lambda tmp, s: ["--fixed-mask", save_mask(tmp, (20, 30, 25), away_mm=900)], "marks nothing of"),
    "empty mask": (lambda tmp, s: ["--fixed-mask", save_mask(tmp, FIXED.shape, 0.0)], "empty"),
    "mask of the other image": (lambda tmp, s: ["--moving-mask", s / "fixed_labels.nii.gz"], "other image"),
    "missing mask": (lambda tmp, s: ["--fixed-mask", tmp / "nothing.nii"], "nothing.nii"),
    "label map of floats": (lambda tmp, s: ["--moving-labels", save_float_labels(tmp)], "floats"),
    "label map of the other image": (lambda tmp, s: ["--moving-labels", s / "fixed_labels.nii.gz"], "other image"),
    "fixed labels alone": (lambda tmp, s: ["--fixed-labels", s / "fixed_labels.nii.gz"], "--moving-labels"),
    "unknown model": (lambda tmp, s: ["--model", "mnid"], "mind, head-neck-ct, head-neck-ct-labels, random"),
    "model that is a pickle": (lambda tmp, s: ["--model", save_pickle(tmp)], "pickle"),
    "unknown modality": (lambda tmp, s: ["--modality", "pet"], "modality"),
    "unknown affine": (lambda tmp, s: ["--affine", "rigidly"], "affine"),
    "unknown device": (lambda tmp, s: ["--device", "tpu"], "device"),
    "passes that are no numbers": (lambda tmp, s: ["--passes", "8;4"], "passes"),
    "passes that cannot be": (lambda tmp, s: ["--passes", "8,5"], "passes"),
    "negative steps": (lambda tmp, s: ["--refine-steps", "-1"], "steps"),
    "negative regularisation": (lambda tmp, s: ["--regularisation", "-1"], "regularisation"),
    "regularisation that is no number": (lambda tmp, s: ["--regularisation", "nan"], "regularisation"),
    "target out of range": (lambda tmp, s: ["--target-sdlogj", "1.5"], "target_sdlogj"),
    "target beside regularisation": (lambda tmp, s: ["--target-sdlogj", "0.1", "--regularisation", "1"], "one of them"),
    "label names that do not exist": (lambda tmp, s: ["--label-names", str(tmp / "gone.json")], "gone.json"),
    "negative seed": (lambda tmp, s: ["--seed", "-1"], "seed"),
    "spacing of zero": (lambda tmp, s: ["--spacing", "0"], "spacing"),
    "spacing beyond the memory": (lambda tmp, s: ["--spacing", "0.01"], "--spacing"),
}


@pytest.mark.parametrize("name", BAD_OPTIONS)
def test_option_that_cannot_be_used_is_refused_without_output(
    scans: Path, tmp_path: Path, command: Command, name: str
) -> None:
    make, expected = BAD_OPTIONS[name]
    out = tmp_path / "new" / "out"
    options = make(tmp_path, scans)
    done = command("register", scans / "fixed.nii.gz", scans / "moving.nii.gz", "-o", out, *QUICK[:2], *options)
    assert expected in one_line(done)
    assert not (tmp_path / "new").exists()
    assert not (tmp_path / "executed").exists()


def test_pair_without_overlap_is_refused_where_the_headers_are_trusted(
    scans: Path, tmp_path: Path, command: Command
) -> None:
    done = command("register", scans / "fixed.nii.gz", save_elsewhere(tmp_path), "-o", tmp_path / "out", *QUICK)
    assert "do not overlap" in one_line(done)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("place", ["out", "out/deeper"])
def test_output_folder_that_is_a_file_is_refused(scans: Path, tmp_path: Path, command: Command, place: str) -> None:
    (tmp_path / "out").write_text("mine")
    done = command("register", scans / "fixed.nii.gz", scans / "moving.nii.gz", "-o", tmp_path / place, *QUICK)
    assert "folder" in one_line(done)
    assert (tmp_path / "out").read_text("utf-8") == "mine"


def test_output_folder_that_is_not_writable_is_refused(
    scans: Path, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*args: object, **kwargs: object) -> str:
        raise PermissionError(13, "Permission denied")

    (tmp_path / "out").mkdir()
    # Permissions do not bind the superuser, whom containers run tests as.
    monkeypatch.setattr("tempfile.mkdtemp", refused)
    done = command("register", scans / "fixed.nii.gz", scans / "moving.nii.gz", "-o", tmp_path / "out", *QUICK)
    assert "not writable" in one_line(done)
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize("error", [RuntimeError("no more"), MemoryError("no more")])
def test_internal_error_is_one_line_with_status_1_and_leaves_nothing(
    scans: Path, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fails(*args: object, **kwargs: object) -> None:
        raise error

    monkeypatch.setattr("corereg.workflows.register.register", fails)
    out = tmp_path / "new" / "out"
    done = command("register", scans / "fixed.nii.gz", scans / "moving.nii.gz", "-o", out, *QUICK)
    assert "no more" in one_line(done, status=1)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("stage", ["corereg.workflows.register.register", "corereg.workflows.register.write_image"])
def test_interruption_leaves_nothing_and_says_so(
    scans: Path, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    def interrupted(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(stage, interrupted)
    done = command("register", scans / "fixed.nii.gz", scans / "moving.nii.gz", "-o", tmp_path / "new" / "out", *QUICK)
    assert "interrupted" in one_line(done, status=130)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("failing", ["Transform.save", "os.replace"])
def test_failure_harms_no_folder_that_was_there(
    scans: Path, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    def full(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    out = tmp_path / "out"
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    (out / "warped.nii.gz").write_text("of an earlier run")
    if failing == "os.replace":
        monkeypatch.setattr(os, "replace", full)
    else:
        monkeypatch.setattr(Transform, "save", full)
    done = command("register", scans / "fixed.nii.gz", scans / "moving.nii.gz", "-o", out, *QUICK, "--force")
    assert "no room" in one_line(done)
    assert {file.name for file in out.iterdir()} == {"notes.txt", "warped.nii.gz"}
    assert (out / "warped.nii.gz").read_text("utf-8") == "of an earlier run"


def test_existing_folder_keeps_its_other_files(scans: Path, tmp_path: Path, command: Command) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    done = command("register", scans / "fixed.nii.gz", scans / "moving.nii.gz", "-o", tmp_path, *QUICK)
    assert done.status == 0
    assert {file.name for file in tmp_path.iterdir()} == OUTPUTS | {"notes.txt"}
