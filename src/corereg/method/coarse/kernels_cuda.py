"""Triton kernels of stages 2 and 3: features of two images -> cost of every candidate -> coarse displacement.

Legend: B pairs, C channels, L candidates in the order of `candidates_vox`, I J K axes of the feature grid, R search
radius; tensors are contiguous float32. Features are channels-last, (B, I, J, K, C); costs are (B, L, I, J, K).
"""
# mypy: disable-error-code="import-not-found, import-untyped, no-untyped-def, no-untyped-call"

import torch
import triton
import triton.language as tl
from torch import Tensor

from corereg.geometry.kernels.cuda import box_mean, kernel
from corereg.method.coarse.cost_volume import known_costs, weighted_box_mean

__all__ = ["coupled_convex_of_features"]

DIFFERENCE_BLOCK = 64
SOFT_ARGMIN_BLOCK = 128
"""Voxels per program."""


def coupled_convex_of_features(
    fixed_features: Tensor,
    moving_features: Tensor,
    *,
    radius: int,
    scale: float,
    sharpness: float,
    couplings: tuple[float, ...],
    weights: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """`coupled_convex(cost_volume(scale * fixed, scale * moving))`; the features are (B, C, I, J, K).

    Args:
        weights: (B, 1, I, J, K) each, as `weighted_cost_volume` takes them; None counts all voxels equally.
    """
    fixed, moving = (f.detach().permute(0, 2, 3, 4, 1).contiguous() for f in (fixed_features, moving_features))
    batch, *shape, channels = fixed.shape
    counts = (fixed, moving) if weights is None else tuple(weight.contiguous() for weight in weights)
    cost = fixed.new_empty(batch, (2 * radius + 1) ** 3, *shape)
    weight = cost if weights is None else torch.empty_like(cost)
    grid = triton.cdiv(cost[0, 0].numel(), DIFFERENCE_BLOCK), batch
    with torch.cuda.device_of(fixed):
        _differences[grid](
            fixed, moving, cost, *counts, weight, *shape, scale, channels, triton.next_power_of_2(channels), radius,
            weights is not None, DIFFERENCE_BLOCK,
        )  # fmt: skip
        cost, confidence = box_mean(cost, 1), None
        if weights is not None:
            cost, confidence = known_costs(cost, box_mean(weight, 1))
        disp = _estimate(cost, cost.new_zeros(batch, 3, *shape), sharpness, 0.0, radius)
        for coupling in couplings:
            disp = weighted_box_mean(_estimate(cost, disp, sharpness, coupling, radius), confidence)
    return disp


def _estimate(cost: Tensor, disp: Tensor, sharpness: float, coupling: float, radius: int) -> Tensor:
    """sum_d d softmax_d(-sharpness (cost + coupling |d - disp|^2)). Runs on the current device."""
    out, voxels = torch.empty_like(disp), disp[0, 0].numel()
    grid = triton.cdiv(voxels, SOFT_ARGMIN_BLOCK), len(disp)
    _soft_argmin[grid](cost, disp, out, voxels, sharpness, coupling, radius, SOFT_ARGMIN_BLOCK)
    return out


@kernel
def _differences(
    fixed, moving, cost, fixed_weight, moving_weight, weight, I, J, K, scale,  # noqa: E741, N803
    C: tl.constexpr, CHANNELS: tl.constexpr, R: tl.constexpr, WEIGHTED: tl.constexpr, BLOCK: tl.constexpr,  # noqa: N803
):  # fmt: skip
    """scale x the sum over channels of |fixed(x) - moving(x + d)| for every d; moving is held constant at its edge.

    With weights, it is multiplied by that of x and d, which is written too; moving then does not count beyond its edge.
    """
    voxels = I * J * K
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    here = at < voxels
    pair = tl.program_id(1).to(tl.int64)
    i, j, k = at // (J * K), at // K % J, at % K
    channel = tl.arange(0, CHANNELS)[None, :]
    mask = here[:, None] & (channel < C)
    own = tl.load(fixed + (pair * voxels + at[:, None]) * C + channel, mask, 0.0)
    width: tl.constexpr = 2 * R + 1
    for candidate in range(width * width * width):
        at_i, at_j, at_k = (
            i + candidate // (width * width) - R,
            j + candidate // width % width - R,
            k + candidate % width - R,
        )
        to_i, to_j = tl.maximum(tl.minimum(at_i, I - 1), 0), tl.maximum(tl.minimum(at_j, J - 1), 0)
        to_k = tl.maximum(tl.minimum(at_k, K - 1), 0)
        there = pair * voxels + (to_i * J + to_j) * K + to_k
        other = tl.load(moving + there[:, None] * C + channel, mask, 0.0)
        difference = scale * tl.sum(tl.abs(own - other), 1)
        slot = (pair * width * width * width + candidate) * voxels + at
        if WEIGHTED:
            inside = here & (at_i == to_i) & (at_j == to_j) & (at_k == to_k)
            counts = tl.load(fixed_weight + pair * voxels + at, here, 0.0) * tl.load(moving_weight + there, inside, 0.0)
            difference *= counts
            tl.store(weight + slot, counts, here)
        tl.store(cost + slot, difference, here)


@kernel
def _soft_argmin(cost, disp, out, voxels, sharpness, coupling, R: tl.constexpr, BLOCK: tl.constexpr):  # noqa: N803
    """|disp|^2 is common to all d and cancels."""
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    here = at < voxels
    width: tl.constexpr = 2 * R + 1
    count: tl.constexpr = width * width * width
    pair = tl.program_id(1).to(tl.int64)
    cost += pair * count * voxels + at
    disp += pair * 3 * voxels + at
    out += pair * 3 * voxels + at
    ui, uj, uk = tl.load(disp, here, 0.0), tl.load(disp + voxels, here, 0.0), tl.load(disp + 2 * voxels, here, 0.0)
    highest = tl.full((BLOCK,), float("-inf"), tl.float32)
    total = tl.zeros((BLOCK,), tl.float32)
    oi, oj, ok = total, total, total
    for candidate in range(count):
        di = 1.0 * (candidate // (width * width) - R)
        dj = 1.0 * (candidate // width % width - R)
        dk = 1.0 * (candidate % width - R)
        distance = di * di + dj * dj + dk * dk - 2 * (di * ui + dj * uj + dk * uk)
        logit = -sharpness * (tl.load(cost + candidate * voxels, here, 0.0) + coupling * distance)
        # The sums are kept relative to the highest logit so far.
        before = highest
        highest = tl.maximum(highest, logit)
        rest, share = tl.exp(before - highest), tl.exp(logit - highest)
        total = total * rest + share
        oi, oj, ok = oi * rest + di * share, oj * rest + dj * share, ok * rest + dk * share
    tl.store(out, oi / total, here)
    tl.store(out + voxels, oj / total, here)
    tl.store(out + 2 * voxels, ok / total, here)
