"""Grids of displacement fields that files cannot be trusted with: sheared ones, and headers that lead elsewhere."""

from pathlib import Path

import numpy as np
import pytest
import SimpleITK

from corereg.geometry.grid import Grid
from corereg.io.images.image import Image
from corereg.io.images.itk import LPS_RAS
from corereg.io.transforms.convert import convert_transform
from corereg.io.transforms.transform import Transform
from helpers.refusals import refusal
from helpers.scenes import scan
from helpers.transforms import fixed_grid, sitk_transform, wavy


@pytest.fixture
def sheared() -> Image:
    """A scan as a tilted gantry makes it."""
    grid = fixed_grid("LPS")
    affine = grid.affine.copy()
    affine[:3, 2] += 0.25 * affine[:3, 1]
    return scan(Grid(grid.shape, affine))


def inner_points(grid: Grid) -> np.ndarray:
    return grid.to_world(np.random.default_rng(0).uniform(1, np.array(grid.shape) - 2, (200, 3)))


def assert_moved_alike_by_itk(path: Path, transform: Transform, grid: Grid) -> None:
    points, lps = inner_points(grid), LPS_RAS[:3, :3]
    theirs = SimpleITK.ReadTransform(str(path)) if path.suffix == ".h5" else sitk_transform(path)
    moved = np.array([theirs.TransformPoint((lps @ p).tolist()) for p in points]) @ lps
    np.testing.assert_allclose(moved, transform.apply_points(points), atol=0.05)


@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd", ".h5"])
def test_itk_reads_the_field_of_a_sheared_grid_where_we_wrote_it(tmp_path: Path, sheared: Image, suffix: str) -> None:
    transform = wavy(sheared)
    path = tmp_path / f"transform{suffix}"
    if suffix == ".nii.gz":
        with pytest.warns(UserWarning, match="the fixed grid is sheared"):
            transform.save(path)
    else:
        transform.save(path)
        assert Transform.load(path).fixed_grid.close_to(sheared.grid, 1e-3)
    assert_moved_alike_by_itk(path, transform, sheared.grid)
    points = inner_points(sheared.grid)
    np.testing.assert_allclose(Transform.load(path).apply_points(points), transform.apply_points(points), atol=0.05)


def test_ants_reads_the_warp_of_a_sheared_grid_where_we_wrote_it(tmp_path: Path, sheared: Image) -> None:
    transform = wavy(sheared)
    transform.save(tmp_path / "transform.h5")
    with pytest.warns(UserWarning, match="the fixed grid is sheared"):
        convert_transform(tmp_path / "transform.h5", tmp_path / "out_", to="ants")
    again = Transform.load(tmp_path / "out_")
    points = inner_points(sheared.grid)
    np.testing.assert_allclose(again.apply_points(points), transform.apply_points(points), atol=0.05)


def test_data_of_a_field_beyond_its_header_s_folder_are_refused(tmp_path: Path) -> None:
    wavy(Image(np.zeros(fixed_grid("LPS").shape), fixed_grid("LPS"))).save(tmp_path / "field.mhd")
    header = tmp_path / "field.mhd"
    text = header.read_text("utf-8").replace("ElementDataFile = ", "ElementDataFile = ../")
    header.write_text(text)
    assert "header names the data file" in refusal(Transform.load, header)
