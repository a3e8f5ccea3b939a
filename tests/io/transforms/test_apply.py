"""Images through a transform, by every interpolation."""

import warnings
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates

from corereg.geometry.grid import Grid
from corereg.io.images.image import Image
from corereg.io.transforms.transform import Transform
from helpers.refusals import refusal
from helpers.scenes import centred_grid, scan, voxels_mm
from helpers.transforms import MOVING, RANGE_HU, away_from_border, label_map, wavy

FIXED = centred_grid((26, 24, 30), (4.0, 4.2, 3.0), "oblique")


def matches_vox(transform: Transform, grid: Grid = FIXED, moving: Grid = MOVING) -> NDArray[np.float64]:
    """(I, J, K, 3), where the voxels of a grid lie among those of the moving image."""
    return moving.to_voxel(transform.apply_points(voxels_mm(grid)))


def test_cubic_splines_are_those_of_scipy() -> None:
    moving, transform = scan(MOVING), wavy(FIXED)
    ours = transform.apply(moving, interpolation="bspline").array
    coords = np.moveaxis(matches_vox(transform), -1, 0)
    expected = map_coordinates(moving.array.astype(np.float64), coords, order=3, mode="mirror")
    inner = away_from_border(transform, MOVING)
    assert np.abs(ours - expected)[inner].max() < 1e-4 * RANGE_HU
    assert ours.dtype == np.float32


SINC_RADIUS = 5


def windowed_sinc(values: NDArray[Any], position: NDArray[np.float64]) -> float:
    """A loop over the voxels around, edges held; weights sinc(t) * (0.54 + 0.46 cos(pi t / radius))."""
    low, total = np.floor(position).astype(int), 0.0
    steps = np.arange(1 - SINC_RADIUS, SINC_RADIUS + 1)
    distance = position[:, None] - (low[:, None] + steps)
    weights = np.sinc(distance) * (0.54 + 0.46 * np.cos(np.pi * distance / SINC_RADIUS))
    for a, wa in zip(steps, weights[0], strict=True):
        for b, wb in zip(steps, weights[1], strict=True):
            for c, wc in zip(steps, weights[2], strict=True):
                at = np.clip(low + np.array([a, b, c]), 0, np.array(values.shape) - 1)
                total += wa * wb * wc * values[tuple(at)]
    return total


def test_sinc_is_a_hamming_window_of_five_voxels() -> None:
    moving, transform = scan(MOVING), wavy(FIXED)
    ours = transform.apply(moving, interpolation="sinc").array
    coords = matches_vox(transform)
    for index in np.argwhere(away_from_border(transform, MOVING))[::997]:
        expected = windowed_sinc(moving.array, coords[tuple(index)])
        assert abs(ours[tuple(index)] - expected) < 1e-4 * RANGE_HU


def test_nearest_keeps_values_and_type_of_an_image() -> None:
    moving = Image(scan(MOVING).array.astype(np.int16), MOVING)
    warped = wavy(FIXED).apply(moving, interpolation="nearest", outside=-3000.0).array
    assert warped.dtype == np.int16
    assert set(np.unique(warped)) <= {-3000, *np.unique(moving.array)}
    assert (warped == -3000).any()


@pytest.mark.parametrize("interpolation", ["nearest", "linear", "bspline", "sinc"])
def test_identity_changes_no_voxel_by_any_interpolation(interpolation: str) -> None:
    moving = scan(MOVING)
    same = Transform((np.eye(4),), fixed=MOVING).apply(moving, interpolation=interpolation)
    assert_allclose(same.array, moving.array, atol=1e-5 * RANGE_HU, rtol=0)


def test_smooth_labels_are_the_strongest_of_their_interpolated_indicators() -> None:
    labels, transform = label_map(MOVING, np.uint8), wavy(FIXED)
    ours = transform.apply(labels, labels=True, interpolation="linear").array
    assert ours.dtype == np.uint8
    known = np.unique(labels.array)
    coords = np.moveaxis(matches_vox(transform), -1, 0)
    votes = np.stack([map_coordinates((labels.array == n).astype(float), coords, order=1) for n in known])
    ranked = np.sort(votes, axis=0)
    clear = away_from_border(transform, MOVING) & (ranked[-1] - ranked[-2] > 1e-3)
    assert clear.mean() > 0.3
    assert_array_equal(ours[clear], known[votes.argmax(0)][clear])
    nearest = transform.apply(labels, labels=True).array
    assert 0 < (ours != nearest)[clear].mean() < 0.2


@pytest.mark.parametrize(("labels", "interpolation"), [(True, "bspline"), (True, "sinc"), (False, "lanczos")])
def test_unknown_interpolations_are_refused(labels: bool, interpolation: str) -> None:
    image = label_map(MOVING, np.uint8)
    assert "choose one of nearest" in refusal(wavy(FIXED).apply, image, labels=labels, interpolation=interpolation)


@pytest.mark.parametrize("outside", [-1.0, 0.5, 300.0])
def test_value_outside_that_the_type_cannot_hold_is_refused(outside: float) -> None:
    assert "cannot hold" in refusal(wavy(FIXED).apply, label_map(MOVING, np.uint8), labels=True, outside=outside)


def test_voxels_without_a_match_take_the_smallest_value_by_every_interpolation() -> None:
    away, moving = np.eye(4), scan(MOVING)
    away[0, 3] = 1000
    for interpolation in ("nearest", "linear", "bspline", "sinc"):
        with pytest.warns(UserWarning, match="shows nothing of it"):
            warped = Transform((away,), fixed=FIXED).apply(moving, interpolation=interpolation)
        assert (warped.array == moving.array.min()).all()


def test_an_output_that_shows_nothing_of_the_image_is_said() -> None:
    image = scan(MOVING)
    away = MOVING.affine.copy()
    away[:3, 3] += 5000.0
    far = Image(image.array, Grid(MOVING.shape, away), name="far.nii.gz")
    with pytest.warns(UserWarning, match=r"far\.nii\.gz: the output shows nothing of it"):
        wavy(FIXED).apply(far)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        wavy(FIXED).apply(image)
        wavy(FIXED).apply(Image(np.zeros_like(image.array), far.grid))
