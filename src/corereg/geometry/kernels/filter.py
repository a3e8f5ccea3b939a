"""Compiled CPU kernels for linear operators that act on each axis separately: smoothing and upsampling.

Any sequence of 3x3x3 means and upsamplings is one small matrix per axis with few non-zero weights per row: a `Band`.
The matrices reproduce the borders exactly, so the kernels need no special cases for them.

Legend: N volumes, I J K axes before, X Y Z axes after; arrays are C-contiguous float32.
"""
# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from corereg.geometry.kernels.threads import kernel, run_slabs
from corereg.geometry.smoothing_matrix import mean_matrix, smoothing_matrix

__all__ = [
    "Band",
    "apply_bands",
    "box_band",
    "box_mean",
    "filter_plane",
    "filter_row",
    "upsample",
    "upsampling_band",
    "window_band",
]

Array = NDArray[np.float32]
U, F = np.uint64, np.float32
"""Offsets into flat arrays are unsigned, which saves a test for negative ones in every inner loop."""

TOGETHER = 1 << 20
"""All volumes are filtered at once if the work buffer holds at most this many values, else one after the other."""


class Band(NamedTuple):
    """The matrix of one axis: out[x] = sum_t weights[t, x] in[start[x] + t]."""

    start: NDArray[np.int64]
    weights: Array
    linear_from: int
    linear_to: int
    """The rows in which `start` grows by one from row to row (the long inner part of a smoothing) share one loop."""


def band(matrix: NDArray[np.float64]) -> Band:
    """The non-zero part of a dense (X, I) matrix."""
    used = matrix != 0
    first = used.argmax(1)
    taps = int((matrix.shape[1] - used[:, ::-1].argmax(1) - first).max())
    start = np.minimum(first, matrix.shape[1] - taps)
    weights = np.take_along_axis(matrix, start[:, None] + np.arange(taps), 1).T
    steps = np.flatnonzero(np.diff(start) == 1)
    linear = (0, 0)
    if steps.size and (np.diff(steps) == 1).all():
        linear = int(steps[0]), int(steps[-1]) + 2
    return Band(start.astype(np.int64), np.ascontiguousarray(weights, dtype=np.float32), *linear)


def _doubling_matrix(coarse: int, factor: int, fine: int) -> NDArray[np.float64]:
    position = np.arange(fine) / factor
    low = np.minimum(position.astype(np.int64), coarse - 1)
    weight = position - low
    matrix = np.zeros((fine, coarse))
    np.add.at(matrix, (np.arange(fine), low), 1 - weight)
    np.add.at(matrix, (np.arange(fine), np.minimum(low + 1, coarse - 1)), weight)
    return matrix


@cache
def box_band(size: int, times: int, reach: int = 0, *, adjoint: bool = False) -> Band:
    """`smoothing_matrix` along an axis, or its adjoint, which differs at the border."""
    matrix = smoothing_matrix(size, times, reach)
    return band(matrix.T if adjoint else matrix)


@cache
def window_band(size: int, radius: int) -> Band:
    """Mean over the up to 2 * radius + 1 voxels that exist around each."""
    return band(mean_matrix(size, radius))


@cache
def upsampling_band(coarse: int, plan: tuple[tuple[int, int], ...], smoothing: int) -> Band:
    """Upsampling in steps, each (factor, new size), and each followed by `smoothing` means of 3 neighbours."""
    matrix = np.eye(coarse)
    for factor, size in plan:
        matrix = smoothing_matrix(size, smoothing) @ _doubling_matrix(matrix.shape[0], factor, size) @ matrix
    return band(matrix)


def box_mean(volume: Tensor, times: int, reach: int = 0) -> Tensor:
    """See `strided.box_mean`."""
    i, j, k = (box_band(size, times, reach) for size in volume.shape[2:])
    return _on_tensor(volume, (i, j, k))


def upsample(
    volume: Tensor, plan: tuple[tuple[int, tuple[int, ...]], ...], *, smoothing: int = 0, scale: float = 1.0
) -> Tensor:
    """Upsampling in steps, each (factor, new shape), and each followed by `smoothing` 3x3x3 means; times `scale`."""
    i, j, k = (
        upsampling_band(size, tuple((factor, shape[axis]) for factor, shape in plan), smoothing)
        for axis, size in enumerate(volume.shape[2:])
    )
    return _on_tensor(volume, (i, j, k), scale=scale)


def _on_tensor(volume: Tensor, bands: tuple[Band, Band, Band], *, scale: float = 1.0) -> Tensor:
    values = apply_bands(volume.detach().contiguous().numpy().reshape(-1, *volume.shape[2:]), bands, scale=scale)
    return torch.from_numpy(values.reshape(*volume.shape[:2], *values.shape[1:]))


def apply_bands(volumes: Array, bands: tuple[Band, Band, Band], *, scale: float = 1.0) -> Array:
    """Apply the operators of the three axes to volumes (N, I, J, K), and multiply the result by `scale`."""
    count, rows = volumes.shape[:2]
    shape = tuple(b.start.size for b in bands)
    out = np.empty((count, *shape), np.float32)
    together = count if count * rows * shape[1] * shape[2] <= TOGETHER else 1
    planes = np.empty(together * rows * shape[1] * shape[2], np.float32)
    along_i = bands[0]._replace(weights=bands[0].weights * np.float32(scale))
    for n in range(0, count, together):
        source, target = volumes[n : n + together].reshape(-1), out[n : n + together].reshape(-1)
        run_slabs(_filter_planes, together * rows, source, planes, volumes.shape[2:], bands[1], bands[2])
        run_slabs(_filter_slabs, together * shape[0], planes, target, rows, shape[1:], along_i)
    return out


@kernel
def filter_line(source, at, target, to, size, band):
    """target[to : to + size] = the band applied to the line of source that begins at `at`; both arrays are flat."""
    start, weights, linear_from, linear_to = band
    for x in range(U(linear_from)):
        target[to + x] = _dot(source, at + U(start[x]), weights, x)
    for x in range(U(linear_to), U(size)):
        target[to + x] = _dot(source, at + U(start[x]), weights, x)
    first, last = U(linear_from), U(linear_to)
    if last > first:
        shift = at + U(start[first]) - first
        for x in range(first, last):
            target[to + x] = F(0)
        for t in range(U(weights.shape[0])):
            for x in range(first, last):
                target[to + x] += weights[t, x] * source[shift + t + x]


@kernel
def _dot(source, at, weights, x):
    value = F(0)
    for t in range(U(weights.shape[0])):
        value += weights[t, x] * source[at + t]
    return value


@kernel
def filter_row(source, at, stride, target, to, size, start, weights, x):
    """target[to : to + size] = row x of the band applied to lines of source: the first at `at`, `stride` apart."""
    taps = U(weights.shape[0])
    stride, size = U(stride), U(size)
    first = at + U(start[x]) * stride
    # Four lines at a time, padded with weights of zero: fewer loads and stores of the target.
    for t in range(U(0), taps, U(4)):
        t1, t2, t3 = min(t + U(1), taps - U(1)), min(t + U(2), taps - U(1)), min(t + U(3), taps - U(1))
        a, b, c, d = first + t * stride, first + t1 * stride, first + t2 * stride, first + t3 * stride
        wa = weights[t, x]
        wb = weights[t1, x] if t1 > t else F(0)
        wc = weights[t2, x] if t2 > t1 else F(0)
        wd = weights[t3, x] if t3 > t2 else F(0)
        if t == 0:
            for k in range(size):
                target[to + k] = wa * source[a + k] + wb * source[b + k] + wc * source[c + k] + wd * source[d + k]
        else:
            for k in range(size):
                target[to + k] += wa * source[a + k] + wb * source[b + k] + wc * source[c + k] + wd * source[d + k]


@kernel
def filter_plane(source, at, target, to, lines, sizes, along_j, along_k):
    """Plane (Y, Z) of target = both bands applied to plane (J, K) of source, through lines (J, Z); all flat."""
    size_j, size_k, size_y, size_z = U(sizes[0]), U(sizes[1]), U(along_j.start.size), U(along_k.start.size)
    start, weights = along_j.start, along_j.weights
    for j in range(size_j):
        filter_line(source, at + j * size_k, lines, j * size_z, size_z, along_k)
    for y in range(size_y):
        filter_row(lines, U(0), size_z, target, to + y * size_z, size_z, start, weights, y)


@kernel
def _filter_planes(volumes, planes, shape, along_j, along_k, first, last):
    size_j, size_k, size_y, size_z = U(shape[0]), U(shape[1]), U(along_j.start.size), U(along_k.start.size)
    lines = np.empty(size_j * size_z, np.float32)
    for plane in range(U(first), U(last)):
        filter_plane(volumes, plane * size_j * size_k, planes, plane * size_y * size_z, lines, shape, along_j, along_k)


@kernel
def _filter_slabs(planes, out, rows, shape, along_i, first, last):
    size_x, size_y, size_z = U(along_i.start.size), U(shape[0]), U(shape[1])
    start, weights = along_i.start, along_i.weights
    for plane in range(U(first), U(last)):
        n, x = plane // size_x, plane % size_x
        for y in range(size_y):
            at = (n * U(rows) * size_y + y) * size_z
            filter_row(planes, at, size_y * size_z, out, (plane * size_y + y) * size_z, size_z, start, weights, x)
