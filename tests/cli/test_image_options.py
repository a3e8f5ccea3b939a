"""Options about images that the files alone do not settle: series, headers, and values outside the field of view."""

import json
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import SimpleITK

from corereg.geometry.grid import Grid
from corereg.io.images.image import read_image, read_labels, to_sitk, write_image
from corereg.io.transforms.transform import Transform
from helpers.commands import Command, one_line
from helpers.dicom import SERIES, write_slices
from helpers.grids import make_grid
from helpers.images import FLOAT32_MM, ramp, stored_along

GRID = make_grid(orientation="LPS")
SHIFT_MM = 6.0
QUICK = ["--affine", "none", "--refine-steps", "0", "--no-report"]


@pytest.fixture
def shift(tmp_path: Path) -> Path:
    """Two voxels along the third axis, so that part of the output lies outside the input."""
    matrix = np.eye(4)
    matrix[2, 3] = SHIFT_MM
    Transform((matrix,), fixed=GRID).save(tmp_path / "shift.h5")
    return tmp_path / "shift.h5"


def signed_map() -> Any:
    return np.random.default_rng(0).normal(0, 3.5, GRID.shape).astype(np.float32)


@pytest.mark.parametrize(("options", "value"), [([], 0), (["--outside", "-7.5"], -7.5), (["--outside", "nan"], np.nan)])
def test_value_outside_a_signed_map_is_0_or_as_given(
    shift: Path, tmp_path: Path, command: Command, options: list[str], value: float
) -> None:
    write_image(tmp_path / "map.nii.gz", signed_map(), GRID)
    assert command("apply", shift, tmp_path / "map.nii.gz", "-o", tmp_path / "out.nii.gz", *options).status == 0
    out = np.asarray(nibabel.load(tmp_path / "out.nii.gz").dataobj)
    np.testing.assert_allclose(out[:, :, :-2], signed_map()[:, :, 2:], atol=1e-5)
    np.testing.assert_array_equal(out[:, :, -2:], np.full((12, 16, 2), value))


def test_value_outside_a_ct_is_its_air(shift: Path, tmp_path: Path, command: Command) -> None:
    write_image(tmp_path / "ct.nii.gz", ramp(GRID), GRID)
    command("apply", shift, tmp_path / "ct.nii.gz", "-o", tmp_path / "out.nii.gz")
    assert (read_image(tmp_path / "out.nii.gz").array[:, :, -2:] == -1000).all()


def test_value_outside_each_frame_of_a_series_is_0(shift: Path, tmp_path: Path, command: Command) -> None:
    frames = np.stack([signed_map(), signed_map() * 2], -1)
    nibabel.Nifti1Image(frames, GRID.affine).to_filename(tmp_path / "series.nii")
    assert command("apply", shift, tmp_path / "series.nii", "-o", tmp_path / "out.nii").status == 0
    out = np.asarray(nibabel.load(tmp_path / "out.nii").dataobj)
    assert out.shape == (*GRID.shape, 2)
    assert not out[:, :, -2:].any()
    np.testing.assert_allclose(out[:, :, :-2], frames[:, :, 2:], atol=1e-5)


def test_outside_is_refused_for_points(shift: Path, tmp_path: Path, command: Command) -> None:
    (tmp_path / "points.csv").write_text("x_ras,y_ras,z_ras\n1,2,3\n")
    arguments = ["apply", shift, tmp_path / "points.csv", "-o", tmp_path / "out.csv", "--outside", "1"]
    assert "--outside" in one_line(command(*arguments))


@pytest.mark.parametrize("empty", [True, False])
def test_label_maps_without_a_label_or_with_huge_ones_are_warped(
    shift: Path, tmp_path: Path, command: Command, empty: bool
) -> None:
    labels = np.zeros(GRID.shape, np.int64) if empty else np.where(ramp(GRID) % 3 == 0, 3_000_000_000, 0)
    write_image(tmp_path / "labels.nii.gz", labels, GRID)
    done = command("apply", shift, tmp_path / "labels.nii.gz", "-o", tmp_path / "out.nii.gz", "--labels")
    assert done.status == 0
    out = np.asarray(nibabel.load(tmp_path / "out.nii.gz").dataobj)
    np.testing.assert_array_equal(out[:, :, :-2], labels[:, :, 2:])


@pytest.mark.parametrize("kind", ["4-D", "empty"])
def test_only_the_grid_of_a_reference_counts(shift: Path, tmp_path: Path, command: Command, kind: str) -> None:
    grid = make_grid(shape=(9, 8, 7), orientation="LPS")
    array = np.zeros((*grid.shape, 3) if kind == "4-D" else grid.shape, np.int16)
    nibabel.Nifti1Image(array, grid.affine).to_filename(tmp_path / "ref.nii")
    write_image(tmp_path / "ct.nii.gz", ramp(GRID), GRID)
    arguments = [shift, tmp_path / "ct.nii.gz", "-o", tmp_path / "out.nii.gz", "--reference", tmp_path / "ref.nii"]
    assert command("apply", *arguments).status == 0
    assert read_image(tmp_path / "out.nii.gz").grid.close_to(grid, FLOAT32_MM)


def test_four_dimensional_metaimage_stays_one(shift: Path, tmp_path: Path, command: Command) -> None:
    frames = [to_sitk(signed_map() + n, GRID) for n in range(2)]
    SimpleITK.WriteImage(SimpleITK.JoinSeries(frames, 1.0, 0.5), str(tmp_path / "scan.mha"))
    assert command("apply", shift, tmp_path / "scan.mha", "-o", tmp_path / "out.mha").status == 0
    out = SimpleITK.ReadImage(str(tmp_path / "out.mha"))
    assert (out.GetSize(), out.GetOrigin()[3], out.GetSpacing()[3]) == ((*GRID.shape, 2), 1.0, 0.5)
    last = SimpleITK.GetArrayFromImage(out)[1].T
    np.testing.assert_allclose(last[:, :, :-2], signed_map()[:, :, 2:] + 1, atol=1e-5)


def two_series(folder: Path) -> Path:
    """Two phases of as many slices."""
    scan = ramp(make_grid(shape=(20, 18, 16)))
    depths = np.arange(16) * 3.0
    write_slices(folder / "arterial", scan, depths)
    write_slices(folder / "venous", scan[::-1], depths, tags=lambda k: {"SeriesInstanceUID": f"{SERIES}.2"})
    return folder


def test_series_is_chosen_and_recorded(tmp_path: Path, command: Command) -> None:
    folder = two_series(tmp_path / "study")
    refused = one_line(command("register", folder, folder, "-o", tmp_path / "out", *QUICK))
    assert "--fixed-series" in refused
    assert not (tmp_path / "out").exists()
    chosen = ["--fixed-series", SERIES, "--moving-series", f"{SERIES}.2"]
    done = command("register", folder, folder, "-o", tmp_path / "out", *QUICK, *chosen)
    assert done.status == 0, done.err
    assert f"read the series {SERIES} (CT, 16 slices of 20 x 18), not {SERIES}.2" in done.err
    inputs = json.loads((tmp_path / "out" / "result.json").read_text("utf-8"))["inputs"]
    assert (inputs["fixed"]["series"], inputs["moving"]["series"]) == (SERIES, f"{SERIES}.2")


def test_series_of_an_image_to_warp_is_chosen(tmp_path: Path, shift: Path, command: Command) -> None:
    folder = two_series(tmp_path / "study")
    assert "equally large" in one_line(command("apply", shift, folder, "-o", tmp_path / "out.nii.gz"))
    done = command("apply", shift, folder, "-o", tmp_path / "out.nii.gz", "--series", f"{SERIES}.2")
    assert done.status == 0
    assert "read the series" in done.err


def test_label_map_whose_header_alone_differs_takes_the_grid_of_its_image(
    scans: Path, tmp_path: Path, command: Command
) -> None:
    labels = read_labels(scans / "moving_labels.nii.gz")
    moved = labels.grid.affine.copy()
    moved[:3, 3] += 25
    write_image(tmp_path / "labels.nii.gz", labels.array, Grid(labels.grid.shape, moved))
    arguments = ["register", scans / "fixed.nii.gz", scans / "moving.nii.gz", "-o", tmp_path / "out", *QUICK]
    arguments += ["--moving-labels", tmp_path / "labels.nii.gz"]
    assert "add --labels-use-image-grid" in one_line(command(*arguments))
    assert command(*arguments, "--labels-use-image-grid").status == 0
    warped = read_labels(tmp_path / "out" / "warped_labels.nii.gz").array
    arguments[-1] = scans / "moving_labels.nii.gz"
    assert command(*arguments, "--force").status == 0
    np.testing.assert_array_equal(warped, read_labels(tmp_path / "out" / "warped_labels.nii.gz").array)


def test_companions_stored_along_other_axes_count_as_those_along_the_axes_of_the_image(
    scans: Path, tmp_path: Path, command: Command
) -> None:
    pair = [scans / "fixed.nii.gz", scans / "moving.nii.gz"]
    outcomes = []
    for axes in (None, "LPS", "SAL"):
        folder, out = tmp_path / str(axes), tmp_path / f"{axes} out"
        folder.mkdir()
        for name in ("fixed_labels", "moving_labels"):
            labels = read_labels(scans / f"{name}.nii.gz")
            stored = stored_along(axes, labels.array, labels.grid) if axes else (labels.array, labels.grid)
            write_image(folder / f"{name}.nii.gz", *stored)
        fixed, moving = ([f"--{side}-labels", folder / f"{side}_labels.nii.gz"] for side in ("fixed", "moving"))
        masks = ["--fixed-mask", fixed[1], "--moving-mask", moving[1], "--rigid-labels", fixed[1]]
        done = command("register", *pair, "-o", out, *QUICK, *fixed, *moving, *masks, "--guide-labels")
        assert done.status == 0, done.err
        assert "label map" not in done.err
        metrics = json.loads((out / "result.json").read_text("utf-8"))["metrics"]
        outcomes.append(((out / "warped_labels.nii.gz").read_bytes(), metrics))
    assert outcomes[1:] == outcomes[:1] * 2


def test_companions_on_finer_grids_count_as_those_on_the_grid_of_the_image(
    scans: Path, tmp_path: Path, command: Command
) -> None:
    pair = [scans / "fixed.nii.gz", scans / "moving.nii.gz"]
    dices = []
    for fine in (False, True):
        folder, out = tmp_path / str(fine), tmp_path / f"{fine} out"
        folder.mkdir()
        for name in ("fixed_labels", "moving_labels"):
            labels = read_labels(scans / f"{name}.nii.gz")
            write_image(folder / f"{name}.nii.gz", *(halved(labels) if fine else (labels.array, labels.grid)))
        fixed, moving = ([f"--{side}-labels", folder / f"{side}_labels.nii.gz"] for side in ("fixed", "moving"))
        masks = ["--fixed-mask", fixed[1], "--moving-mask", moving[1], "--rigid-labels", fixed[1]]
        done = command("register", *pair, "-o", out, *QUICK, *fixed, *moving, *masks, "--guide-labels")
        assert done.status == 0, done.err
        assert done.err.count("lies on a grid of its own") == (3 if fine else 0), "the fixed labels and both masks"
        dices.append(json.loads((out / "result.json").read_text("utf-8"))["metrics"]["dice"])
    assert dices[1] == pytest.approx(dices[0], abs=0.01)


def halved(labels: Any) -> tuple[Any, Grid]:
    """The labels in voxels half as long."""
    matrix = np.diag([0.5, 0.5, 0.5, 1.0])
    matrix[:3, 3] = -0.25
    array = labels.array.repeat(2, 0).repeat(2, 1).repeat(2, 2)
    return array, Grid(array.shape, labels.grid.affine @ matrix)
