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
from corereg.method.affine.mutual_information import MutualInformation
from corereg.method.affine.search import START, Space, middle, optimised

__all__ = ["AS_IT_IS", "Flips", "orientation_scores"]

Flips = tuple[int, int, int]
"""-1 where an axis, closest to left-right, front-back or head-feet, is flipped, else 1. Two flips turn by 180 degrees,
an odd number mirrors."""

AS_IT_IS: Flips = (1, 1, 1)


def orientation_scores(fixed: CoarseCopy, moving: CoarseCopy, affine: Matrix, *, seed: int = 0) -> dict[Flips, float]:
    """Mutual information of the best alignment that is found near `affine`, for each orientation of the moving image.

    Flipped images start where the middles of their fields of view or of their intensities meet.

    Args:
        affine: (4, 4), from the fixed image's world to the moving image's.

    Returns: minus infinity for an orientation in which the images do not overlap.
    """
    samples, smoothing_mm = START
    metric = MutualInformation(fixed, moving, samples=samples, smoothing_mm=smoothing_mm, seed=seed)
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
