"""Blank planes at the ends of a scan."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from corereg.io.images.image import Image
from corereg.method.register import register
from corereg.preprocessing.blank_ends import without_blank_ends
from corereg.preprocessing.detection import Intensities
from corereg.preprocessing.pair import Scan
from helpers.grids import make_grid
from helpers.scenes import centred_grid, in_body, scan, voxels_mm, wave

CT = Intensities("ct")


def noise(shape: tuple[int, int, int]) -> NDArray[np.float32]:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("value", [-1024.0, 0.0, 3071.0])
def test_ends_of_one_value_count_nothing_and_are_held_constant(value: float, masked: bool) -> None:
    array = noise((14, 17, 12))
    array[:3], array[:, -4:], array[:, :, :2], array[:, :, -1:] = value, value, value, value + 1
    grid = make_grid(array.shape, (2.0, 3.0, 4.0), "oblique", (5.0, 6.0, 7.0))
    given = noise(array.shape) > 0 if masked else np.ones(array.shape, np.bool_)
    found, _, mask = without_blank_ends(Scan(Image(array, grid), CT, given if masked else None))
    shown = np.zeros(array.shape, np.bool_)
    shown[3:, :-4, 2:-1] = True
    np.testing.assert_array_equal(mask, shown & given)
    nearest = np.ix_(np.arange(14).clip(3), np.arange(17).clip(0, 12), np.arange(12).clip(2, 10))
    np.testing.assert_array_equal(found.array, array[nearest])
    assert found.grid == grid


def ball(shape: tuple[int, int, int], *, above: int = 0) -> NDArray[np.float32]:
    """Noise in an ellipsoid, 0 around it and below a plane."""
    where = np.stack(np.indices(shape), -1)
    inside = (((where - np.array(shape) / 2) / (np.array(shape) / 2 - 2)) ** 2).sum(-1) < 1
    return np.where(inside & (where[..., 2] >= above), 5 + noise(shape), 0).astype(np.float32)


@pytest.mark.parametrize("array", [ball((24, 30, 36)), noise((9, 8, 7)), np.zeros((5, 6, 7), np.float32)])
def test_background_around_a_body_is_kept(array: NDArray[Any]) -> None:
    given = Scan(Image(array, make_grid(array.shape, (2.0, 3.0, 4.0), "oblique", (0.0, 0.0, 0.0))), CT)
    assert without_blank_ends(given) is given


def test_body_without_background_ends_where_it_is_cut_off() -> None:
    array = ball((24, 30, 36), above=15)
    given = Scan(Image(array, make_grid(array.shape, (2.0, 3.0, 4.0), "RAS", (0.0, 0.0, 0.0))), CT)
    mask = without_blank_ends(given).mask
    assert mask is not None
    assert mask[:, :, 15:].all()
    assert not mask[:, :, :15].any()


def test_blank_part_of_a_scan_does_not_move_the_rest() -> None:
    grid = centred_grid((32, 32, 32), (4.0, 4.0, 4.0))
    moving, blanked = scan(grid), scan(grid, wave).array.copy()
    blanked[:, :, :12] = -1024
    found = register(Image(blanked, grid), moving, affine="none", device="cpu")
    points = voxels_mm(grid)[:, :, 12:]
    body = in_body(points)
    error = np.linalg.norm(found.transform.apply_points(points[body]) - wave(points[body]), axis=-1)
    assert error.mean() < 2.0
    assert np.percentile(error, 95) < 4.0
