"""Stage 3 of 4: cost volume -> coarse displacement, differentiable. Upstream: cost_volume. Downstream: refine.

Legend: B batch, L candidates, I J K axes of the feature grid; displacements in voxels of that grid.
Source: coupled convex optimisation, Heinrich, Papiez, Schnabel and Handels 2014; soft-argmin form as in CoRe.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from corereg.geometry.displacement import Disp, inverse_consistent
from corereg.geometry.kernels.dispatch import use_kernels, use_triton
from corereg.method.coarse.cost_volume import candidates_vox, cost_volume, weighted_box_mean, weighted_cost_volume
from corereg.method.config import CoupledConvexConfig

__all__ = ["Weights", "coupled_convex", "match"]

Weights = tuple[Float[Tensor, "B 1 I J K"] | None, Float[Tensor, "B 1 I J K"] | None]


def coupled_convex(
    cost: Float[Tensor, "B L I J K"],
    candidates: Float[Tensor, "L 3"],
    *,
    sharpness: float,
    couplings: tuple[float, ...],
    confidence: Float[Tensor, "B 1 I J K"] | None = None,
) -> Disp:
    """Regularise a cost volume into a smooth displacement by alternating soft-argmin and smoothing.

    First u(x) = sum_d d softmax_d(-s c(x, d)); then, for each coupling a, the same with c + a |d - u(x)|^2, followed by
    a 3x3x3 mean.

    Args:
        cost: lower is better.
        candidates: displacements in voxels of the feature grid, (i, j, k) order.
        confidence: how much each voxel counts in the means; None counts all equally.

    Returns: (B, 3, I, J, K), voxels of the feature grid.
    """
    disp_vox = _soft_argmin(-sharpness * cost, candidates)
    squared = (candidates**2).sum(1).view(1, -1, 1, 1, 1)
    for coupling in couplings:
        # |u|^2 is the same for all candidates of a voxel, so it cancels in the softmax.
        distance = squared - 2 * torch.einsum("lc,bcijk->blijk", candidates, disp_vox)
        logits = -sharpness * (cost + coupling * distance)
        disp_vox = weighted_box_mean(_soft_argmin(logits, candidates), confidence)
    return disp_vox


def _soft_argmin(logits: Tensor, candidates: Tensor) -> Tensor:
    return torch.einsum("lc,blijk->bcijk", candidates, logits.softmax(1))


def match(
    fixed_features: Float[Tensor, "B C I J K"],
    moving_features: Float[Tensor, "B C I J K"],
    config: CoupledConvexConfig,
    *,
    weights: Weights = (None, None),
) -> Disp:
    """Displacement from fixed to moving on the features' grid, in its voxels: stages 2 and 3 in both directions.

    Args:
        weights: how much each voxel of the fixed and of the moving image counts, from 0 to 1; None counts all.
    """
    forward = _one_direction(fixed_features, moving_features, config, weights)
    if config.inverse_consistency_steps == 0:
        return forward
    backward = _one_direction(moving_features, fixed_features, config, weights[::-1])
    return inverse_consistent(forward, backward, steps=config.inverse_consistency_steps)[0]


def _one_direction(
    fixed_features: Tensor, moving_features: Tensor, config: CoupledConvexConfig, weights: Weights
) -> Disp:
    known = None
    if any(weight is not None for weight in weights):
        first, second = (torch.ones_like(fixed_features[:, :1]) if weight is None else weight for weight in weights)
        known = first, second
    kernels = _kernels(fixed_features, moving_features, *weights)
    if kernels is not None:
        return kernels(
            fixed_features,
            moving_features,
            radius=config.radius,
            scale=config.feature_scale,
            sharpness=config.sharpness,
            couplings=config.couplings,
            weights=known,
        )
    scaled = config.feature_scale * fixed_features, config.feature_scale * moving_features
    if known is None:
        cost, confidence = cost_volume(*scaled, radius=config.radius), None
    else:
        cost, confidence = weighted_cost_volume(*scaled, *known, radius=config.radius)
    return coupled_convex(
        cost,
        candidates_vox(config.radius, like=fixed_features),
        sharpness=config.sharpness,
        couplings=config.couplings,
        confidence=confidence,
    )


def _kernels(*tensors: Tensor | None) -> Callable[..., Tensor] | None:
    if use_kernels(*tensors):
        from corereg.method.coarse.kernels_cpu import coupled_convex_of_features

        return coupled_convex_of_features
    if use_triton(*tensors):
        from corereg.method.coarse.kernels_cuda import coupled_convex_of_features as on_cuda

        return on_cuda
    return None
