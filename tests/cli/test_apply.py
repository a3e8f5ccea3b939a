"""X"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
from numpy.testing import assert_allclose

from corereg import Transform, read_image
from corereg.io.points.points import Points, read_points, write_points
from helpers.commands import Command, one_line
from helpers.images import save_nifti
from helpers.pairs import MOVING
from helpers.scenes import scan


def save_float_labels(folder: Path) -> Path:
    save_nifti(folder / "labels.nii", scan(MOVING).array * 0.37, MOVING.affine)
    return folder / "labels.nii"


def test_apply_warps_an_image_onto_the_transforms_grid(
    scans: Path, field: Path, tmp_path: Path, command: Command
) -> None:
    out = tmp_path / "warped.nii.gz"
    done = command("apply", field, scans / "moving.nii.gz", "-o", out)
    assert done == (0, f"{out}\n", "")
    warped, expected = read_image(out), Transform.load(field).apply(scans / "moving.nii.gz")
    assert warped.grid.close_to(read_image(scans / "fixed.nii.gz").grid)
    np.testing.assert_array_equal(warped.array, expected.array)


def test_what_is_odd_about_a_file_that_is_read_often_is_said_once(
    scans: Path, field: Path, tmp_path: Path, command: Command
) -> None:
    names = {tmp_path / "field.nii": field, tmp_path / "scan.nii": scans / "moving.nii.gz"}
    for name, content in names.items():
        name.write_bytes(content.read_bytes())
    done = command("apply", *names, "-o", tmp_path / "out.nii.gz", "--reference", tmp_path / "scan.nii")
    assert done.status == 0, done.err
    lines = done.err.splitlines()
    assert sorted(line.split(": ")[2] for line in lines if "compressed by gzip" in line) == [*map(str, names)]


@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd", ".mha"])
def test_apply_warps_labels_to_labels(scans: Path, field: Path, tmp_path: Path, command: Command, suffix: str) -> None:
    out = tmp_path / f"labels{suffix}"
    assert command("apply", field, scans / "moving_labels.nii.gz", "-o", out, "--labels").status == 0
    values = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(out)))
    assert values.dtype == np.uint8
    assert set(np.unique(values)) == {0, 3, 17, 90}


def test_apply_takes_the_grid_of_a_reference(scans: Path, field: Path, tmp_path: Path, command: Command) -> None:
    arguments = [field, scans / "moving.nii.gz", "-o", tmp_path / "out.nii.gz", "--reference", scans / "moving.nii.gz"]
    assert command("apply", *arguments).status == 0
    assert read_image(tmp_path / "out.nii.gz").grid.close_to(read_image(scans / "moving.nii.gz").grid)


@pytest.mark.parametrize("suffix", [".csv", ".fcsv", ".mrk.json"])
def test_apply_moves_points_from_the_fixed_to_the_moving_image(
    field: Path, tmp_path: Path, command: Command, suffix: str
) -> None:
    points = np.array([[10.0, -20.0, 5.0], [0.0, 0.0, 0.0], [-30.0, 25.0, -15.0]])
    write_points(tmp_path / f"in{suffix}", Points(points, ["liver", "spleen", "aorta"]))
    assert command("apply", field, tmp_path / f"in{suffix}", "-o", tmp_path / f"out{suffix}").status == 0
    moved = read_points(tmp_path / f"out{suffix}")
    assert moved.labels == ["liver", "spleen", "aorta"]
    assert_allclose(moved.coords_mm, points + np.array([6.0, -3.0, 3.5]), atol=1e-3)


BAD_APPLICATIONS: dict[str, Callable[[Path, Path, Path], list[object]]] = {
    "missing transform": lambda tmp, s, t: [tmp / "no.nii.gz", s / "moving.nii.gz", "-o", tmp / "out.nii.gz"],
    "image as transform": lambda tmp, s, t: [s / "fixed.nii.gz", s / "moving.nii.gz", "-o", tmp / "out.nii.gz"],
    "missing image": lambda tmp, s, t: [t, tmp / "no.nii.gz", "-o", tmp / "out.nii.gz"],
    "unknown output format": lambda tmp, s, t: [t, s / "moving.nii.gz", "-o", tmp / "out.png"],
    "output in no folder": lambda tmp, s, t: [t, s / "moving.nii.gz", "-o", tmp / "no" / "out.nii.gz"],
    "output is a folder": lambda tmp, s, t: [t, s / "moving.nii.gz", "-o", tmp],
    "scan as labels": lambda tmp, s, t: [t, save_float_labels(tmp), "-o", tmp / "out.nii.gz", "--labels"],
    "missing points": lambda tmp, s, t: [t, tmp / "no.fcsv", "-o", tmp / "out.fcsv"],
    "points as labels": lambda tmp, s, t: [t, tmp / "no.fcsv", "-o", tmp / "out.fcsv", "--labels"],
    "missing reference": lambda tmp, s, t: [
        *[t, s / "moving.nii.gz", "-o", tmp / "out.nii.gz", "--reference", tmp / "no.nii.gz"]
    ],
}


@pytest.mark.parametrize("name", BAD_APPLICATIONS)
def test_apply_refuses_what_it_cannot_use_without_output(
    scans: Path, field: Path, tmp_path: Path, command: Command, name: str
) -> None:
    arguments = BAD_APPLICATIONS[name](tmp_path, scans, field)
    there = set(tmp_path.iterdir())
    one_line(command("apply", *arguments))
    assert set(tmp_path.iterdir()) == there
