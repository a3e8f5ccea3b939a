"""Mattes mutual information of two images under an affine map, and its derivative.

Source: Mattes et al., "PET-CT image registration in the chest using free-form deformations", IEEE TMI 2003: hard bins
for the fixed image, cubic B-splines for the moving one.
"""
# mypy: disable-error-code="no-untyped-call"

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from corereg.geometry.grid import Grid, Matrix
from corereg.geometry.kernels.dispatch import use_kernels
from corereg.kept import kept
from corereg.method.affine.coarse_copies import CoarseCopy
from corereg.method.affine.smoothing import gaussian

__all__ = ["COVER_POWER", "MutualInformation", "Places"]

BINS = 32
SPLINE_REACH = 2
"""Bins kept free at both ends for the splines."""
LEAST_OVERLAP = 0.25
"""Share of the smaller image that must be compared; with less, a sliver of air could match a sliver of air."""
MUCH_SMALLER = 0.5
"""A moving image below this share of the fixed one's volume is the one whose covered share counts. For images of about
the same size that would reward a map that shrinks the moving image until what does not match falls outside it."""
COVER_POWER = 0.5
"""Power of the covered share. With 1, bodies of which each image shows another part are drawn over each other; with
0.35, some whole ones are pushed apart: benchmarks/robustness.md."""
SEQUENCE = np.array([0.8191725133961645, 0.6710436067037893, 0.5497004779019703])
"""1/g, 1/g^2, 1/g^3 for g^4 = g + 1: the additive sequence that fills a cube most evenly (Roberts 2018)."""

FAINT = 1e-3
"""Value of the smoothed mask below which nothing is known of the image."""


class Places(NamedTuple):
    """Places spread evenly over the fixed image, and what it shows there."""

    points_mm: NDArray[np.float64]
    """(N, 3)"""
    bins: NDArray[np.int64]
    """(N,)"""
    per_mm3: float
    """Places per volume, without a mask."""

    @classmethod
    def of(cls, fixed: CoarseCopy, *, samples: int, smoothing_mm: float, seed: int = 0) -> "Places":
        """See `MutualInformation`."""
        array, grid, mask, _ = fixed
        offset = np.random.default_rng(seed).random(3)
        places = (offset + np.arange(samples)[:, None] * SEQUENCE) % 1 * (np.array(grid.shape) - 1)
        # In this order, neighbours find their voxels in the processor's cache.
        places = places[np.lexsort(np.floor(places).T[::-1])]
        if mask is not None:
            places = places[mask[tuple(np.floor(places + 0.5).astype(int).T)]]
        values = _linear(_smoothed(array, grid, smoothing_mm, mask), places)[:, 0]
        bins = (_between_0_and_1(values) * (BINS - 1) + 0.5).astype(np.int64)
        return cls(grid.to_world(places), bins, float(samples / np.prod(grid.extent_mm)))


class MutualInformation:
    """Mutual information (higher is better) at places spread evenly over the fixed image, times a power of the share of
    the smaller image that the other one covers: mutual information alone would push apart what does not match.

    Masks affect the mutual information only. A share of the masks could be raised by stretching what they hold.

    Args:
        samples: number of places.
        smoothing_mm: standard deviation of the Gaussian that smooths both images.
        seed: shifts the places.
        places: those of these settings, if they are known already.
        power: of the share.
    """

    def __init__(
        self,
        fixed: CoarseCopy,
        moving: CoarseCopy,
        *,
        samples: int,
        smoothing_mm: float,
        seed: int = 0,
        places: Places | None = None,
        power: float = COVER_POWER,
    ) -> None:
        places = places or Places.of(fixed, samples=samples, smoothing_mm=smoothing_mm, seed=seed)
        self.points_mm, self.fixed_bins, per_mm3 = places
        self.power = power
        array, grid, mask, _ = moving
        smooth = _between_0_and_1(_smoothed(array, grid, smoothing_mm, mask))
        self.volume = (smooth * (BINS - 2 * SPLINE_REACH - 1) + SPLINE_REACH).astype(np.float32)
        self.mask = np.ones((1, 1, 1), np.float32) if mask is None else mask.astype(np.float32)
        self.grid = grid
        self.moving_samples = float(per_mm3 * np.prod(grid.extent_mm))
        """How many places of the same density would lie in the moving image."""
        self.cropped = self.moving_samples < MUCH_SMALLER * len(self.points_mm)

    def __call__(self, matrix: Matrix) -> float:
        """The value for a world map (4, 4); minus infinity if the images overlap too little."""
        return self.with_gradient(matrix)[0]

    def with_gradient(self, matrix: Matrix) -> tuple[float, NDArray[np.float64]]:
        """The value, and its derivative with respect to the first three rows of the matrix, (3, 4)."""
        compare, derivative = _compare, _derivative
        if use_kernels():
            from corereg.method.affine.kernels_mutual_information import compare, derivative

        to_vox = self.grid.inverse_affine @ matrix
        joint, seen = compare(self.points_mm, to_vox, self.fixed_bins, self.volume, self.mask, BINS)
        total, covered = joint.sum(), seen[:, 8].sum()
        linear = matrix[:3, :3]
        there = self.moving_samples / abs(np.linalg.det(linear))
        if total <= LEAST_OVERLAP * min(len(self.points_mm), there * self.mask.mean()):
            return -np.inf, np.zeros((3, 4))
        smaller = there if self.cropped else len(self.points_mm)
        joint /= total
        apart = joint.sum(1, keepdims=True) * joint.sum(0)
        score = np.log(np.where(joint > 0, joint, 1) / np.where(joint > 0, apart, 1))
        information = float((joint * score).sum())
        weight = float((covered / smaller) ** self.power)
        value = information * weight
        by_score, by_cover = derivative(self.points_mm, self.fixed_bins, seen, score - information)
        by_voxel = by_score * weight / total + by_cover * self.power * value / covered
        gradient = self.grid.inverse_affine[:3, :3].T @ by_voxel
        if self.cropped:
            gradient[:, :3] += self.power * value * np.linalg.inv(linear).T
        return value, gradient


def _between_0_and_1(values: NDArray[Any]) -> NDArray[Any]:
    low, high = values.min(initial=np.inf), values.max(initial=-np.inf)
    return np.asarray((values - low) / max(high - low, 1e-12))


def _smoothed(
    array: NDArray[np.float32], grid: Grid, smoothing_mm: float, mask: NDArray[np.bool_] | None
) -> NDArray[np.float32]:
    """Smooth the image with a Gaussian; what lies outside the mask leaves no trace inside."""

    def blurred(volume: NDArray[np.float32]) -> NDArray[np.float32]:
        return gaussian(volume, [smoothing_mm / s for s in grid.spacing])

    if mask is None:
        return kept(("smoothed", grid.spacing, smoothing_mm), lambda: blurred(array), of=(array,))
    weights = blurred(mask.astype(np.float32))
    inside = blurred(np.where(mask, array, np.float32(0)))
    return np.divide(inside, weights, out=np.zeros_like(inside), where=weights > FAINT)


def _compare(
    points: NDArray[Any],
    to_vox: NDArray[Any],
    fixed_bins: NDArray[Any],
    volume: NDArray[Any],
    mask: NDArray[Any],
    bins: int,
) -> tuple[NDArray[Any], NDArray[Any]]:
    """The kernel of this name in plain numpy."""
    place = points @ to_vox[:3, :3].T + to_vox[:3, 3]
    last = np.array(volume.shape) - 1
    depths = np.concatenate([place, last - place], 1)
    nearest, cover = depths.argmin(1), np.clip(depths.min(1) + 0.5, 0, 1)[:, None]
    fades = ((cover > 0) & (cover < 1)) * np.concatenate([np.eye(3), -np.eye(3)])[nearest]
    value = _linear(volume, place)
    weight = _linear(mask, place) if mask.size > 1 else np.eye(1, 4)
    slopes = cover * weight[:, 1:] + weight[:, :1] * fades
    seen = np.concatenate([value, cover * weight[:, :1], slopes, cover, fades], 1) * (cover > 0)
    joint = np.zeros((bins, bins))
    np.add.at(joint, (fixed_bins[:, None], _taps(value[:, 0])), seen[:, 4:5] * _splines(value[:, 0])[0])
    return joint, seen


def _derivative(
    points: NDArray[Any], fixed_bins: NDArray[Any], seen: NDArray[Any], score: NDArray[Any]
) -> tuple[NDArray[Any], NDArray[Any]]:
    """The kernel of this name in plain numpy."""
    scores = score[fixed_bins[:, None], _taps(seen[:, 0])]
    gained, slope = ((scores * tap).sum(1, keepdims=True) for tap in _splines(seen[:, 0]))
    homogeneous = np.concatenate([points, np.ones((len(points), 1))], 1)
    force = seen[:, 4:5] * slope * seen[:, 1:4] + gained * seen[:, 5:8]
    return force.T @ homogeneous, seen[:, 9:].T @ homogeneous


def _linear(volume: NDArray[Any], place: NDArray[Any]) -> NDArray[Any]:
    """(N, 4): linearly interpolated values, held constant beyond the border, and their derivatives along i, j, k."""
    last = np.array(volume.shape) - 1
    inside = place.clip(0, last)
    low = np.minimum(inside.astype(int), np.maximum(last - 1, 0))
    total = np.zeros((len(place), 4))
    for corner in np.ndindex(2, 2, 2):
        u, v, w = np.where(corner, inside - low, 1 - inside + low).T
        by_i, by_j, by_k = np.where(corner, 1, -1)
        factors = np.stack([u * v * w, by_i * v * w, by_j * u * w, by_k * u * v], 1)
        total += factors * volume[tuple(np.minimum(low + corner, last).T)][:, None]
    total[:, 1:] *= inside == place
    return total


def _taps(value: NDArray[Any]) -> NDArray[Any]:
    """(N, 4): the bins reached by a spline about the value; `_splines` gives their weights."""
    return np.asarray(np.maximum(value.astype(int)[:, None] - 1, 0) + np.arange(4))


def _splines(value: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """(N, 4) each: weights of the four bins, and their derivatives with respect to the value."""
    t = value % 1
    r = 1 - t
    weights = np.stack([r**3, 4 - 6 * t**2 + 3 * t**3, 4 - 6 * r**2 + 3 * r**3, t**3], 1) / 6
    slopes = np.stack([-(r**2), 3 * t**2 - 4 * t, 4 * r - 3 * r**2, t**2], 1) / 2
    return weights, slopes
