"""A smooth displacement from offsets at scattered points: Gaussian process regression, in closed form.

Distances are in millimetres. Legend: N points, M places.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from corereg.lazy import scipy_module

__all__ = ["Scattered", "correlation", "fit_offsets", "prior_covariance", "wrong_offsets"]

REACH_MM = 40.0
"""Length of the Matérn-3/2 covariance, of 20 to 160 the best on key-points of lungs: benchmarks/guidance.md."""

LEAST_AMPLITUDE = 2.0
"""Smallest standard deviation of the offsets that is assumed, in units of the noise's bound: where an image misleads in
one place only, the few points there are not to be taken for wrong."""

TREND_MM, TREND_REACH_MM = 30.0, 50.0
"""Standard deviation of an affine trend and the distance from the centre at which it is reached."""

SUSPECT = 4.6
"""Standard deviations by which an offset differs from its neighbours' prediction if it is wrong: one right offset in
ten thousand, in three dimensions."""

MOST_WRONG = 0.25
"""Share of the points above which none is called wrong any more."""

Points = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Scattered:
    """A fitted displacement."""

    points_mm: Points
    """(N, 3)"""
    weights: Points
    """(N, 3)"""
    amplitude_mm: float
    trend: bool
    left_out_mm: Points
    """(N, 3), each offset minus what the other points alone predict there."""
    spread_mm: NDArray[np.float64]
    """(N,), the standard deviation that those differences should have."""
    inverse: Points
    """(N, N), of the covariance of the offsets with their errors."""

    def __call__(self, places_mm: Points) -> Points:
        """The offsets at places (M, 3)."""
        centre = self.points_mm.mean(0)
        return prior_covariance(places_mm, self.points_mm, centre, self.amplitude_mm, self.trend) @ self.weights

    def variance_mm2(self, places_mm: Points) -> NDArray[np.float64]:
        """The variance along each axis of the error at places (M, 3), of a displacement without a trend: (M,)."""
        shared = self.amplitude_mm**2 * correlation(places_mm, self.points_mm)
        known = ((shared @ self.inverse) * shared).sum(1)
        return np.asarray((self.amplitude_mm**2 - known).clip(0))


def fit_offsets(points_mm: Points, offsets_mm: Points, *, bound_mm: float, trend: bool = False) -> Scattered:
    """The most plausible displacement that has about these offsets at the points.

    Args:
        points_mm, offsets_mm: (N, 3)
        bound_mm: twice the standard deviation of the offsets' errors.
        trend: whether a large affine motion is plausible.
    """
    noise = bound_mm / 2
    size = float(np.median(np.linalg.norm(offsets_mm, axis=1))) / np.sqrt(3)
    amplitude = max(size, LEAST_AMPLITUDE * bound_mm)
    covariance = prior_covariance(points_mm, points_mm, points_mm.mean(0), amplitude, trend)
    covariance[np.diag_indices(len(points_mm))] += noise**2
    inverse = scipy_module("linalg").inv(covariance, overwrite_a=True, check_finite=False)
    weights = inverse @ offsets_mm
    precision = np.diag(inverse)
    return Scattered(points_mm, weights, amplitude, trend, weights / precision[:, None], precision**-0.5, inverse)


def wrong_offsets(points_mm: Points, offsets_mm: Points, *, bound_mm: float, trend: bool = False) -> NDArray[np.bool_]:
    """Which offsets (N, 3) cannot belong to one smooth displacement with the others: (N,)."""
    wrong = np.zeros(len(points_mm), bool)
    while True:
        kept = np.flatnonzero(~wrong)
        fit = fit_offsets(points_mm[kept], offsets_mm[kept], bound_mm=bound_mm, trend=trend)
        excess = np.linalg.norm(fit.left_out_mm, axis=1) / fit.spread_mm
        # A wrong offset spoils the prediction of its neighbours too: only the worst of a neighbourhood is removed.
        near = scipy_module("spatial.distance").cdist(points_mm[kept], points_mm[kept]) < REACH_MM
        worst = (excess > SUSPECT) & (excess >= np.where(near, excess, 0.0).max(1))
        if not worst.any():
            return wrong
        wrong[kept[worst]] = True
        if wrong.mean() > MOST_WRONG:
            return np.zeros_like(wrong)


def correlation(first_mm: Points, second_mm: Points) -> Points:
    """How alike the offsets at two places are: 1 at one place, almost 0 beyond three times the reach.

    Returns: (N, M) for places (N, 3) and (M, 3).
    """
    scaled = np.sqrt(3) / REACH_MM * scipy_module("spatial.distance").cdist(first_mm, second_mm)
    return np.asarray((1 + scaled) * np.exp(-scaled))


def prior_covariance(first: Points, second: Points, centre: Points, amplitude: float, trend: bool = True) -> Points:
    """Covariance of the offsets at places (N, 3) and (M, 3), with or without an affine trend: (N, M)."""
    found = amplitude**2 * correlation(first, second)
    if trend:
        found += TREND_MM**2 * (1 + (first - centre) @ (second - centre).T / TREND_REACH_MM**2)
    return np.asarray(found)
