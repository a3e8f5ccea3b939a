"""Compiled CPU kernels of stages 2 and 3: features of two images -> cost of every candidate -> coarse displacement.

Legend: C channels, L candidates in the order of `candidates_vox`, I J K axes of the feature grid, R search radius.
Costs are stored as lines (I, J, L, K). Voxels along k are neighbours in memory, so every loop over k vectorises, even
in the soft-argmin over the candidates.
"""
# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from itertools import product

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from corereg.geometry.kernels.exponential import exp_negative
from corereg.geometry.kernels.filter import apply_bands, box_band
from corereg.geometry.kernels.threads import kernel, run_slabs
from corereg.method.coarse.cost_volume import LEAST_CONFIDENCE, LEAST_WEIGHT

__all__ = ["coupled_convex_of_features"]

Array = NDArray[np.float32]
U, F = np.uint64, np.float32

Weights = tuple[Array, Array]
NO_WEIGHTS = np.empty((0, 0, 0), np.float32), np.empty((0, 0, 0), np.float32)

TINY = np.finfo(np.float32).tiny

CHANNEL_GROUP = 4
"""Channels summed at a time; features are padded with zeros to a multiple of it."""


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
    """`coupled_convex(cost_volume(scale * fixed, scale * moving))`, without a cost volume in torch's layout.

    Args:
        weights: (B, 1, I, J, K) each, as `weighted_cost_volume` takes them; None counts all voxels equally.
    """
    found = []
    for n, pair in enumerate(zip(fixed_features.detach(), moving_features.detach(), strict=True)):
        fixed, moving = (_with_margin(features, radius) for features in pair)
        own = NO_WEIGHTS if weights is None else _plain_weights(weights[0][n, 0], weights[1][n, 0], radius)
        found.append(_one_pair(fixed, moving, own, radius, scale, sharpness, couplings))
    return torch.from_numpy(np.stack(found))


def _plain_weights(fixed: Tensor, moving: Tensor, radius: int) -> Weights:
    """(I, J, K) and (I, J, K + 2 R): beyond its edges the moving image does not count."""
    return fixed.contiguous().numpy(), np.pad(moving.numpy(), ((0, 0), (0, 0), (radius, radius)))


def _with_margin(features: Tensor, radius: int) -> Array:
    """(C, I, J, K) -> (I, J, C, K + 2 R), with k extended by its edge values and C padded with zeros."""
    source = features.contiguous().numpy()
    channels, i, j, k = source.shape
    target = np.zeros((i, j, -(-channels // CHANNEL_GROUP) * CHANNEL_GROUP, k + 2 * radius), np.float32)
    run_slabs(_copy_lines, i, source, target, radius)
    return target


def _one_pair(
    fixed: Array,
    moving: Array,
    weights: Weights,
    radius: int,
    scale: float,
    sharpness: float,
    couplings: tuple[float, ...],
) -> Array:
    i, j, _, k = fixed.shape
    k -= 2 * radius
    candidates = np.array(list(product(range(-radius, radius + 1), repeat=3)), np.int64)
    cost = np.empty((i, j, len(candidates), k), np.float32)
    confidence = np.empty((1, i, j, k) if weights[0].size else (1, 0, 0, 0), np.float32)
    run_slabs(
        _cost_planes, i, fixed, moving, weights, candidates, radius, np.float32(scale), cost, confidence,
        tasks_per_thread=2,
    )  # fmt: skip
    mean = box_band(i, 1), box_band(j, 1), box_band(k, 1)
    known = apply_bands(confidence, mean).clip(LEAST_CONFIDENCE) if confidence.size else None
    found, disp = np.empty((3, i, j, k), np.float32), np.zeros((3, i, j, k), np.float32)
    run_slabs(_soft_argmin_planes, i, cost, candidates, np.float32(sharpness), np.float32(0), disp, found)
    disp = found
    for coupling in couplings:
        found = np.empty_like(disp)
        run_slabs(_soft_argmin_planes, i, cost, candidates, np.float32(sharpness), np.float32(coupling), disp, found)
        disp = apply_bands(found, mean) if known is None else apply_bands(confidence * found, mean) / known
    return disp


@kernel
def _copy_lines(source, target, radius, first, last):
    size = source.shape[3]
    for i in range(first, last):
        for j in range(source.shape[2]):
            for c in range(source.shape[0]):
                line = target[i, j, c]
                line[:radius] = source[c, i, j, 0]
                line[radius + size :] = source[c, i, j, size - 1]
                for k in range(size):
                    line[radius + k] = source[c, i, j, k]


@kernel
def _cost_planes(fixed, moving, weights, candidates, radius, scale, cost, confidence, first, last):
    """Sums of absolute differences, and their 3x3x3 means: along k and j within a plane, along i over three planes.

    With weights, the rows after those of the candidates hold the weights of these differences.
    """
    size_i, size_j, count, size_k = cost.shape
    rows = 2 * count if confidence.size else count
    lines = np.empty((size_j, rows, size_k), np.float32)
    planes = np.empty((3, size_j, rows, size_k), np.float32)
    sums = np.empty((rows, size_k), np.float32)
    ahead = max(first - 1, 0)
    for i in range(first, last):
        while ahead <= min(i + 1, size_i - 1):
            for j in range(size_j):
                _difference_lines(fixed, moving, weights, candidates, radius, ahead, j, lines[j])
            _mean_over_j(lines, planes[ahead % 3])
            ahead += 1
        here, before, after = planes[i % 3], planes[(i + 2) % 3], planes[(i + 1) % 3]
        wb, wa = F(i > 0), F(i < size_i - 1)
        factor = (F(1) if confidence.size else scale) / (F(1) + wb + wa)
        if i == 0:
            before = here
        if i == size_i - 1:
            after = here
        for j in range(size_j):
            if confidence.size:
                _blend_lines(here[j], before[j], after[j], wb, wa, factor, sums)
                _known_costs(sums, scale, cost[i, j], confidence[0, i, j])
            else:
                _blend_lines(here[j], before[j], after[j], wb, wa, factor, cost[i, j])


@kernel
def _known_costs(sums, scale, cost, confidence):
    """`known_costs` for one line."""
    count, size_k = cost.shape
    total, mean = np.zeros(size_k, np.float32), np.zeros(size_k, np.float32)
    for d in range(count):
        for k in range(size_k):
            mean[k] += sums[d, k]
            total[k] += sums[count + d, k]
    for k in range(size_k):
        confidence[k] = total[k] / F(count)
        mean[k] /= max(total[k], F(TINY))
    for d in range(count):
        for k in range(size_k):
            cost[d, k] = scale * (sums[d, k] + F(LEAST_WEIGHT) * mean[k]) / (sums[count + d, k] + F(LEAST_WEIGHT))


@kernel
def _mean_over_j(lines, plane):
    last = lines.shape[0] - 1
    for j in range(lines.shape[0]):
        wb, wa = F(j > 0), F(j < last)
        _blend_lines(lines[j], lines[max(j - 1, 0)], lines[min(j + 1, last)], wb, wa, F(1) / (F(1) + wb + wa), plane[j])


@kernel
def _blend_lines(here, before, after, weight_before, weight_after, factor, out):
    for d in range(out.shape[0]):
        for k in range(out.shape[1]):
            out[d, k] = factor * (here[d, k] + weight_before * before[d, k] + weight_after * after[d, k])


@kernel
def _difference_lines(fixed, moving, weights, candidates, radius, i, j, out):
    """out (L, K): mean over three voxels along k of the sum over channels of |fixed(x) - moving(x + d)|, at (i, j);
    with weights (2 L, K): of the weighted sum, and of the weight."""
    size_k, count = out.shape[1], candidates.shape[0]
    line_size, channels = U(fixed.shape[3]), U(fixed.shape[2])
    raw, weight = np.empty(size_k, np.float32), np.empty(size_k, np.float32)
    f = fixed[i, j].reshape(-1)
    for d in range(count):
        mi = min(max(i + candidates[d, 0], 0), moving.shape[0] - 1)
        mj = min(max(j + candidates[d, 1], 0), moving.shape[1] - 1)
        m = moving[mi, mj].reshape(-1)
        for c in range(U(0), channels, U(4)):
            a, b = c * line_size + U(radius), c * line_size + U(radius + candidates[d, 2])
            n = line_size
            for k in range(U(size_k)):
                value = abs(f[a + k] - m[b + k]) + abs(f[a + n + k] - m[b + n + k])
                value += abs(f[a + n + n + k] - m[b + n + n + k]) + abs(f[a + n + n + n + k] - m[b + n + n + n + k])
                raw[k] = value + (raw[k] if c > 0 else F(0))
        if out.shape[0] > count:
            fixed_weight, moving_weight = weights
            inside = mi == i + candidates[d, 0] and mj == j + candidates[d, 1]
            for k in range(size_k):
                there = moving_weight[mi, mj, radius + k + candidates[d, 2]] if inside else F(0)
                weight[k] = fixed_weight[i, j, k] * there
                raw[k] *= weight[k]
            _mean_over_k(weight, out[count + d])
        _mean_over_k(raw, out[d])


@kernel
def _mean_over_k(line, out):
    size = line.size
    third = F(1 / 3)
    if size == 1:
        out[0] = line[0]
        return
    out[0] = F(0.5) * (line[0] + line[1])
    for k in range(U(1), U(size - 1)):
        out[k] = third * (line[k - U(1)] + line[k] + line[k + U(1)])
    out[size - 1] = F(0.5) * (line[size - 2] + line[size - 1])


@kernel
def _soft_argmin_planes(cost, candidates, sharpness, coupling, disp, out, first, last):
    """out = sum_d d softmax_d(-sharpness (cost + coupling |d - disp|^2)); |disp|^2 is common to all d and cancels."""
    count, size_k = cost.shape[2], cost.shape[3]
    logits = np.empty((count, size_k), np.float32)
    highest, total = np.empty(size_k, np.float32), np.empty(size_k, np.float32)
    pull = F(2) * sharpness * coupling
    for i in range(first, last):
        for j in range(cost.shape[1]):
            lines, ui, uj, uk = cost[i, j], disp[0, i, j], disp[1, i, j], disp[2, i, j]
            highest[:] = F(-np.inf)
            for d in range(count):
                di, dj, dk = F(candidates[d, 0]), F(candidates[d, 1]), F(candidates[d, 2])
                offset = sharpness * coupling * (di * di + dj * dj + dk * dk)
                for k in range(size_k):
                    logit = pull * (di * ui[k] + dj * uj[k] + dk * uk[k]) - sharpness * lines[d, k] - offset
                    logits[d, k] = logit
                    highest[k] = max(highest[k], logit)
            oi, oj, ok = out[0, i, j], out[1, i, j], out[2, i, j]
            for k in range(size_k):
                total[k] = oi[k] = oj[k] = ok[k] = F(0)
            for d in range(count):
                di, dj, dk = F(candidates[d, 0]), F(candidates[d, 1]), F(candidates[d, 2])
                for k in range(size_k):
                    share = exp_negative(logits[d, k] - highest[k])
                    total[k] += share
                    oi[k] += di * share
                    oj[k] += dj * share
                    ok[k] += dk * share
            for k in range(size_k):
                scale = F(1) / total[k]
                oi[k] *= scale
                oj[k] *= scale
                ok[k] *= scale
