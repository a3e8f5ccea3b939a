"""Triton kernels for CUDA that filter a volume axis by axis, or read it at displaced positions.

Any sequence of 3x3x3 means is one small matrix per axis with few non-zero weights per row: a `Band`. The matrices
reproduce the borders exactly, so the kernels need no special cases for them.

Legend: B batch, C channels, I J K axes of the input, X Y Z axes of the output; tensors are contiguous float32.
"""
# mypy: disable-error-code="import-not-found, import-untyped, no-untyped-def, no-untyped-call"

import inspect
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import torch
import triton
import triton.language as tl
from numpy.typing import NDArray
from torch import Tensor

from corereg.geometry.smoothing_matrix import mean_matrix, smoothing_matrix

__all__ = [
    "Band",
    "band_row",
    "box_band",
    "box_mean",
    "filter_axis",
    "kernel",
    "locate",
    "pull",
    "try_out",
    "window_band",
]

BLOCK = 512
"""Number of values computed by one program."""


def kernel(function: Callable[..., Any]) -> Any:
    """Compile a function with Triton at its first call."""
    return triton.jit(inspect.unwrap(function))  # tests wrap every function in shape checks


class Band(NamedTuple):
    """The square matrix of one axis: out[x] = sum_t weights[t, x] in[start[x] + t]."""

    start: Tensor
    weights: Tensor


def _band(dense: NDArray[np.float64], device: torch.device) -> Band:
    """The non-zero part of a dense matrix."""
    matrix = torch.from_numpy(dense)
    size, used = len(matrix), matrix != 0
    columns = torch.arange(size)
    first = torch.where(used, columns, size).amin(1)
    taps = int((torch.where(used, columns, 0).amax(1) - first).amax()) + 1
    start = first.clamp(max=size - taps)
    weights = matrix.gather(1, start[:, None] + torch.arange(taps)).T
    return Band(start.int().to(device), weights.float().contiguous().to(device))


@cache
def box_band(size: int, times: int, reach: int, device: torch.device, *, adjoint: bool = False) -> Band:
    """`smoothing_matrix` along an axis, or its adjoint, which differs at the border."""
    matrix = smoothing_matrix(size, times, reach)
    return _band(matrix.T if adjoint else matrix, device)


@cache
def window_band(size: int, radius: int, device: torch.device, *, adjoint: bool = False) -> Band:
    """The mean over the window's voxels that exist, along an axis, or its adjoint."""
    matrix = mean_matrix(size, radius)
    return _band(matrix.T if adjoint else matrix, device)


def try_out() -> None:
    """Run a kernel; it fails where Triton does not work."""
    volume = torch.zeros(1, 1, 2, 3, 4, device="cuda")
    filter_axis(volume, box_band(4, 1, 0, volume.device), 4, torch.empty_like(volume))
    torch.cuda.synchronize()


def box_mean(volume: Tensor, times: int, reach: int = 0) -> Tensor:
    """See `strided.box_mean`."""
    out = volume.detach().contiguous()
    with torch.cuda.device_of(volume):
        for axis in (2, 3, 4):
            source, out = out, torch.empty_like(out)
            filter_axis(source, box_band(volume.shape[axis], times, reach, volume.device), axis, out)
    return out


def filter_axis(source: Tensor, band: Band, axis: int, out: Tensor) -> None:
    """out = the band applied along an axis of source; both are contiguous and on the current device."""
    count = out[0].numel()
    _filter_axis[(triton.cdiv(count, BLOCK), len(out))](
        source, out, *band, count, source.shape[axis], source.stride(axis), len(band.weights), BLOCK
    )


@kernel
def band_row(source, start, weights, at, mask, size, inner, TAPS: tl.constexpr):  # noqa: N803
    """Values of the filtered volume at its flat positions `at`; `inner` is the stride of the axis."""
    x = at // inner % size
    first = at + (tl.load(start + x, mask, 0) - x) * inner
    value = tl.zeros_like(at).to(tl.float32)
    for t in tl.static_range(TAPS):
        weight = tl.load(weights + t * size + x, mask, 0.0)
        value += weight * tl.load(source + first + t * inner, mask, 0.0)
    return value


@kernel
def _filter_axis(source, out, start, weights, count, size, inner, TAPS: tl.constexpr, BLOCK: tl.constexpr):  # noqa: N803
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = at < count
    skipped = tl.program_id(1).to(tl.int64) * count
    value = band_row(source + skipped, start, weights, at, mask, size, inner, TAPS)
    tl.store(out + skipped + at, value, mask)


def pull(
    volume: Tensor,
    offsets: Tensor,
    *,
    from_identity: bool,
    outside: float | None = None,
    own: float = 0.0,
    sampled: float = 1.0,
) -> Tensor:
    """own * offsets(x) + sampled * volume(p), linearly interpolated, where p is offsets(x) or x + offsets(x).

    Args:
        volume: (B, C, I, J, K).
        offsets: (B, 3, X, Y, Z); either batch size may be 1.
        from_identity: p is x + offsets(x).
        outside: value of volume(p) where p lies more than half a voxel beyond the volume; None holds the edge value.
        own: may differ from 0 only if the volume has 3 channels.
    """
    volume, offsets = volume.detach().contiguous(), offsets.detach().contiguous()
    batch, count = max(len(volume), len(offsets)), offsets[0, 0].numel()
    out = volume.new_empty(batch, volume.shape[1], *offsets.shape[2:])
    of_volume, of_offsets = (0 if len(t) == 1 else t[0].numel() for t in (volume, offsets))
    with torch.cuda.device_of(volume):
        _pull[(triton.cdiv(count, BLOCK), batch)](
            volume, offsets, out, of_volume, of_offsets, count, *volume.shape[1:], *offsets.shape[3:], own, sampled,
            outside or 0.0, from_identity, outside is not None, own != 0, BLOCK,
        )  # fmt: skip
    return out


@kernel
def locate(position, size):
    """Lower corner, weight of the upper one, and 1 where the sampled value depends on the position: 0 on the edge, as
    in grid_sample, and beyond it, where the value is held."""
    last = 1.0 * (size - 1)
    free = (position > 0) & (position < last)
    position = tl.maximum(tl.minimum(position, last), 0.0)
    cell = tl.maximum(tl.minimum(position.to(tl.int32), size - 2), 0)
    return cell, position - cell, free.to(tl.float32)


@kernel
def _pull(
    volume, offsets, out, of_volume, of_offsets, count, C, I, J, K, Y, Z, own, sampled, outside,  # noqa: E741, N803
    IDENTITY: tl.constexpr, OUTSIDE: tl.constexpr, OWN: tl.constexpr, BLOCK: tl.constexpr,  # noqa: N803
):  # fmt: skip
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = at < count
    pair = tl.program_id(1).to(tl.int64)
    offsets += pair * of_offsets + at
    volume += pair * of_volume
    out += pair * C * count + at
    i, j, k = tl.load(offsets, mask, 0.0), tl.load(offsets + count, mask, 0.0), tl.load(offsets + 2 * count, mask, 0.0)
    if IDENTITY:
        i, j, k = i + at // (Y * Z), j + at // Z % Y, k + at % Z
    cell_i, wi, _ = locate(i, I)
    cell_j, wj, _ = locate(j, J)
    cell_k, wk, _ = locate(k, K)
    step_i, step_j, step_k = tl.where(I > 1, J * K, 0), tl.where(J > 1, K, 0), tl.where(K > 1, 1, 0)
    for channel in range(C):
        near = volume + channel * I * J * K + (cell_i * J + cell_j) * K + cell_k
        line = _between(near, step_k, wk, mask)
        plane = line + wj * (_between(near + step_j, step_k, wk, mask) - line)
        near += step_i
        line = _between(near, step_k, wk, mask)
        far_plane = line + wj * (_between(near + step_j, step_k, wk, mask) - line)
        value = plane + wi * (far_plane - plane)
        if OUTSIDE:
            inside = (i >= -0.5) & (i <= I - 0.5) & (j >= -0.5) & (j <= J - 0.5) & (k >= -0.5) & (k <= K - 0.5)
            value = tl.where(inside, value, outside)
        value *= sampled
        if OWN:
            value += own * tl.load(offsets + channel * count, mask, 0.0)
        tl.store(out + channel * count, value, mask)


@kernel
def _between(lower, step, share, mask):
    value = tl.load(lower, mask, 0.0)
    return value + share * (tl.load(lower + step, mask, 0.0) - value)
