"""FreeSurfer's .lta, against its own formulas written out here."""

from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose
from numpy.typing import NDArray

from corereg.geometry.grid import Grid, transform_points
from corereg.io.transforms.convert import convert_transform
from corereg.io.transforms.transform import Transform
from helpers.refusals import refusal
from helpers.transforms import FIXED, MOVING, small_affine, wavy

POINTS = np.random.default_rng(0).uniform(-40, 40, (30, 3))


def geometry(name: str, grid: Grid) -> str:
    """As FreeSurfer states it: c_ras is the RAS position of the voxel at half the size."""
    x, y, z = (grid.linear / grid.spacing).T
    c = grid.affine @ [*(np.array(grid.shape) / 2), 1]
    lines = [f"{name} volume info", "valid = 1  # volume info valid", "filename = some file = name.mgz"]
    rows = {"volume": grid.shape, "voxelsize": grid.spacing, "xras": x, "yras": y, "zras": z, "cras": c[:3]}
    return "\n".join([*lines, *(f"{key}   = {' '.join(map(str, row))}" for key, row in rows.items())]) + "\n"


def lta(path: Path, kind: int, matrix: NDArray[np.float64], *volumes: str) -> Path:
    rows = "\n".join(" ".join(f"{value:.12f}" for value in row) for row in matrix)
    head = f"# comment\ntype      = {kind} # LINEAR\nnxforms   = 1\nmean      = 0.0 0.0 0.0\nsigma     = 1.0\n1 4 4\n"
    path.write_text(head + rows + "\n" + "".join(volumes) + "subject fsaverage\nfscale 0.150000\n")
    return path


def to_moving(points_mm: NDArray[np.float64]) -> NDArray[np.float64]:
    return transform_points(small_affine(), points_mm)


def test_matrix_between_world_positions_leads_from_source_to_destination(tmp_path: Path) -> None:
    path = lta(tmp_path / "t.lta", 1, np.linalg.inv(small_affine()), geometry("src", MOVING), geometry("dst", FIXED))
    loaded = Transform.load(path)
    assert_allclose(loaded.apply_points(POINTS), to_moving(POINTS), atol=1e-6)
    assert loaded.fixed_grid.close_to(FIXED)
    assert loaded.moving_grid.close_to(MOVING)


@pytest.mark.parametrize("stated", [True, False], ids=["grids in the file", "grids given"])
def test_matrix_between_voxels_is_read_with_the_grids_of_the_file_or_of_the_images(
    tmp_path: Path, stated: bool
) -> None:
    voxels = FIXED.inverse_affine @ np.linalg.inv(small_affine()) @ MOVING.affine
    unknown = "src volume info\nvalid = 0  # volume info invalid\ndst volume info\nvalid = 0\n"
    volumes = (geometry("src", MOVING), geometry("dst", FIXED)) if stated else (unknown,)
    path = lta(tmp_path / "t.lta", 0, voxels, *volumes)
    if not stated:
        assert "give the moving image" in refusal(Transform.load, path)
    loaded = Transform.load(path) if stated else Transform.load(path, fixed=FIXED, moving=MOVING)
    assert_allclose(loaded.apply_points(POINTS), to_moving(POINTS), atol=1e-6)


def test_written_matrix_and_geometry_are_those_of_freesurfer(tmp_path: Path) -> None:
    Transform((small_affine(),), FIXED, MOVING).save(tmp_path / "ours.lta")
    text = (tmp_path / "ours.lta").read_text("ascii")
    lines = text.splitlines()
    assert lines[0].split("#")[0].split() == ["type", "=", "1"]
    start = lines.index("1 4 4") + 1
    matrix = np.array([line.split() for line in lines[start : start + 4]], dtype=float)
    assert_allclose(transform_points(matrix, to_moving(POINTS)), POINTS, atol=1e-9)
    for name, grid in (("src", MOVING), ("dst", FIXED)):
        at = lines.index(f"{name} volume info") + 1
        stated = {key.strip(): value.split() for key, _, value in (line.partition("=") for line in lines[at : at + 8])}
        size = np.array(stated["volume"], dtype=float)
        axes = np.array([stated[key] for key in ("xras", "yras", "zras")], dtype=float).T
        linear = axes * np.array(stated["voxelsize"], dtype=float)
        first = np.array(stated["cras"], dtype=float) - linear @ (size / 2)
        assert_allclose(linear, grid.linear, atol=1e-9)
        assert_allclose(first, grid.affine[:3, 3], atol=1e-9)


def test_what_is_no_single_matrix_is_refused(tmp_path: Path) -> None:
    wavy(FIXED).save(tmp_path / "t.h5")
    assert "--only affine" in refusal(convert_transform, tmp_path / "t.h5", tmp_path / "t.lta")
    assert not (tmp_path / "t.lta").exists()
    convert_transform(tmp_path / "t.h5", tmp_path / "affine.lta", only=["affine"])
    assert_allclose(Transform.load(tmp_path / "affine.lta").apply_points(POINTS), to_moving(POINTS), atol=1e-4)
    assert "lta_convert" in refusal(Transform.load, lta(tmp_path / "other.lta", 14, np.eye(4)))
    assert "can be inverted" in refusal(Transform.load, lta(tmp_path / "flat.lta", 1, np.diag([1.0, 1.0, 0.0, 1.0])))
    content = (tmp_path / "affine.lta").read_text("ascii")
    for old, new in (("1 4 4", "1 4 5"), ("nxforms   = 1", "nxforms   = 2"), ("voxelsize", "vsize"), ("e+", "f+")):
        assert old in content
        (tmp_path / "bad.lta").write_text(content.replace(old, new))
        assert "write it again" in refusal(Transform.load, tmp_path / "bad.lta")
