"""Blank planes at the ends of a scan, and fill values."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from corereg.geometry.grid import Grid
from corereg.io.images.image import Image
from corereg.method.register import register
from corereg.preprocessing.filling import without_filling
from helpers.grids import make_grid
from helpers.scenes import centred_grid, in_body, scan, voxels_mm, wave

Ends = tuple[int, int, int]


def noise(shape: tuple[int, int, int]) -> NDArray[np.float32]:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("value", [-1024.0, 0.0, 3071.0])
def test_ends_of_one_value_are_cut_off(value: float, masked: bool) -> None:
    array = noise((14, 17, 12))
    array[:3], array[:, -4:], array[:, :, :2], array[:, :, -1:] = value, value, value, value + 1
    grid = make_grid(array.shape, (2.0, 3.0, 4.0), "oblique", (5.0, 6.0, 7.0))
    given = noise(array.shape) > 0 if masked else None
    found, mask = without_filling(Image(array, grid), given)
    np.testing.assert_array_equal(found.array, array[3:, :-4, 2:-1])
    if given is None:
        assert mask is None
    else:
        np.testing.assert_array_equal(mask, given[3:, :-4, 2:-1])
    np.testing.assert_allclose(found.grid.to_world([1.0, 2.0, 3.0]), grid.to_world([4.0, 2.0, 5.0]), atol=1e-9)
    assert found.grid.spacing == pytest.approx(grid.spacing)


def ball(shape: tuple[int, int, int], *, above: int = 0) -> NDArray[np.float32]:
    """Noise in an ellipsoid, 0 around it and below a plane."""
    where = np.stack(np.indices(shape), -1)
    inside = (((where - np.array(shape) / 2) / (np.array(shape) / 2 - 2)) ** 2).sum(-1) < 1
    return np.where(inside & (where[..., 2] >= above), 5 + noise(shape), 0).astype(np.float32)


@pytest.mark.parametrize("array", [noise((9, 8, 7)), np.zeros((5, 6, 7), np.float32)])
def test_scan_without_filling_stays_the_same_object(array: NDArray[Any]) -> None:
    given = Image(array, make_grid(array.shape, (2.0, 3.0, 4.0), "oblique", (0.0, 0.0, 0.0)))
    assert without_filling(given, None)[0] is given


def test_background_ends_where_the_body_does() -> None:
    array = ball((24, 30, 36), above=15)
    image = Image(array, make_grid(array.shape, (2.0, 3.0, 4.0), "RAS", (0.0, 0.0, 0.0)))
    found = without_filling(image, None)[0].array
    np.testing.assert_array_equal(found, array[3:22, 3:28, 15:34])


def beyond_a_round_view(shape: tuple[int, ...]) -> NDArray[np.bool_]:
    i, j, _ = np.indices(shape)
    return np.asarray((i / (shape[0] - 1) - 0.5) ** 2 + (j / (shape[1] - 1) - 0.5) ** 2 > 0.3)


@pytest.mark.parametrize(
    ("values", "fill", "kind"),
    [
        ((0, 855), -1000, np.int16),
        ((200, 855), -3024, np.int32),
        ((0, 855), 32767, np.int16),
        ((0, 855), 65535, np.uint16),
        ((0.0, 1.0), -1e6, np.float32),
    ],
)
def test_a_value_that_nothing_measures_becomes_zero(values: tuple[float, float], fill: float, kind: type) -> None:
    array = np.linspace(*values, 12 * 14 * 16).reshape(12, 14, 16).astype(kind)
    outside = beyond_a_round_view(array.shape)
    image = Image(
        np.where(outside, np.asarray(fill, kind), array),
        make_grid(array.shape, (2.0, 3.0, 4.0), "oblique", (0.0, 0.0, 0.0)),
    )
    found, _ = without_filling(image, None)
    assert found.array.dtype == kind
    np.testing.assert_array_equal(found.array, np.where(outside, 0, array))


@pytest.mark.parametrize(
    ("values", "fill"),
    [((100, 110), 0), ((-200, 300), -1024), ((-1024, 3071), -3024), ((100, 110), 255), ((0, 855), 900)],
)
def test_a_background_far_from_what_an_image_shows_stays(values: tuple[float, float], fill: int) -> None:
    array = np.linspace(*values, 12 * 14 * 16).reshape(12, 14, 16).astype(np.int16)
    array[beyond_a_round_view(array.shape)] = fill
    image = Image(array, make_grid(array.shape, (2.0, 3.0, 4.0), "oblique", (0.0, 0.0, 0.0)))
    assert without_filling(image, None)[0] is image


@pytest.mark.parametrize("bright", [-1000, 32767])
def test_such_a_value_inside_stays(bright: int) -> None:
    array = np.linspace(0, 855, 12 * 14 * 16).reshape(12, 14, 16).astype(np.int16)
    array[4:8, 4:8] = bright
    image = Image(array, make_grid(array.shape, (2.0, 3.0, 4.0), "oblique", (0.0, 0.0, 0.0)))
    assert without_filling(image, None)[0] is image


def test_blank_part_of_a_scan_does_not_move_the_rest() -> None:
    grid = centred_grid((36, 30, 33), (3.6, 4.4, 4.0), "oblique")
    moving, blanked = scan(grid), scan(grid, wave).array.copy()
    blanked[:, :, :12] = -1024
    found = register(Image(blanked, grid), moving, affine="none", device="cpu")
    points = voxels_mm(grid)[:, :, 12:]
    body = in_body(points)
    error = np.linalg.norm(found.transform.apply_points(points[body]) - wave(points[body]), axis=-1)
    assert error.mean() < 2.0
    assert np.percentile(error, 95) < 4.0


@pytest.mark.parametrize("fixed_too", [False, True])
def test_a_canvas_changes_nothing(fixed_too: bool) -> None:
    grid = centred_grid((36, 31, 33), (3.6, 4.4, 4.0), "oblique")
    fixed, moving = scan(grid, wave), scan(grid)
    expected = register(fixed, moving, device="cpu")
    found = register(on_canvas(fixed) if fixed_too else fixed, on_canvas(moving), device="cpu")
    points = voxels_mm(grid)
    np.testing.assert_allclose(found.transform.apply_points(points), expected.transform.apply_points(points), atol=1e-3)
    assert found.quality.measures == pytest.approx(expected.quality.measures, nan_ok=True)


def on_canvas(image: Image) -> Image:
    array = np.pad(image.array, ((20, 3), (0, 31), (16, 8)), constant_values=-1024)
    affine = image.grid.affine.copy()
    affine[:3, 3] = image.grid.to_world([-20, 0, -16])
    return Image(array, Grid(array.shape, affine))
