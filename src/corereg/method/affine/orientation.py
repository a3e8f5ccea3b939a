"""Whether one scan of an aligned pair would match better if it were mirrored or turned. Upstream: `align`, `search`.

Each of the eight combinations of flips along the fixed image's axes is aligned in the same, quick way, by mutual
information under a similarity. Of the right orientation of one body part the score is clearly the best; of unrelated
scans all are about equal.
"""

from itertools import product

import numpy as np
from numpy.typing import NDArray

from corereg.geometry.grid import Matrix
from corereg.geometry.kernels.threads import run_tasks
from corereg.method.affine.coarse_copies import CoarseCopy
from corereg.method.affine.mutual_information import COVER_POWER, MutualInformation
from corereg.method.affine.search import START, Space, middle, optimised
from corereg.preprocessing.filling import CORNERS

__all__ = ["AS_IT_IS", "Flips", "orientation_ratios"]

Flips = tuple[int, int, int]
"""-1 where an axis, closest to left-right, front-back or head-feet, is flipped, else 1. Two flips turn by 180 degrees,
an odd number mirrors."""

AS_IT_IS: Flips = (1, 1, 1)

NEARLY = 0.9
"""Ratio from which an orientation is measured a second time."""


def orientation_ratios(fixed: CoarseCopy, moving: CoarseCopy, affine: Matrix, *, seed: int = 0) -> dict[Flips, float]:
    """How well the images would match in each other orientation of the moving image, relative to their own.

    The share that is covered enters the measure. Scans that show other parts of a body cover more of each other in a
    wrong orientation, and scans that fit may cover less. So the share gets little weight first, then its full weight
    where another orientation does nearly as well, and the smaller ratio counts.

    Where one image alone has blank corners, as a scan that was turned has, what they happen to meet counts by chance.
    So an orientation that seems better is measured once more without them. Where both have them, they are air, whose
    outline tells front from back.

    Args:
        affine: (4, 4), from the fixed image's world to the moving image's.

    Returns: 0 for an orientation in which the images do not overlap; NaN for all if they do not as they are.
    """
    found = _ratios(_scores(fixed, moving, affine, seed, power=COVER_POWER))
    if max(found.values()) > NEARLY:
        found = _smaller(found, _ratios(_scores(fixed, moving, affine, seed, power=1.0)))
    bare = [_without_blank_corners(image) for image in (fixed, moving)]
    if max(found.values()) > 1 and (bare[0] is fixed) != (bare[1] is moving):
        found = _smaller(found, _ratios(_scores(bare[0], bare[1], affine, seed, power=1.0)))
    return found


def _smaller(found: dict[Flips, float], again: dict[Flips, float]) -> dict[Flips, float]:
    return {flips: min(ratio, again[flips]) for flips, ratio in found.items()}


def _ratios(scores: dict[Flips, float]) -> dict[Flips, float]:
    own = scores[AS_IT_IS]
    known = np.isfinite(own) and own > 0
    return {flips: max(score, 0.0) / own if known else np.nan for flips, score in scores.items() if flips != AS_IT_IS}


def _without_blank_corners(image: CoarseCopy) -> CoarseCopy:
    """The image with a mask that excludes what has the value of two corners or more; the same one if nothing has."""
    values, counts = np.unique(image.array[CORNERS], return_counts=True)
    blank = np.isin(image.array, values[counts > 1])
    if not blank.any():
        return image
    return image._replace(mask=~blank if image.mask is None else image.mask & ~blank)


def _scores(fixed: CoarseCopy, moving: CoarseCopy, affine: Matrix, seed: int, *, power: float) -> dict[Flips, float]:
    """Mutual information, weighted by this power of the covered share, of the best alignment that is found near
    `affine`, for each orientation of the moving image; minus infinity where the images do not overlap.

    Flipped images start where the middles of their fields of view or of their intensities meet.
    """
    affine = fixed.map_in_units(affine)
    samples, smoothing_mm = START
    metric = MutualInformation(fixed, moving, samples=samples, smoothing_mm=smoothing_mm, seed=seed, power=power)
    space = Space(fixed.grid)
    canonical = fixed.grid.canonical()
    axes = canonical.linear / canonical.spacing
    # Moments need weights >= 0, and Hounsfield units can be negative.
    centres = [[middle(weights, image.grid) for weights in _weights(image)] for image in (fixed, moving)]

    def score(flips: Flips) -> float:
        linear = affine[:3, :3] @ axes @ np.diag(flips) @ np.linalg.inv(axes)
        starts = [affine]
        if flips != AS_IT_IS:
            starts = [
                space.matrix(linear, there + linear @ (space.centre - here) - space.centre)
                for here, there in zip(*centres, strict=True)
            ]
        return optimised(metric, max(starts, key=metric), space.similar, START)[0]

    orientations: list[Flips] = list(product((1, -1), (1, -1), (1, -1)))
    return dict(zip(orientations, run_tasks(score, orientations), strict=True))


def _weights(image: CoarseCopy) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    return np.ones_like(image.array), image.array - image.array.min()
