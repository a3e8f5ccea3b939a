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

__all__ = ["coupled_convex_of_features"]

Array = NDArray[np.float32]
U, F = np.uint64, np.float32

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
) -> Tensor:
    """`coupled_convex(cost_volume(scale * fixed, scale * moving))`, without a cost volume in torch's layout."""
    found = [
        _one_pair(_with_margin(a, radius), _with_margin(b, radius), radius, scale, sharpness, couplings)
        for a, b in zip(fixed_features.detach(), moving_features.detach(), strict=True)
    ]
    return torch.from_numpy(np.stack(found))


def _with_margin(features: Tensor, radius: int) -> Array:
    """(C, I, J, K) -> (I, J, C, K + 2 R), with k extended by its edge values and C padded with zeros."""
    source = features.contiguous().numpy()
    channels, i, j, k = source.shape
    target = np.zeros((i, j, -(-channels // CHANNEL_GROUP) * CHANNEL_GROUP, k + 2 * radius), np.float32)
    run_slabs(_copy_lines, i, source, target, radius)
    return target


def _one_pair(
    fixed: Array, moving: Array, radius: int, scale: float, sharpness: float, couplings: tuple[float, ...]
) -> Array:
    i, j, _, k = fixed.shape
    k -= 2 * radius
    candidates = np.array(list(product(range(-radius, radius + 1), repeat=3)), np.int64)
    cost = np.empty((i, j, len(candidates), k), np.float32)
    run_slabs(_cost_planes, i, fixed, moving, candidates, radius, np.float32(scale), cost, tasks_per_thread=2)
    mean = box_band(i, 1), box_band(j, 1), box_band(k, 1)
    found, disp = np.empty((3, i, j, k), np.float32), np.zeros((3, i, j, k), np.float32)
    run_slabs(_soft_argmin_planes, i, cost, candidates, np.float32(sharpness), np.float32(0), disp, found)
    disp = found
    for coupling in couplings:
        found = np.empty_like(disp)
        run_slabs(_soft_argmin_planes, i, cost, candidates, np.float32(sharpness), np.float32(coupling), disp, found)
        disp = apply_bands(found, mean)
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
def _cost_planes(fixed, moving, candidates, radius, scale, cost, first, last):
    """Sums of absolute differences, and their 3x3x3 means: along k and j within a plane, along i over three planes."""
    size_i, size_j, count, size_k = cost.shape
    lines = np.empty((size_j, count, size_k), np.float32)
    planes = np.empty((3, size_j, count, size_k), np.float32)
    ahead = max(first - 1, 0)
    for i in range(first, last):
        while ahead <= min(i + 1, size_i - 1):
            for j in range(size_j):
                _difference_lines(fixed, moving, candidates, radius, ahead, j, lines[j])
            _mean_over_j(lines, planes[ahead % 3])
            ahead += 1
        here, before, after = planes[i % 3], planes[(i + 2) % 3], planes[(i + 1) % 3]
        wb, wa = F(i > 0), F(i < size_i - 1)
        factor = scale / (F(1) + wb + wa)
        if i == 0:
            before = here
        if i == size_i - 1:
            after = here
        for j in range(size_j):
            _blend_lines(here[j], before[j], after[j], wb, wa, factor, cost[i, j])


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
def _difference_lines(fixed, moving, candidates, radius, i, j, out):
    """out (L, K): mean over three voxels along k of the sum over channels of |fixed(x) - moving(x + d)|, at (i, j)."""
    size_k = out.shape[1]
    line_size, channels = U(fixed.shape[3]), U(fixed.shape[2])
    raw = np.empty(size_k, np.float32)
    f = fixed[i, j].reshape(-1)
    third = F(1 / 3)
    for d in range(candidates.shape[0]):
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
        if size_k == 1:
            out[d, 0] = raw[0]
            continue
        out[d, 0] = F(0.5) * (raw[0] + raw[1])
        for k in range(U(1), U(size_k - 1)):
            out[d, k] = third * (raw[k - U(1)] + raw[k] + raw[k + U(1)])
        out[d, size_k - 1] = F(0.5) * (raw[size_k - 2] + raw[size_k - 1])


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
