"""Whether a registered pair looks more alike than chance: what the pair's own images give when they are shifted.

Upstream: the volumes on the working grid and the displacement between them. Downstream: `register`.
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn.functional import avg_pool3d

__all__ = ["similarity_above_chance"]

WINDOW = 5
"""Width in voxels of the windows that are compared."""
SHIFT = 2 * WINDOW
"""Voxels by which shifted copies lie apart: far enough that windows share nothing."""
FEWEST_WINDOWS = 500
"""With fewer windows to compare, nothing is said."""
MOST = 0.6
"""Share of a window whose voxels must count for the window to count."""
TINY = 1e-6
"""Added to variances, in the square of scaled intensities."""


def similarity_above_chance(
    fixed: Tensor, warped: Tensor, fixed_weight: Tensor | None = None, warped_weight: Tensor | None = None
) -> float:
    """Share of one image's local variance that the other explains, less the same for shifted copies.

    A linear relation within each window counts, whatever its sign and slope, so contrasts may differ. Images that have
    nothing in common give about 0, equal ones nearly 1. Of the two images, the one that is explained better counts.

    Args:
        fixed, warped: (1, 1, I, J, K) on one grid.
        fixed_weight, warped_weight: above 0.5 where an image has data that counts, in the same shape; None counts all
            voxels.

    Returns: NaN if too little can be compared.
    """
    counted = torch.ones_like(fixed)
    for weight in (fixed_weight, warped_weight):
        if weight is not None:
            counted = counted * (weight > 0.5)
    found = _explained(fixed, warped, counted)
    chance = [shares for parts in _shifted(fixed, warped, counted) if (shares := _explained(*parts))]
    if found is None or not chance:
        return math.nan
    expected = (sum(shares) / len(chance) for shares in zip(*chance, strict=True))
    return float(max(share - shifted for share, shifted in zip(found, expected, strict=True)))


def _explained(fixed: Tensor, warped: Tensor, counted: Tensor) -> tuple[float, float] | None:
    """Share of each image's local variance that lines through the values of the other explain; None if too few windows
    count."""
    if min(counted.shape[2:]) < WINDOW:
        return None
    share_counted = _mean(counted)
    inside = share_counted > MOST
    if int(inside.sum()) < FEWEST_WINDOWS:
        return None
    size = share_counted[inside].double()

    def mean(values: Tensor) -> Tensor:
        return _mean(counted * values)[inside].double() / size

    mean_f, mean_w = mean(fixed), mean(warped)
    variance_f = (mean(fixed * fixed) - mean_f * mean_f).clamp(min=0)
    variance_w = (mean(warped * warped) - mean_w * mean_w).clamp(min=0)
    squared = (mean(fixed * warped) - mean_f * mean_w) ** 2

    def share(own: Tensor, other: Tensor) -> float:
        return min(float((squared / (other + TINY)).sum()) / max(float(own.sum()), TINY), 1.0)

    return share(variance_f, variance_w), share(variance_w, variance_f)


def _shifted(fixed: Tensor, warped: Tensor, counted: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """The common part of both after the warped image was shifted along each axis."""
    for axis in (2, 3, 4):
        size = fixed.shape[axis]
        by = min(SHIFT, size // 2)
        f, w = fixed.narrow(axis, by, size - by), warped.narrow(axis, 0, size - by)
        yield f, w, counted.narrow(axis, by, size - by) * counted.narrow(axis, 0, size - by)


def _mean(volume: Tensor) -> Tensor:
    for axis in range(3):
        volume = avg_pool3d(volume, [WINDOW if a == axis else 1 for a in range(3)], stride=1)
    return volume
