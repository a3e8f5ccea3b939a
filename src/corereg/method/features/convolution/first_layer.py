"""The first convolution on the CPU, 3x3x3 with stride 2 on one channel, at which general convolutions are slow.

Legend: D channels out, I J K axes; arrays are float32, channels-last, flat inside.
"""
# mypy: disable-error-code="no-untyped-def, no-untyped-call"

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from corereg.geometry.kernels.simd import COLUMNS, ROWS, WIDE, work_space
from corereg.geometry.kernels.simd_loops import multiply_rows
from corereg.geometry.kernels.threads import kernel, run_slabs

__all__ = ["convolve", "suits", "transform_weight"]

Array = NDArray[np.float32]

STRIDE = 2
TAPS = (0,) * 28
"""One entry per weight, plus one for the bias: their number is part of the tuple's type."""


def suits(weight: Tensor, stride: int) -> bool:
    """Whether this kernel can compute a convolution with weights (D, C, 3, 3, 3)."""
    out, channels = weight.shape[:2]
    return WIDE and stride == STRIDE and channels == 1 and out % COLUMNS == 0


def transform_weight(weight: Tensor, bias: Tensor) -> Array:
    """(D / COLUMNS, 28, COLUMNS), flat: the weights in the order of use, followed by the bias."""
    columns = torch.cat([weight.detach().flatten(1), bias.detach()[:, None]], 1)
    blocks: Array = columns.reshape(-1, COLUMNS, len(TAPS)).mT.contiguous().numpy()
    return blocks.reshape(-1)


def convolve(weight: Array, source: Array, out: Array, *, origin: int, first: int, floor: float) -> None:
    """Planes of the convolution; see `winograd.convolve`.

    Args:
        source: (I, J, K, 1).
        out: (X, Y, Z, D), receives the result.
    """
    shapes, shift = (source.shape[:3], out.shape), STRIDE * first - origin - 1
    run_slabs(
        _convolve_lines, out.shape[0] * out.shape[1],
        source.reshape(-1), weight, np.float32(floor), out.reshape(-1), shapes, shift,
    )  # fmt: skip


@kernel
def _convolve_lines(source, weight, floor, out, shapes, shift, first, last):
    shape, out_shape = shapes
    channels = out_shape[3]
    padded = shape[2] + STRIDE * ROWS + 2
    lines, taps, found = work_space(9 * padded), work_space(ROWS * len(TAPS)), work_space(ROWS * COLUMNS)
    taps[:] = 1
    for line in range(first, last):
        i, j = divmod(line, out_shape[1])
        _gather_lines(source, shape, STRIDE * i + shift, STRIDE * j - 1, lines, padded)
        for start in range(0, out_shape[2], ROWS):
            for r in range(ROWS):
                for n in range(9):
                    at, to = n * padded + STRIDE * (start + r), r * len(TAPS) + 3 * n
                    for t in range(3):
                        taps[to + t] = lines[at + t]
            for d in range(0, channels, COLUMNS):
                multiply_rows(taps, 0, TAPS, weight, d * len(TAPS), found, 0, 0, 0)
                for r in range(min(ROWS, out_shape[2] - start)):
                    to = (line * out_shape[2] + start + r) * channels + d
                    for c in range(COLUMNS):
                        out[to + c] = max(found[r * COLUMNS + c], floor)


@kernel
def _gather_lines(source, shape, i, j, lines, padded):
    """Copy the nine image lines that a line of outputs depends on, with zeros beyond the edges."""
    lines[:] = 0
    for n in range(9):
        a, b = i + n // 3, j + n % 3
        if a < 0 or a >= shape[0] or b < 0 or b >= shape[1]:
            continue
        at, to = (a * shape[1] + b) * shape[2], n * padded + 1
        for k in range(shape[2]):
            lines[to + k] = source[at + k]
