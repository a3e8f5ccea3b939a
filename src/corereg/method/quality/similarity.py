"""Whether a registered pair looks more alike than chance: what the pair's own images give when they are shifted.

Upstream: the volumes on the working grid and the displacement between them. Downstream: `register`.
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from corereg.method.affine.agreement import WINDOW, explained_shares

__all__ = ["similarity_above_chance"]

SHIFT = 2 * WINDOW
"""Voxels by which shifted copies lie apart: far enough that windows share nothing."""


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
    found = explained_shares(fixed, warped, counted)
    chance = [shares for parts in _shifted(fixed, warped, counted) if (shares := explained_shares(*parts))]
    if found is None or not chance:
        return math.nan
    expected = (sum(shares) / len(chance) for shares in zip(*chance, strict=True))
    return float(max(share - shifted for share, shifted in zip(found, expected, strict=True)))


def _shifted(fixed: Tensor, warped: Tensor, counted: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """The common part of both after the warped image was shifted along each axis."""
    for axis in (2, 3, 4):
        size = fixed.shape[axis]
        by = min(SHIFT, size // 2)
        f, w = fixed.narrow(axis, by, size - by), warped.narrow(axis, 0, size - by)
        yield f, w, counted.narrow(axis, by, size - by) * counted.narrow(axis, 0, size - by)
