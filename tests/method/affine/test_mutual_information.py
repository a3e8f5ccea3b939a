"""Mutual information of the pre-alignment: its value against a plain histogram, its derivative against differences."""

import numpy as np
import pytest
from scipy import ndimage

from corereg.geometry.kernels.dispatch import KERNELS_VARIABLE
from corereg.io.images.image import Image
from corereg.method.affine.coarse_copies import CoarseCopy
from corereg.method.affine.mutual_information import BINS, MutualInformation
from helpers.scenes import centred_grid, scan

FIXED, MOVING = (
    scan(centred_grid((37, 31, 33), (4.0, 4.0, 4.2))),
    scan(centred_grid((40, 35, 36), (3.5, 4.0, 4.5), "oblique")),
)
MATRIX = np.array([[1.02, 0.05, -0.02, 3.0], [-0.04, 0.97, 0.03, -5.0], [0.01, 0.02, 1.01, 4.0], [0, 0, 0, 1]])


CROPPED = scan(centred_grid((22, 17, 16), (4.0, 4.0, 4.1), "oblique", (20.0, -8.0, 15.0)))


def metric(moving: Image = MOVING, *, masked: bool = False) -> MutualInformation:
    scans = (CoarseCopy(image.array, image.grid, image.array > -200 if masked else None) for image in (FIXED, moving))
    return MutualInformation(*scans, samples=4000, smoothing_mm=6.0, seed=1)


def cubic_spline(t: np.ndarray) -> np.ndarray:
    t = np.abs(t)
    return np.where(t < 1, 2 / 3 - t**2 + t**3 / 2, np.where(t < 2, (2 - t) ** 3 / 6, 0))


def test_value_is_that_of_the_histogram_in_plain_numpy() -> None:
    measured = metric()
    coords = MOVING.grid.to_voxel(measured.points_mm @ MATRIX[:3, :3].T + MATRIX[:3, 3])
    depth = np.minimum(coords, np.array(MOVING.grid.shape) - 1 - coords).min(1)
    weights = np.clip(depth + 0.5, 0, 1)
    values = ndimage.map_coordinates(measured.volume.astype(np.float64), coords.T, order=1, mode="nearest")
    splines = cubic_spline(values[:, None] - np.arange(BINS)) * weights[:, None]
    joint = np.eye(BINS)[measured.fixed_bins].T @ splines / weights.sum()
    apart = joint.sum(1, keepdims=True) * joint.sum(0)
    expected = (joint[joint > 0] * np.log(joint[joint > 0] / apart[joint > 0])).sum() * weights.mean() ** 0.5
    assert 0 < (weights == 0).mean() < 0.5
    assert measured(MATRIX) == pytest.approx(expected, rel=1e-5)


CASES = pytest.mark.parametrize(("moving", "masked"), [(MOVING, False), (MOVING, True), (CROPPED, False)])


@CASES
def test_derivative_agrees_with_differences(moving: Image, masked: bool) -> None:
    measured = metric(moving, masked=masked)
    _, gradient = measured.with_gradient(MATRIX)
    for row in range(3):
        for column, step in enumerate((1e-5, 1e-5, 1e-5, 1e-3)):
            shift = np.zeros((4, 4))
            shift[row, column] = step
            slope = (measured(MATRIX + shift) - measured(MATRIX - shift)) / (2 * step)
            assert gradient[row, column] == pytest.approx(slope, rel=0.02, abs=2e-2 * np.abs(gradient[:, column]).max())


@CASES
def test_plain_numpy_agrees_with_the_kernels(moving: Image, masked: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    measured = metric(moving, masked=masked)
    value, gradient = measured.with_gradient(MATRIX)
    monkeypatch.setenv(KERNELS_VARIABLE, "torch")
    plain_value, plain_gradient = measured.with_gradient(MATRIX)
    assert plain_value == pytest.approx(value, rel=1e-9)
    np.testing.assert_allclose(plain_gradient, gradient, rtol=1e-6, atol=1e-9 * np.abs(gradient).max())


def test_only_the_smaller_image_has_to_be_covered() -> None:
    assert metric(CROPPED).cropped
    assert not metric(MOVING).cropped


def test_what_lies_outside_a_mask_leaves_no_trace() -> None:
    mask = MOVING.array > -200
    rng = np.random.default_rng(0)
    other = np.where(mask, MOVING.array, rng.uniform(-3000, 3000, mask.shape)).astype(np.float32)
    fixed = CoarseCopy(FIXED.array, FIXED.grid)
    values = [
        MutualInformation(fixed, CoarseCopy(array, MOVING.grid, mask), samples=4000, smoothing_mm=6.0)(MATRIX)
        for array in (MOVING.array, other)
    ]
    assert values[0] == values[1]


def test_too_little_overlap_has_no_value() -> None:
    away = np.eye(4)
    away[0, 3] = 140.0
    assert metric()(away) == -np.inf
