"""Label maps and masks beside an image: voxels along other axes are turned, others resampled or refused."""

from pathlib import Path

import numpy as np
import pytest

from corereg.geometry.grid import Grid
from corereg.io.images.companions import as_mask, laid_on
from corereg.io.images.image import Image, read_image, write_image
from helpers.grids import make_grid
from helpers.images import ramp, stored_along
from helpers.refusals import refusal

AXES = ["LPS", "LAS", "RAS", "SAL", "PIR"]

CURE = "; or trust the image"


def laid(labels: Image, like: Grid, **options: object) -> Image:
    return laid_on(labels, like, what="the label map", of="the scan", cure=CURE, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd"])
@pytest.mark.parametrize("axes", AXES)
def test_labels_stored_along_other_axes_are_turned_to_those_of_the_image(
    axes: str, suffix: str, grid: Grid, tmp_path: Path
) -> None:
    write_image(tmp_path / f"labels{suffix}", *stored_along(axes, ramp(grid, np.int32), grid))
    found = laid(read_image(tmp_path / f"labels{suffix}"), grid)
    np.testing.assert_array_equal(found.array, ramp(grid))
    assert found.grid.close_to(grid, 1e-2)


@pytest.mark.parametrize("axes", AXES)
def test_masks_stored_along_other_axes_are_turned_to_those_of_the_image(axes: str, grid: Grid) -> None:
    mask = Image(*stored_along(axes, (ramp(grid) > 500).astype(np.uint8), grid))
    np.testing.assert_array_equal(as_mask(mask, like=grid, of="the scan").array, ramp(grid) > 500)


@pytest.mark.parametrize("axes", AXES)
def test_axes_that_point_elsewhere_are_turned_rather_than_trusted(axes: str) -> None:
    grid = make_grid((12, 12, 12), (2.0, 2.0, 2.0))
    found = laid(Image(*stored_along(axes, ramp(grid), grid)), grid, trusted=True)
    np.testing.assert_array_equal(found.array, ramp(grid))


def test_header_of_the_image_is_offered_only_where_the_axes_point_the_same_way() -> None:
    """Elsewhere it would mirror the labels."""
    grid = make_grid((12, 12, 12), (2.0, 2.0, 2.0))
    for axes in ("RAS", "LPS", "LAS"):
        elsewhere = Image(ramp(grid), make_grid((12, 12, 12), (2.0, 2.0, 2.0), axes, (1.0, 2.0, 3.0)))
        message = refusal(laid, elsewhere, grid)
        assert (CURE in message) is (axes == "RAS")
        assert f"({axes}) from (1, 2, 3), expected the grid of the scan: 12 x 12 x 12 voxels" in message


def test_grids_that_differ_by_more_than_their_axes_are_not_turned(grid: Grid) -> None:
    array, turned = stored_along("LPS", ramp(grid), grid)
    moved = turned.affine.copy()
    moved[:3, 3] += 0.3
    assert "expected the grid of the scan" in refusal(laid, Image(array, Grid(turned.shape, moved)), grid)


def finer(array: np.ndarray, grid: Grid, *, times: int = 3) -> Image:
    """The same scene in voxels a third as long: the middle one of each three lies where the voxel lay."""
    matrix = np.diag([1 / times, 1 / times, 1 / times, 1.0])
    matrix[:3, 3] = (1 - times) / 2 / times
    for axis in range(3):
        array = np.repeat(array, times, axis)
    return Image(array, Grid(array.shape, grid.affine @ matrix), name="the fine map")


def test_labels_on_another_grid_are_resampled_onto_the_image_and_that_is_said(grid: Grid) -> None:
    labels = ramp(grid, np.int32)
    with pytest.warns(UserWarning, match="label map the fine map lies on a grid of its own, 36 x 48 x 60") as said:
        found = laid(finer(labels, grid), grid)
    assert len(said) == 1
    np.testing.assert_array_equal(found.array, labels)
    assert found.array.dtype == np.int32
    assert found.grid == grid


def test_labels_of_part_of_the_image_are_0_in_the_rest() -> None:
    grid = make_grid(orientation="LPS")
    part = Image(ramp(grid)[3:9, 2:, :15], Grid((6, 14, 15), grid.affine @ shifted(3, 2, 0)))
    with pytest.warns(UserWarning, match="by nearest neighbour"):
        found = laid(part, grid)
    expected = np.zeros_like(ramp(grid))
    expected[3:9, 2:, :15] = ramp(grid)[3:9, 2:, :15]
    np.testing.assert_array_equal(found.array, expected)


def test_mask_on_another_grid_is_resampled_onto_the_image(grid: Grid) -> None:
    inside = (ramp(grid) > 500).astype(np.uint8)
    with pytest.warns(UserWarning, match="the mask the fine map"):
        found = as_mask(finer(inside, grid), like=grid, of="the scan")
    assert found.array.dtype == bool
    np.testing.assert_array_equal(found.array, inside)


@pytest.mark.parametrize("voxels", [60, 8], ids=["its grid", "what it marks"])
def test_labels_that_lie_outside_the_image_are_refused(voxels: int, grid: Grid) -> None:
    array = np.zeros((12, 16, 24), np.int16)
    array[:, :, 20:] = 7
    away = Image(array, Grid(array.shape, grid.affine @ shifted(0, 0, voxels)))
    message = refusal(laid, away, grid)
    assert "which marks nothing of the scan" in message
    assert CURE not in message


def shifted(i: float, j: float, k: float) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, 3] = i, j, k
    return matrix
