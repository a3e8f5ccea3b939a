"""3x3x3 convolutions with stride 1 on the CPU, by Winograd's minimal filtering with a sixth of the products.

A tile of 2x4x4 outputs depends on 4x6x6 inputs. Both are transformed axis by axis, y = A [(G w) * (B d)], so that 144
products, one per transformed value, replace 864; for each value, the tiles are multiplied by a matrix of channels.
Source: S. Winograd, Arithmetic Complexity of Computations (1980); A. Lavin, S. Gray, Fast Algorithms for Convolutional
Neural Networks (2016); F(2, 3) along i and F(4, 3) along j and k.

Legend: C channels in, D channels out, I J K axes; P transformed values of a tile; arrays are float32, channels-last,
flat inside.
"""
# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from corereg.geometry.kernels.simd import COLUMNS, LANES, ROWS, WIDE, work_space
from corereg.geometry.kernels.simd_loops import copy_known, finish_plane, multiply_rows, transform_line, transform_plane
from corereg.geometry.kernels.threads import inlined_kernel, kernel, run_slabs

__all__ = ["Transformed", "convolve", "suits", "transform_weight"]

Array = NDArray[np.float32]

FILTER_2 = np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]])
INPUT_2 = np.array([[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1.0]])
OUTPUT_2 = np.array([[1, 1, 1, 0], [0, 1, -1, -1.0]])
"""F(2, 3): two outputs of three taps from four products, at the points 0, 1, -1 and infinity."""

SIXTH, TWELFTH = 1 / 6, 1 / 12
FILTER_4 = np.array(
    [
        [1 / 4, 0, 0],
        [-SIXTH, -SIXTH, -SIXTH],
        [-SIXTH, SIXTH, -SIXTH],
        [TWELFTH / 2, TWELFTH, SIXTH],
        [TWELFTH / 2, -TWELFTH, SIXTH],
        [0, 0, 1],
    ]
)
INPUT_4 = np.array(
    [
        [4, 0, -5, 0, 1, 0],
        [0, -4, -4, 1, 1, 0],
        [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0],
        [0, 2, -1, -2, 1, 0],
        [0, 4, 0, -5, 0, 1.0],
    ]
)
OUTPUT_4 = np.array([[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1.0]])
"""F(4, 3): four outputs of three taps from six products, at the points 0, 1, -1, 2, -2 and infinity."""

STEP_I, STEP = OUTPUT_2.shape[0], OUTPUT_4.shape[0]
"""Outputs of a tile along i, and along j and k."""
REACH_I, REACH = INPUT_2.shape[0], INPUT_4.shape[0]
"""Inputs of a tile."""
PLANE = REACH * REACH
PRODUCTS = REACH_I * PLANE

WORK_BYTES = 3 << 19
"""Size of a thread's transformed tiles: what fits into its cache along with the weights."""

_input_plane, _input_line = transform_plane(INPUT_4), transform_line(INPUT_2)
_output_plane, _output_line = finish_plane(OUTPUT_4), transform_line(OUTPUT_2)


class Transformed(NamedTuple):
    """A convolution's weights in the form the products take."""

    weight: Array
    """(D / COLUMNS, P, C, COLUMNS)."""
    bias: Array
    """(D,)."""
    channels: tuple[int, ...]
    """One entry per input channel, so that the compiler knows their number from the tuple's type."""


def suits(weight: Tensor, stride: int) -> bool:
    """Whether these kernels can compute a convolution with weights (D, C, 3, 3, 3)."""
    out, channels = weight.shape[:2]
    return WIDE and stride == 1 and channels % LANES == 0 and out % COLUMNS == 0


def transform_weight(weight: Tensor, bias: Tensor) -> Transformed:
    """G w along each axis, in float64."""
    out, channels = weight.shape[:2]
    matrix = torch.from_numpy(np.kron(FILTER_2, np.kron(FILTER_4, FILTER_4)))
    products = matrix @ weight.detach().double().flatten(2).permute(2, 1, 0).flatten(1)
    blocks = products.float().view(PRODUCTS, channels, out // COLUMNS, COLUMNS).permute(2, 0, 1, 3)
    return Transformed(blocks.contiguous().numpy().reshape(-1), bias.detach().numpy(), (0,) * channels)


def convolve(layer: Transformed, source: Array, out: Array, *, origin: int, first: int, floor: float) -> None:
    """Planes of a convolution whose input is zero beyond its edges.

    Args:
        source: (I, J, K, C), planes of the input, from plane `origin` of the whole input. Any further planes that are
            needed must lie outside the whole input.
        out: (X, J, K, D), receives the planes of the output, from plane `first` of the whole output.
        floor: lower bound of the output: 0 applies a ReLU, -inf nothing.
    """
    tiles = [-(-n // step) for n, step in zip(out.shape, (STEP_I, STEP, STEP), strict=False)]
    channels = len(layer.channels)
    block = max(WORK_BYTES // (4 * PRODUCTS * (channels + COLUMNS) * ROWS), 1)
    shapes = source.shape[:3], out.shape, tuple(tiles)
    run_slabs(
        _convolve_tiles, tiles[0] * tiles[1] * tiles[2],
        source.reshape(-1), layer, np.float32(floor), out.reshape(-1), shapes, first - origin - 1, block,
    )  # fmt: skip


@kernel
def _convolve_tiles(source, layer, floor, out, shapes, shift, block, first, last):
    weight, bias, channels = layer
    shape, out_shape, tiles = shapes
    count_in, count_out = len(channels), out_shape[3]
    apart, sums_apart = ROWS * count_in + LANES, ROWS * COLUMNS + LANES
    per_rows, sums_per_rows = PRODUCTS * apart, PRODUCTS * sums_apart
    patch, planes = work_space(PRODUCTS * LANES), work_space(PRODUCTS * LANES)
    values, sums = work_space(block * per_rows), work_space(block * sums_per_rows)
    if first < last:
        values[:] = 0  # the last block multiplies its unused rows as well
    for start in range(first, last, block * ROWS):
        count = min(block * ROWS, last - start)
        blocks = (count + ROWS - 1) // ROWS
        for t in range(count):
            to = t // ROWS * per_rows + t % ROWS * count_in
            i, j, k = _corner(start + t, tiles)
            _transform_input(source, shape, count_in, (i + shift, j - 1, k - 1), patch, planes, values, to, apart)
        for d in range(0, count_out, COLUMNS):
            for p in range(PRODUCTS):
                factors = (d * PRODUCTS + p * COLUMNS) * count_in
                ahead = factors + count_in * COLUMNS
                for n in range(blocks):
                    at = n * per_rows + p * apart
                    following = at + per_rows if n + 1 < blocks else (p + 1) * apart
                    to = n * sums_per_rows + p * sums_apart
                    multiply_rows(values, at, channels, weight, factors, sums, to, following, ahead)
            for t in range(count):
                at = t // ROWS * sums_per_rows + t % ROWS * COLUMNS
                corner = _corner(start + t, tiles)
                _transform_output(sums, at, sums_apart, planes, patch, bias, d, floor, out, out_shape, corner)


@inlined_kernel
def _corner(tile, tiles):
    """The first output of a tile."""
    row, k = divmod(tile, tiles[2])
    i, j = divmod(row, tiles[1])
    return i * STEP_I, j * STEP, k * STEP


@inlined_kernel
def _transform_input(source, shape, channels, corner, patch, planes, values, to, apart):
    """Compute a tile's transformed values, stored `apart` from one to the next.

    Args:
        corner: the tile's first input, which may lie outside.
    """
    i, j, k = corner
    inside = i >= 0 and j >= 0 and k >= 0
    inside = inside and i + REACH_I <= shape[0] and j + REACH <= shape[1] and k + REACH <= shape[2]
    step_j, step_i = shape[2] * channels, shape[1] * shape[2] * channels
    at = i * step_i + j * step_j + k * channels
    for c in range(0, channels, LANES):
        if not inside:
            _fill_patch(source, shape, channels, corner, c, patch)
        for n in range(REACH_I):
            to_plane = n * PLANE * LANES
            if inside:
                _input_plane(source, at + n * step_i + c, step_j, channels, planes, to_plane, REACH * LANES, LANES)
            else:
                _input_plane(patch, to_plane, REACH * LANES, LANES, planes, to_plane, REACH * LANES, LANES)
        for p in range(PLANE):
            _input_line(planes, p * LANES, PLANE * LANES, values, to + p * apart + c, PLANE * apart)


@inlined_kernel
def _fill_patch(source, shape, channels, corner, c, patch):
    """Copy the inputs of a tile at the edge, with zeros beyond it."""
    for n in range(PRODUCTS):
        row, dk = divmod(n, REACH)
        di, dj = divmod(row, REACH)
        i, j, k = corner[0] + di, corner[1] + dj, corner[2] + dk
        known = 0 <= i < shape[0] and 0 <= j < shape[1] and 0 <= k < shape[2]
        at = ((i * shape[1] + j) * shape[2] + k) * channels + c
        copy_known(source, at, known, patch, n * LANES)


@inlined_kernel
def _transform_output(sums, at, apart, planes, tile, bias, d, floor, out, shape, corner):
    """Compute a tile's outputs from its sums, which lie `apart` from one to the next; drop outputs beyond the edge."""
    channels = shape[3]
    step_j = shape[2] * channels
    inside = corner[1] + STEP <= shape[1] and corner[2] + STEP <= shape[2]
    for c in range(0, COLUMNS, LANES):
        for p in range(PLANE):
            _output_line(sums, at + p * apart + c, PLANE * apart, planes, p * LANES, PLANE * LANES)
        for i in range(min(STEP_I, shape[0] - corner[0])):
            to = (((corner[0] + i) * shape[1] + corner[1]) * shape[2] + corner[2]) * channels + d + c
            source = i * PLANE * LANES
            if inside:
                _output_plane(planes, source, REACH * LANES, LANES, out, to, step_j, channels, bias, d + c, floor)
                continue
            _output_plane(planes, source, REACH * LANES, LANES, tile, 0, STEP * LANES, LANES, bias, d + c, floor)
            for j in range(min(STEP, shape[1] - corner[1])):
                for k in range(min(STEP, shape[2] - corner[2])):
                    copy_known(tile, (j * STEP + k) * LANES, True, out, to + j * step_j + k * channels)
