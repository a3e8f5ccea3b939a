"""Which points of two clouds belong together: coherent point drift over a smooth displacement, then mutual neighbours.

Each point of the first cloud is drawn to a mean of the second's points around it, weighted by their distance; a
Gaussian process through these means keeps neighbours together; and the distance shrinks from round to round.
Upstream: landmarks. Downstream: point_guide, which leaves out pairs that contradict the others.

Legend: N, M points of the clouds, C that carry the displacement. Source: coherent point drift, Myronenko and Song 2010.
"""

import numpy as np
from numpy.typing import NDArray

from corereg.errors import InputError
from corereg.geometry.chain import through
from corereg.geometry.grid import Matrix
from corereg.geometry.positions import as_points, as_positions
from corereg.io.transforms.transform import Transform
from corereg.lazy import scipy_module
from corereg.method.guidance.landmarks import Landmarks
from corereg.method.guidance.scattered import prior_covariance

__all__ = ["corresponding_points", "drifted", "matched"]

CARRIERS = 300
"""The displacement is a sum of covariances with this many points, far from each other: a round costs 0.03 s."""

ROUNDS, SHRINKING = 150, 0.95
"""Rounds at most, and the factor on the variance in each: a faster drift freezes before the clouds meet."""

OUTLIERS = 0.3
"""Share of the points that is expected to have no partner."""

AMPLITUDE_MM = 5.0
"""Standard deviation of the displacement apart from its affine trend. With 10 and 20 mm, more pairs of lungs are
wrong."""

FARTHEST = 3
"""Distance of partners, in bounds of a point's error, beyond which they are none."""

Points = NDArray[np.float64]


def matched(landmarks: Landmarks, start: Transform, affine: Matrix | None, *, bound_mm: float) -> Landmarks:
    """Unmatched landmarks as pairs.

    Args:
        start: from the fixed to the moving image, before `affine`, (4, 4) in the fixed image's world.

    Raises:
        InputError: no points belong together.
    """
    fixed_mm, moving_mm, names = landmarks
    parts = start.parts if affine is None else (affine, *start.parts)
    expected = as_points(through(parts, as_positions(fixed_mm)))
    pairs = corresponding_points(expected, moving_mm, bound_mm=bound_mm)
    if not len(pairs):
        raise InputError(
            f"got {len(fixed_mm)} fixed and {len(moving_mm)} moving points, none of which match, expected clouds of "
            "points of the same anatomy; check the files, or start closer with --initial"
        )
    first, second = pairs.T
    return Landmarks(fixed_mm[first], moving_mm[second], [names[n] for n in first])


def corresponding_points(first_mm: Points, second_mm: Points, *, bound_mm: float) -> NDArray[np.intp]:
    """Pairs of points (N, 3) and (M, 3) that belong together, as rows of both: (K, 2).

    Args:
        first_mm: where the points of the first cloud are expected in the second's world.
        bound_mm: twice the standard deviation of a point's error.
    """
    moved = drifted(first_mm, second_mm, least_mm=bound_mm / 2)
    tree = scipy_module("spatial").cKDTree
    apart, nearest = tree(second_mm).query(moved)
    _, back = tree(moved).query(second_mm)
    mutual = np.flatnonzero((back[nearest] == np.arange(len(moved))) & (apart < FARTHEST * bound_mm))
    return np.stack([mutual, nearest[mutual]], 1)


def drifted(first_mm: Points, second_mm: Points, *, least_mm: float) -> Points:
    """The first cloud (N, 3), moved smoothly onto the second (M, 3).

    Args:
        least_mm: standard deviation of the distances at which the drift ends.
    """
    centre, carriers = first_mm.mean(0), _spread(first_mm, CARRIERS)
    inner = prior_covariance(carriers, carriers, centre, AMPLITUDE_MM)
    inner[np.diag_indices(len(inner))] *= 1 + 1e-6  # two points may lie at one place
    outer = prior_covariance(first_mm, carriers, centre, AMPLITUDE_MM)
    moved = first_mm
    nearest_mm = scipy_module("spatial").cKDTree(second_mm).query(moved)[0]
    variance = max(float((nearest_mm**2).mean()), float(second_mm.var(0).mean()) / 2, least_mm**2)
    density = OUTLIERS / (1 - OUTLIERS) * len(first_mm) / np.prod(np.ptp(second_mm, 0) + 1.0)
    cdist, linalg = scipy_module("spatial.distance").cdist, scipy_module("linalg")
    for _ in range(ROUNDS):
        weights = np.exp(-cdist(moved, second_mm, "sqeuclidean") / (2 * variance))
        weights /= weights.sum(0) + (2 * np.pi * variance) ** 1.5 * density
        counted = weights.sum(1)
        offsets = weights @ second_mm - counted[:, None] * first_mm
        system = variance * inner + outer.T @ (counted[:, None] * outer)
        moved = first_mm + outer @ linalg.solve(system, outer.T @ offsets, assume_a="pos")
        if variance == least_mm**2:
            break
        variance = max(SHRINKING * variance, least_mm**2)
    return moved


def _spread(points: Points, most: int) -> Points:
    """At most `most` of the points, each as far as possible from those before it."""
    chosen, distance = [0], np.full(len(points), np.inf)
    while len(chosen) < min(most, len(points)):
        distance = np.minimum(distance, np.linalg.norm(points - points[chosen[-1]], axis=1))
        chosen.append(int(distance.argmax()))
    return points[chosen]
