"""Whether a registered pair looks more alike than chance: what the pair's own images give when they are shifted.

Upstream: the volumes on the working grid and the displacement between them. Downstream: `register`.
"""

import math
import warnings
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn.functional import avg_pool3d

__all__ = ["LEAST_SIMILARITY", "similarity_above_chance", "warn_if_no_better_than_chance"]

LEAST_SIMILARITY = 0.15
"""Similarity above chance below which a pair is no better than chance. 46 right pairs of heads, abdomens, limbs, brains
and hippocampi (CT, MR, CT to MR) had at least 0.18, 7 pairs with noise at most 0.05, and half of the 25 pairs of which
one scan was turned by 180 degrees less than 0.13. Mirrored images and other body parts often look alike enough."""

SHRINKING, WINDOW = 2, 5
"""Voxels are averaged in blocks of this width, and compared in windows of that width."""
SHIFT = 2 * WINDOW
"""Voxels by which shifted copies lie apart: far enough that windows share nothing."""
FEWEST_WINDOWS = 500
"""With fewer windows to compare, nothing is said."""
ALL = 0.999
"""Mean above which all voxels of a block count, after rounding."""
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
        fixed_weight, warped_weight: 1 where an image has data that counts, in the same shape; None counts all voxels.

    Returns: NaN if too little can be compared.
    """
    first, second = (avg_pool3d(image.float(), SHRINKING) for image in (fixed, warped))
    counted = torch.ones_like(first, dtype=torch.bool)
    for weight in (fixed_weight, warped_weight):
        if weight is not None:
            counted &= avg_pool3d(weight.float(), SHRINKING) > ALL
    chance = [_explained(*parts) for parts in _shifted(first, second, counted) if _enough(parts[2])]
    if not chance or not _enough(counted):
        return math.nan
    expected = (sum(shares) / len(chance) for shares in zip(*chance, strict=True))
    found = zip(_explained(first, second, counted), expected, strict=True)
    return float(max(share - shifted for share, shifted in found))


def _enough(counted: Tensor) -> bool:
    return min(counted.shape[2:]) >= WINDOW and int((_mean(counted.float()) > ALL).sum()) >= FEWEST_WINDOWS


def _explained(fixed: Tensor, warped: Tensor, counted: Tensor) -> tuple[float, float]:
    """Share of each image's local variance that lines through the values of the other explain."""
    inside = _mean(counted.float()) > ALL
    mean_f, mean_w = _mean(fixed), _mean(warped)
    variance_f = (_mean(fixed * fixed) - mean_f * mean_f).clamp(min=0)[inside].double()
    variance_w = (_mean(warped * warped) - mean_w * mean_w).clamp(min=0)[inside].double()
    squared = (_mean(fixed * warped) - mean_f * mean_w)[inside].double() ** 2

    def share(own: Tensor, other: Tensor) -> float:
        return min(float((squared / (other + TINY)).sum()) / max(float(own.sum()), TINY), 1.0)

    return share(variance_f, variance_w), share(variance_w, variance_f)


def _shifted(fixed: Tensor, warped: Tensor, counted: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """The common part of both after the warped image was shifted along each axis."""
    for axis in (2, 3, 4):
        size = fixed.shape[axis]
        by = min(SHIFT, size // 2)
        for first, second in ((by, 0), (0, by)):
            f, w = (volume.narrow(axis, start, size - by) for volume, start in ((fixed, first), (warped, second)))
            yield f, w, counted.narrow(axis, first, size - by) & counted.narrow(axis, second, size - by)


def _mean(volume: Tensor) -> Tensor:
    return avg_pool3d(volume, WINDOW, stride=1)


def warn_if_no_better_than_chance(similarity: float, fixed: str, moving: str) -> None:
    """Warn about a pair whose images hardly look more alike than unrelated ones; NaN says nothing."""
    if similarity < LEAST_SIMILARITY:
        warnings.warn(
            f"after registration, {moving} looks hardly more like {fixed} than by chance (similarity {similarity:.2f}, "
            f"expected at least {LEAST_SIMILARITY:g}); check that both show the same body part in the same orientation",
            stacklevel=2,
        )
