"""Stage 2 of 4: features of two images -> cost of every candidate displacement. Downstream: coupled_convex.

Legend: B batch, C channels, L candidates, I J K axes of the feature grid.
"""

from collections.abc import Iterator
from itertools import product
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from corereg.geometry.strided import box_mean

__all__ = [
    "LEAST_CONFIDENCE",
    "LEAST_WEIGHT",
    "candidates_vox",
    "cost_volume",
    "known_costs",
    "weighted_box_mean",
    "weighted_cost_volume",
]

LEAST_WEIGHT = 1e-3
"""Weight, per voxel and candidate, below which a cost falls back on the voxel's mean cost."""
LEAST_CONFIDENCE = 1e-6
"""Mean confidence below which a voxel has no neighbour to learn from, so that its displacement is 0."""


def candidates_vox(radius: int, *, like: Tensor) -> Float[Tensor, "L 3"]:
    """All integer displacements with components up to the radius: voxels of the feature grid, (i, j, k) order."""
    return torch.tensor(list(product(range(-radius, radius + 1), repeat=3)), dtype=like.dtype, device=like.device)


def cost_volume(
    fixed_features: Float[Tensor, "B C I J K"], moving_features: Float[Tensor, "B C I J K"], *, radius: int
) -> Float[Tensor, "B L I J K"]:
    """c(x, d) = 3x3x3 mean over x of the sum over channels of |f(x) - m(x + d)|; m is held constant beyond its edge."""
    differences: Tensor = _AbsoluteDifferences.apply(fixed_features, moving_features, radius)  # type: ignore[no-untyped-call]
    return box_mean(differences)


def weighted_cost_volume(
    fixed_features: Float[Tensor, "B C I J K"],
    moving_features: Float[Tensor, "B C I J K"],
    fixed_weight: Float[Tensor, "B 1 I J K"],
    moving_weight: Float[Tensor, "B 1 I J K"],
    *,
    radius: int,
) -> tuple[Float[Tensor, "B L I J K"], Float[Tensor, "B 1 I J K"]]:
    """The cost volume where voxels count by W(x, d) = w_f(x) w_m(x + d), with w_m = 0 outside its grid.

    c(x, d) is the weighted 3x3x3 mean of the differences. Nothing is known about a candidate that leads out of what
    counts: its cost is the voxel's mean over the other candidates, so that it neither attracts nor repels.

    Returns: the costs, and the confidence in each voxel, the mean W over its candidates and 3x3x3 neighbours.
    """
    differences: Tensor = _AbsoluteDifferences.apply(fixed_features, moving_features, radius)  # type: ignore[no-untyped-call]
    shifted = _shifted(moving_weight, radius, mode="constant")
    weights = _candidates_first([(fixed_weight[:, :, :, None, None] * there).squeeze(1) for there in shifted])
    return known_costs(box_mean(weights * differences), box_mean(weights))


def known_costs(
    sums: Float[Tensor, "B L I J K"], weights: Float[Tensor, "B L I J K"]
) -> tuple[Float[Tensor, "B L I J K"], Float[Tensor, "B 1 I J K"]]:
    """Costs and confidence from the 3x3x3 means of the weighted differences and of their weights."""
    total = weights.sum(1, keepdim=True)
    mean = sums.sum(1, keepdim=True) / total.clamp(min=torch.finfo(total.dtype).tiny)
    return (sums + LEAST_WEIGHT * mean) / (weights + LEAST_WEIGHT), total / weights.shape[1]


def weighted_box_mean(volume: Float[Tensor, "B C I J K"], weight: Tensor | None) -> Float[Tensor, "B C I J K"]:
    """The 3x3x3 mean of a volume whose voxels count by a weight (B, 1, I, J, K); None counts all equally."""
    if weight is None:
        return box_mean(volume)
    return box_mean(weight * volume) / box_mean(weight).clamp(min=LEAST_CONFIDENCE)


class _AbsoluteDifferences(torch.autograd.Function):
    """Sum over channels of |f(x) - m(x + d)| for all d of a window.

    The backward pass computes the differences again, one row of candidates at a time: storing them would take C times
    the memory of the cost volume.
    """

    @staticmethod
    def forward(ctx: Any, fixed: Tensor, moving: Tensor, radius: int) -> Tensor:
        ctx.save_for_backward(fixed, moving)
        ctx.radius = radius
        return _candidates_first(
            [(fixed[:, :, :, None, None] - shifted).abs().sum(1) for shifted in _shifted(moving, radius)]
        )

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        fixed, moving = ctx.saved_tensors
        radius, (i, j, k) = ctx.radius, fixed.shape[2:]
        width = 2 * radius + 1
        of_rows = grad.reshape(len(grad), width, width, width, i, j, k).permute(1, 0, 4, 2, 3, 5, 6)
        of_fixed = torch.zeros_like(fixed)
        of_padded = fixed.new_zeros(*fixed.shape[:2], *(n + 2 * radius for n in (i, j, k)))
        for a, (row, shifted) in enumerate(zip(of_rows, _shifted(moving, radius), strict=True)):
            signed = (fixed[:, :, :, None, None] - shifted).sign_().mul_(row[:, None])
            of_fixed += signed.sum((3, 4))
            for b, c in product(range(width), repeat=2):
                of_padded[:, :, a : a + i, b : b + j, c : c + k] -= signed[:, :, :, b, c]
        for axis in (2, 3, 4):
            of_padded = _unpad(of_padded, axis, radius)
        return of_fixed, of_padded, None


def _candidates_first(rows: list[Tensor]) -> Tensor:
    """(B, I, b, c, J, K) for each offset a along the first axis -> (B, L, I, J, K)."""
    return torch.stack(rows, 1).permute(0, 1, 3, 4, 2, 5, 6).flatten(1, 3)


def _shifted(moving: Tensor, radius: int, *, mode: str = "replicate") -> Iterator[Tensor]:
    """For each offset along the first axis, a view (B, C, I, b, c, J, K) of m(x + d); b, c are the other offsets."""
    i, j, k = moving.shape[2:]
    padded = functional.pad(moving, (radius,) * 6, mode=mode)
    for a in range(2 * radius + 1):
        # unfold appends the window's axis: the offsets stay where the axis was, the voxels come last.
        yield padded[:, :, a : a + i].unfold(3, j, 1).unfold(4, k, 1)


def _unpad(grad: Tensor, axis: int, radius: int) -> Tensor:
    """Add the gradient of the replicated borders to the voxels they were replicated from."""
    size = grad.shape[axis] - 2 * radius
    inner = grad.narrow(axis, radius, size).clone()
    inner.narrow(axis, 0, 1).add_(grad.narrow(axis, 0, radius).sum(axis, keepdim=True))
    inner.narrow(axis, size - 1, 1).add_(grad.narrow(axis, size + radius, radius).sum(axis, keepdim=True))
    return inner
