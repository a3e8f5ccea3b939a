"""Stages 2 and 3, pass by pass: from features to a coarse displacement on the 1/2 grid. Downstream: refine."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from corereg.geometry.displacement import Disp, compose, upsample_displacement
from corereg.geometry.strided import halve
from corereg.geometry.warp import warp
from corereg.method.coarse.coupled_convex import Weights, match
from corereg.method.config import CoupledConvexConfig
from corereg.method.features.model import Encoded, FeatureModel, Image5D
from corereg.method.stopwatch import Stopwatch

__all__ = [
    "COARSE_SMOOTHING",
    "coarse_displacement",
    "default_passes",
    "full_grid_displacement",
    "half_grid_displacement",
]

COARSE_SMOOTHING, FINAL_SMOOTHING = 2, 3
"""Number of 3x3x3 means after each doubling of a coarse displacement, and after a refined displacement is brought to
the full grid for good."""

REPEATED_VOXELS = 3_000_000
"""Above this many voxels the last pass is made twice: on a fine grid its window reaches few millimetres, and on a
coarse one a third pass gains nothing. Measured in benchmarks/history/correlation.md."""


def default_passes(passes: Sequence[int], voxels: int) -> tuple[int, ...]:
    """The strides of the passes on a working grid of this many voxels, from those of a model."""
    return (*passes, *passes[-1:]) if voxels > REPEATED_VOXELS else tuple(passes)


def full_grid_displacement(half: Disp, *, smoothing: int = COARSE_SMOOTHING) -> Float[Tensor, "B 3 X Y Z"]:
    """Bring a displacement from the 1/2 grid to the full grid."""
    return upsample_displacement(half, 2, [2 * n for n in half.shape[2:]], smoothing=smoothing)


def coarse_displacement(
    fixed_encoded: Encoded,
    moving: Image5D,
    moving_encoded: Encoded,
    model: FeatureModel,
    *,
    passes: Sequence[int],
    config: CoupledConvexConfig,
    weights: Weights = (None, None),
    guides: tuple[Tensor, Tensor] | None = None,
    watch: Stopwatch | None = None,
) -> Float[Tensor, "B 3 X Y Z"]:
    """Stages 2 and 3, pass after pass: each registers the moving image as warped by those before it.

    Args:
        fixed_encoded: features of the fixed image for every pass.
        moving: (B, 1, I, J, K), the image that is warped and encoded again after the first pass.
        moving_encoded: features of the moving image for the first pass.
        weights: 1 where the fixed and the moving image have data that counts, on the full grid; None counts all.
        guides: more features of both images, (B, C, I/2, J/2, K/2), which are warped instead of encoded again.

    Returns: (B, 3, I/2, J/2, K/2), voxels of the 1/2 grid.
    """
    watch = watch or Stopwatch(moving.device)
    half_shape = [n // 2 for n in moving.shape[2:]]
    moving_weight = weights[1]
    total: Disp | None = None
    for stride in passes:
        if total is not None:
            with watch("warp"):
                full = full_grid_displacement(total)
                warped = warp(moving, full)
                moving_weight = None if weights[1] is None else warp(weights[1], full, outside=0.0)
            with watch("features"):
                moving_encoded = model.encode(warped, [stride], shallow=False)
        with watch("coupled_convex"):
            strided = _averaged(weights[0], stride), _averaged(moving_weight, stride)
            features = fixed_encoded.cost[stride], moving_encoded.cost[stride]
            if guides is not None:
                guide = guides[0], guides[1] if total is None else warp(guides[1], total)
                f, m = (torch.cat([own, _strided(g, stride)], 1) for own, g in zip(features, guide, strict=True))
                features = f, m
            found = match(*features, config, weights=strided)
            step = half_grid_displacement(found, stride, half_shape)
            total = step if total is None else compose(total, step)
    assert total is not None
    return total


def _averaged(weight: Tensor | None, stride: int) -> Tensor | None:
    """A weight on the grid of a pass, averaged like features, so that a slab between that grid's voxels counts.

    It is squared, because what counts in part has features that are spoilt in part.
    """
    while weight is not None and stride > 1:
        weight, stride = halve(weight), stride // 2
    return None if weight is None else weight**2


def _strided(guide: Tensor, stride: int) -> Tensor:
    """A guide of the 1/2 grid on the grid of a pass."""
    while stride > 2:
        guide, stride = halve(guide), stride // 2
    return guide


def half_grid_displacement(disp_vox: Disp, stride: int, shape: Sequence[int]) -> Float[Tensor, "B 3 X Y Z"]:
    """Bring a displacement from the grid of a pass to the 1/2 grid of `shape`, smoothing it on the way."""
    return upsample_displacement(disp_vox, stride // 2, shape, smoothing=COARSE_SMOOTHING)
