"""Compiled CPU kernels that read a volume at displaced positions: warping, composition, inversion, Jacobians.

Legend: C channels, I J K axes of the sampled volume, X Y Z axes of the output; arrays are C-contiguous float32.
"""
# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from corereg.geometry.kernels.threads import kernel, run_slabs

__all__ = [
    "HALF_DIFFERENCE",
    "SUM",
    "Blend",
    "cell_of",
    "invert",
    "jacobian",
    "pull_displacement",
    "sample",
    "sample_here",
]

Array = NDArray[np.float32]
U, F = np.uint64, np.float32
"""Offsets into flat arrays are unsigned, which saves a test for negative ones in every inner loop."""


class Blend(NamedTuple):
    """How a sampled value is combined with the displacement: own * displacement + sampled * value."""

    own: float
    sampled: float


PLAIN = Blend(0.0, 1.0)
SUM = Blend(1.0, 1.0)
HALF_DIFFERENCE = Blend(0.5, -0.5)


def sample(volume: Tensor, offsets: Tensor, *, from_identity: bool, outside: float | None) -> Tensor:
    """See `warp.sample` (offsets are positions) and `warp.warp` (offsets are a displacement)."""
    pairs = zip(_arrays(volume), _arrays(offsets), strict=True)
    return _stacked([_pull(v, u, from_identity=from_identity, outside=outside)[0] for v, u in pairs])


def pull_displacement(first: Tensor, then: Tensor, blend: Blend) -> tuple[Tensor, float]:
    """blend.own * then(x) + blend.sampled * first(x + then(x)), and the largest |then(x) + first(x + then(x))|."""
    pulled = [_pull(a, b, blend=blend) for a, b in zip(_arrays(first), _arrays(then), strict=True)]
    return _stacked([values for values, _ in pulled]), max(largest for _, largest in pulled)


def invert(
    disp_vox: Tensor, start: Tensor, step: float, *, iterations: int, tolerance_vox: float
) -> tuple[Tensor, Tensor]:
    """See `displacement.invert`; `step` is the share of each correction to take, and `start` is overwritten."""
    pairs = zip(_arrays(disp_vox), _arrays(start), strict=True)
    return start, _stacked([_invert(u, v, step, iterations, tolerance_vox) for u, v in pairs])


def jacobian(disp_vox: Tensor) -> Tensor:
    """See `displacement.jacobian_determinant`."""
    return _stacked([_jacobian(values) for values in _arrays(disp_vox)])


def _arrays(tensor: Tensor) -> list[Array]:
    return list(tensor.detach().contiguous().numpy())


def _stacked(items: list[Array]) -> Tensor:
    return torch.from_numpy(items[0][None] if len(items) == 1 else np.stack(items))


def _pull(
    volume: Array, offsets: Array, *, from_identity: bool = True, outside: float | None = None, blend: Blend = PLAIN
) -> tuple[Array, float]:
    """Trilinear interpolation of volume (C, I, J, K), held at its edge, at x + offsets(x), offsets (3, X, Y, Z).

    Args:
        from_identity: False reads at `offsets` itself.
        outside: value for positions more than half a voxel beyond the volume; None holds the edge value.
        blend: if its `own` is not 0, the volume must have three channels.

    Returns: (C, X, Y, Z), and the largest |offset + value| of any component (0 if `blend.own` is 0).
    """
    out = np.empty((volume.shape[0], *offsets.shape[1:]), np.float32)
    largest = np.zeros(offsets.shape[1], np.float32)
    run_slabs(
        _pull_planes, offsets.shape[1], *_pull_arguments(volume, offsets, out, largest, from_identity, outside, blend)
    )
    return out, float(largest.max(initial=0))


def sample_here(volume: Array, coords_vox: Array, *, outside: float | None = None) -> Array:
    """Like `sample`, but for arrays (C, I, J, K) and (3, X, Y, Z), and on the calling thread alone."""
    out = np.empty((volume.shape[0], *coords_vox.shape[1:]), np.float32)
    largest = np.empty(coords_vox.shape[1], np.float32)
    planes = 0, coords_vox.shape[1]
    _pull_planes(*(*_pull_arguments(volume, coords_vox, out, largest, False, outside, PLAIN), *planes))
    return out


def _pull_arguments(
    volume: Array,
    offsets: Array,
    out: Array,
    largest: Array,
    from_identity: bool,
    outside: float | None,
    blend: Blend,
) -> tuple[Any, ...]:
    """The arguments of `_pull_planes`, without the range of planes."""
    return (
        volume.reshape(volume.shape[0], -1),
        offsets.reshape(3, -1),
        out.reshape(out.shape[0], -1),
        np.array(volume.shape[1:]),
        np.array(offsets.shape[1:]),
        from_identity,
        outside is not None,
        np.float32(outside or 0),
        np.float32(blend.own),
        np.float32(blend.sampled),
        largest,
    )


@kernel
def _pull_planes(volume, offsets, out, sizes, shape, from_identity, cut, outside, own, sampled, largest, first, last):
    size_y, size_z = U(shape[1]), U(shape[2])
    cell = np.empty(size_z, np.int32)
    share = np.empty((3, size_z), np.float32)
    valid = np.empty(size_z, np.bool_)
    steps = _steps(sizes)
    for x in range(U(first), U(last)):
        most = F(0)
        for y in range(size_y):
            at = (x * size_y + y) * size_z
            base = F(1) if from_identity else F(0)
            _locate(offsets, at, base * F(x), base * F(y), base, sizes, cell, share, valid)
            for c in range(U(volume.shape[0])):
                _interpolate(volume, c, cell, share, steps, out, c, at)
                if cut:
                    for z in range(size_z):
                        if not valid[z]:
                            out[c, at + z] = outside
                if own != 0:
                    for z in range(size_z):
                        most = max(most, abs(offsets[c, at + z] + out[c, at + z]))
                        out[c, at + z] = own * offsets[c, at + z] + sampled * out[c, at + z]
        largest[x] = most


@kernel
def _locate(offsets, at, x, y, step, sizes, cell, share, valid):
    """For the positions of one line: the voxel of the lower corner, the weight of the upper one along each axis, and
    whether the position is inside. A NaN position gets a cell inside the volume and NaN weights."""
    last_i, last_j, last_k = F(sizes[0] - 1), F(sizes[1] - 1), F(sizes[2] - 1)
    cells_i, cells_j, cells_k = (
        np.int32(max(sizes[0] - 2, 0)),
        np.int32(max(sizes[1] - 2, 0)),
        np.int32(max(sizes[2] - 2, 0)),
    )
    size_j, size_k, half = np.int32(sizes[1]), np.int32(sizes[2]), F(0.5)
    for n in range(U(cell.size)):
        i, j, k = x + offsets[0, at + n], y + offsets[1, at + n], step * F(n) + offsets[2, at + n]
        above = (i >= -half) & (j >= -half) & (k >= -half)
        valid[n] = above & (i <= last_i + half) & (j <= last_j + half) & (k <= last_k + half)
        a, share[0, n] = cell_of(i, last_i, cells_i)
        b, share[1, n] = cell_of(j, last_j, cells_j)
        c, share[2, n] = cell_of(k, last_k, cells_k)
        cell[n] = (a * size_j + b) * size_k + c


@kernel
def cell_of(position, last, last_cell):
    """Lower corner and weight of the upper one along an axis, for any float."""
    held = min(position if position > 0 else F(0), last)  # NaN becomes 0 here: converting it would give any integer
    low = min(np.int32(held), last_cell)
    return low, (held if position == position else position) - F(low)


@kernel
def _steps(sizes):
    """Offsets to the upper corner along each axis; 0 along an axis of a single voxel, whose weight is 0."""
    step_i = U(sizes[1] * sizes[2]) if sizes[0] > 1 else U(0)
    step_j = U(sizes[2]) if sizes[1] > 1 else U(0)
    return step_i, step_j, U(1) if sizes[2] > 1 else U(0)


@kernel
def _interpolate(volume, c, cell, share, steps, out, row, at):
    """Interpolate a line of a channel at the positions found by `_locate`, into out[row, at:]."""
    step_i, step_j, step_k = steps
    for z in range(U(cell.size)):
        a = U(cell[z])
        wi, wj, wk = share[0, z], share[1, z], share[2, z]
        b, d = a + step_j, a + step_i
        e = d + step_j
        v00 = volume[c, a] + wk * (volume[c, a + step_k] - volume[c, a])
        v01 = volume[c, b] + wk * (volume[c, b + step_k] - volume[c, b])
        v10 = volume[c, d] + wk * (volume[c, d + step_k] - volume[c, d])
        v11 = volume[c, e] + wk * (volume[c, e + step_k] - volume[c, e])
        v0, v1 = v00 + wj * (v01 - v00), v10 + wj * (v11 - v10)
        out[row, at + z] = v0 + wi * (v1 - v0)


def _invert(disp_vox: Array, inverse: Array, step: float, iterations: int, tolerance_vox: float) -> Array:
    """Turn `inverse` (3, I, J, K) from a start value into the inverse of disp_vox; return its residual (I, J, K)."""
    shape = disp_vox.shape[1:]
    residual = np.empty(shape, np.float32)
    run_slabs(
        _invert_planes,
        shape[0],
        disp_vox.reshape(3, -1),
        inverse.reshape(3, -1),
        residual.reshape(-1),
        np.array(shape),
        np.float32(step),
        iterations,
        np.float32(tolerance_vox),
    )
    return residual


@kernel
def _invert_planes(disp, inverse, residual, shape, step, iterations, tolerance, first, last):
    """Iterate each line until it converges: most need fewer iterations than the worst, and each stays in the cache."""
    size_y, size_z = U(shape[1]), U(shape[2])
    cell = np.empty(size_z, np.int32)
    share = np.empty((3, size_z), np.float32)
    valid = np.empty(size_z, np.bool_)
    miss = np.empty((3, size_z), np.float32)
    steps = _steps(shape)
    for x in range(U(first), U(last)):
        for y in range(size_y):
            at = (x * size_y + y) * size_z
            left = iterations
            while True:
                _locate(inverse, at, F(x), F(y), F(1), shape, cell, share, valid)
                largest = F(0)
                for c in range(U(3)):
                    _interpolate(disp, c, cell, share, steps, miss, c, U(0))
                    for z in range(size_z):
                        miss[c, z] += inverse[c, at + z]
                        largest = max(largest, abs(miss[c, z]))
                if left == 0 or largest < tolerance:
                    break
                left -= 1
                for c in range(U(3)):
                    for z in range(size_z):
                        inverse[c, at + z] -= step * miss[c, z]
            for z in range(size_z):
                residual[at + z] = np.sqrt(miss[0, z] ** 2 + miss[1, z] ** 2 + miss[2, z] ** 2)


def _jacobian(disp_vox: Array) -> Array:
    """Determinant of the Jacobian of x + u(x), u (3, I, J, K): central differences inside, one-sided at the faces."""
    shape = disp_vox.shape[1:]
    out = np.empty(shape, np.float32)
    run_slabs(_jacobian_planes, shape[0], disp_vox.reshape(3, -1), out.reshape(-1), np.array(shape))
    return out


@kernel
def _jacobian_planes(disp, out, shape, first, last):
    size_i, size_j, size_k = U(shape[0]), U(shape[1]), U(shape[2])
    d = np.empty((9, size_k), np.float32)
    for i in range(U(first), U(last)):
        for j in range(size_j):
            at = (i * size_j + j) * size_k
            for a in range(U(3)):
                _slope_lines(disp, a, at, size_j * size_k, i, size_i, d, U(3) * a)
                _slope_lines(disp, a, at, size_k, j, size_j, d, U(3) * a + U(1))
                row = U(3) * a + U(2)
                for k in range(U(1), size_k - U(1)):
                    d[row, k] = F(0.5) * (disp[a, at + k + U(1)] - disp[a, at + k - U(1)])
                d[row, 0] = disp[a, at + U(1)] - disp[a, at]
                d[row, size_k - U(1)] = disp[a, at + size_k - U(1)] - disp[a, at + size_k - U(2)]
            for k in range(size_k):
                ii, jj, kk = d[0, k] + F(1), d[4, k] + F(1), d[8, k] + F(1)
                value = ii * (jj * kk - d[5, k] * d[7, k]) - d[1, k] * (d[3, k] * kk - d[5, k] * d[6, k])
                out[at + k] = value + d[2, k] * (d[3, k] * d[7, k] - jj * d[6, k])


@kernel
def _slope_lines(disp, a, at, stride, position, size, out, row):
    """The slope across a line: the difference of its two neighbours along an axis, per voxel of that axis."""
    before = stride if position > 0 else U(0)
    after = stride if position < size - U(1) else U(0)
    factor = F(0.5) if before > 0 and after > 0 else F(1)
    for k in range(U(out.shape[1])):
        out[row, k] = factor * (disp[a, at + k + after] - disp[a, at + k - before])
