"""Compiled CPU kernels of stage 1 without training: MIND-SSC on the full grid, averaged directly to the 1/2 grid.

The twelve maps are never stored on the full grid. The volume is processed in blocks of lines along k; each block is
walked along i and keeps the last three planes. A first pass finds the mean variance, which bounds the variance of each
voxel; a second computes the descriptors.

Legend: P = 12 pairs, I J K axes of the full grid, X Y Z of the 1/2 grid; lines are float32, along k.
"""
# mypy: disable-error-code="no-untyped-def, no-untyped-call, assignment"

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from corereg.geometry.kernels.exponential import exp_negative
from corereg.geometry.kernels.threads import kernel, run_slabs

__all__ = ["mind_ssc_half"]

Array = NDArray[np.float32]
F = np.float32

BLOCK_LINES, BLOCK_PLANES = 8, 32
"""Size of a block on the 1/2 grid: its work buffers fit into a core's own cache."""


def mind_ssc_half(
    image: Tensor,
    pairs: tuple[tuple[tuple[int, int, int], tuple[int, int, int]], ...],
    *,
    dilation: int,
    variance_range: tuple[float, float],
) -> Tensor:
    """`mind_ssc` with radius 1 followed by a 3x3x3 mean at every second voxel."""
    offsets = dilation * np.array(pairs, np.int64)
    return torch.from_numpy(
        np.stack([_one_image(i[0].contiguous().numpy(), offsets, dilation, variance_range) for i in image.detach()])
    )


def _one_image(image: Array, offsets: NDArray[np.int64], dilation: int, variance_range: tuple[float, float]) -> Array:
    shape = image.shape
    lines = np.empty((shape[0], shape[1], shape[2] + 2 * dilation), np.float32)
    run_slabs(_extend_lines, shape[0], image, lines, dilation)
    half = tuple(-(-n // 2) for n in shape)
    blocks = (-(-half[0] // BLOCK_PLANES), -(-half[1] // BLOCK_LINES))
    sums = np.zeros(blocks[0] * blocks[1])
    run_slabs(_variance_blocks, sums.size, lines, offsets, dilation, blocks[1], sums)
    typical = float(sums.sum()) / image.size
    low = np.float32(max(variance_range[0] * typical, float(np.finfo(np.float32).tiny)))
    high = np.float32(variance_range[1] * max(typical, 1e-30))
    out = np.zeros((len(offsets), *half), np.float32)
    run_slabs(_descriptor_blocks, sums.size, lines, offsets, dilation, blocks[1], low, high, out)
    return out


@kernel
def _extend_lines(image, lines, margin, first, last):
    """Copy lines (I, J, K), repeating their edge values `margin` times at both ends."""
    size = image.shape[2]
    for i in range(first, last):
        for j in range(image.shape[1]):
            lines[i, j, :margin] = image[i, j, 0]
            lines[i, j, margin + size :] = image[i, j, size - 1]
            for k in range(size):
                lines[i, j, margin + k] = image[i, j, k]


@kernel
def _variance_blocks(lines, offsets, dilation, blocks_j, sums, first, last):
    size_i, size_j, size_k = lines.shape[0], lines.shape[1], lines.shape[2] - 2 * dilation
    ssd, variance = np.empty((offsets.shape[0], size_k), np.float32), np.empty(size_k, np.float32)
    for block in range(first, last):
        i0, j0 = 2 * BLOCK_PLANES * (block // blocks_j), 2 * BLOCK_LINES * (block % blocks_j)
        i1, j1 = min(i0 + 2 * BLOCK_PLANES, size_i), min(j0 + 2 * BLOCK_LINES, size_j)
        squares = np.empty((j1 - j0 + 2, offsets.shape[0], size_k), np.float32)
        planes = np.empty((3, j1 - j0, offsets.shape[0], size_k), np.float32)
        ahead = max(i0 - 1, 0)
        total = 0.0
        for i in range(i0, i1):
            while ahead <= min(i + 1, size_i - 1):
                _distance_plane(lines, offsets, dilation, ahead, j0, j1, squares, planes[ahead % 3])
                ahead += 1
            for j in range(j0, j1):
                _distance_lines(planes, i, size_i, j - j0, ssd, variance)
                part = F(0)
                for k in range(size_k):
                    part += variance[k]
                total += part
        sums[block] = total


@kernel
def _descriptor_blocks(lines, offsets, dilation, blocks_j, low, high, out, first, last):
    size_i, size_j, size_k = lines.shape[0], lines.shape[1], lines.shape[2] - 2 * dilation
    ssd, variance = np.empty((offsets.shape[0], size_k), np.float32), np.empty(size_k, np.float32)
    pooled = np.empty((offsets.shape[0], out.shape[3]), np.float32)
    for block in range(first, last):
        x0, y0 = BLOCK_PLANES * (block // blocks_j), BLOCK_LINES * (block % blocks_j)
        x1, y1 = min(x0 + BLOCK_PLANES, out.shape[1]), min(y0 + BLOCK_LINES, out.shape[2])
        i0, j0 = max(2 * x0 - 1, 0), max(2 * y0 - 1, 0)
        i1, j1 = min(2 * x1, size_i), min(2 * y1, size_j)
        squares = np.empty((j1 - j0 + 2, offsets.shape[0], size_k), np.float32)
        planes = np.empty((3, j1 - j0, offsets.shape[0], size_k), np.float32)
        ahead = max(i0 - 1, 0)
        for i in range(i0, i1):
            while ahead <= min(i + 1, size_i - 1):
                _distance_plane(lines, offsets, dilation, ahead, j0, j1, squares, planes[ahead % 3])
                ahead += 1
            for j in range(j0, j1):
                _distance_lines(planes, i, size_i, j - j0, ssd, variance)
                _pool_descriptors(ssd, variance, low, high, pooled)
                for x in range(max(i // 2, x0), min((i + 1) // 2 + 1, x1)):
                    for y in range(max(j // 2, y0), min((j + 1) // 2 + 1, y1)):
                        share = F(1) / (_neighbours(2 * x, size_i) * _neighbours(2 * y, size_j))
                        for p in range(ssd.shape[0]):
                            target, source = out[p, x, y], pooled[p]
                            for z in range(target.size):
                                target[z] += share * source[z]


@kernel
def _pool_descriptors(ssd, variance, low, high, pooled):
    """exp(-ssd / variance) for one line, averaged along k at every second voxel."""
    for k in range(variance.size):
        variance[k] = F(1) / min(max(variance[k], low), high)
    for p in range(ssd.shape[0]):
        for k in range(variance.size):
            ssd[p, k] = exp_negative(-ssd[p, k] * variance[k])
        _halve_line(ssd[p], pooled[p])


@kernel
def _neighbours(position, size):
    """How many voxels exist among one and its two neighbours along an axis."""
    return F(1) + F(position > 0) + F(position < size - 1)


@kernel
def _halve_line(line, out):
    """Mean of every second voxel and its two neighbours."""
    size = line.size
    out[0] = F(0.5) * (line[0] + line[1])
    for z in range(1, (size - 1) // 2):
        out[z] = F(1 / 3) * (line[2 * z - 1] + line[2 * z] + line[2 * z + 1])
    z = out.size - 1
    if 2 * z == size - 1:
        out[z] = F(0.5) * (line[2 * z - 1] + line[2 * z])
    elif z > 0:
        out[z] = F(1 / 3) * (line[2 * z - 1] + line[2 * z] + line[2 * z + 1])


@kernel
def _distance_plane(lines, offsets, dilation, i, j0, j1, squares, plane):
    """plane (J', P, K): squared differences of all pairs in plane i, averaged over 3x3 voxels along j and k."""
    size_j, size_k = lines.shape[1], plane.shape[2]
    from_j, to_j = max(j0 - 1, 0), min(j1 + 1, size_j)
    for j in range(from_j, to_j):
        for p in range(offsets.shape[0]):
            _square_line(lines, offsets[p], dilation, i, j, squares[j - from_j, p])
    for j in range(j0, j1):
        before, after = max(j - 1, 0) - from_j, min(j + 1, size_j - 1) - from_j
        wb, wa, factor = F(j > 0), F(j < size_j - 1), F(1) / _neighbours(j, size_j)
        for p in range(offsets.shape[0]):
            a, b, c, target = squares[before, p], squares[j - from_j, p], squares[after, p], plane[j - j0, p]
            for k in range(size_k):
                target[k] = factor * (wb * a[k] + b[k] + wa * c[k])


@kernel
def _square_line(lines, pair, margin, i, j, out):
    """Squared difference between the two voxels of a pair around each voxel of a line, averaged along k."""
    last_i, last_j, size = lines.shape[0] - 1, lines.shape[1] - 1, out.size
    a = lines[min(max(i + pair[0, 0], 0), last_i), min(max(j + pair[0, 1], 0), last_j), margin + pair[0, 2] :]
    b = lines[min(max(i + pair[1, 0], 0), last_i), min(max(j + pair[1, 1], 0), last_j), margin + pair[1, 2] :]
    for k in range(1, size - 1):
        before, here, after = a[k - 1] - b[k - 1], a[k] - b[k], a[k + 1] - b[k + 1]
        out[k] = F(1 / 3) * (before * before + here * here + after * after)
    first, second = a[0] - b[0], a[1] - b[1]
    out[0] = F(0.5) * (first * first + second * second)
    first, second = a[size - 2] - b[size - 2], a[size - 1] - b[size - 1]
    out[size - 1] = F(0.5) * (first * first + second * second)


@kernel
def _distance_lines(planes, i, size_i, row, ssd, variance):
    """ssd (P, K): patch distances minus the smallest, for one line of plane i; variance (K): their mean."""
    before, here, after = planes[(i + 2) % 3, row], planes[i % 3, row], planes[(i + 1) % 3, row]
    factor = F(1) / _neighbours(i, size_i)
    if i == 0:
        before = after
    if i == size_i - 1:
        after = before
    # At a face one of the two neighbours is missing: the other is used twice, at half weight.
    outer = factor if 0 < i < size_i - 1 else F(0.5) * factor
    count, size_k = ssd.shape
    for p in range(count):
        a, b, c, target = before[p], here[p], after[p], ssd[p]
        for k in range(size_k):
            target[k] = factor * b[k] + outer * (a[k] + c[k])
    _subtract_smallest(ssd, variance)


@kernel
def _subtract_smallest(ssd, variance):
    """Subtract each voxel's smallest distance from all its distances; leave their mean in variance (K)."""
    count, size_k = ssd.shape
    for k in range(size_k):
        variance[k] = ssd[0, k]
    for p in range(1, count):
        for k in range(size_k):
            variance[k] = min(variance[k], ssd[p, k])
    for p in range(count):
        for k in range(size_k):
            ssd[p, k] -= variance[k]
    share = F(1) / F(count)
    for k in range(size_k):
        variance[k] = F(0)
    for p in range(count):
        for k in range(size_k):
            variance[k] += share * ssd[p, k]
