"""Label maps and masks beside an image: voxels along other axes are turned, other voxels refused."""

from pathlib import Path

import numpy as np
import pytest

from corereg.geometry.grid import Grid
from corereg.io.images.companions import as_mask, laid_on
from corereg.io.images.image import Image, read_labels, write_image
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
    found = laid(read_labels(tmp_path / f"labels{suffix}"), grid)
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
