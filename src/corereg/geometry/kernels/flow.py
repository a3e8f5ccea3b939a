"""Compiled CPU kernel of the diffeomorphic refinement: the adjoint of composing a displacement with itself.

Legend: I J K axes; arrays are flat, C-contiguous float32; component a of a displacement is its a-th third.
"""
# mypy: disable-error-code="no-untyped-def, no-untyped-call"

import numpy as np
import torch
from torch import Tensor

from corereg.geometry.kernels.sample import cell_of
from corereg.geometry.kernels.threads import kernel, run_slabs

__all__ = ["squaring_adjoint"]

F = np.float32


def squaring_adjoint(disp_vox: Tensor, gradient: Tensor) -> Tensor:
    """The gradient, with respect to u, of a function of u(x) + u(x + u(x)), given its gradient g with respect to that:

        g(x) + sum_c g_c(x) grad u_c(x + u(x)) + what the interpolation at x + u(x) read from each voxel.

    Args:
        disp_vox, gradient: (B, 3, I, J, K), at least 2 voxels along each axis. Beyond the edge u is held constant, so
            its slope there is 0.
    """
    shape = np.array(disp_vox.shape[2:])
    out = gradient.detach().clone(memory_format=torch.contiguous_format)
    sources = (t.detach().contiguous().numpy().reshape(len(t), -1) for t in (disp_vox, gradient))
    for disp, given, into in zip(*sources, out.numpy().reshape(len(out), -1), strict=True):
        run_slabs(_add_slopes, int(shape[0]), disp, given, into, shape)
        # Voxels read from other slabs here, but components never read from one another.
        run_slabs(_scatter_components, 3, disp, given, into, shape)
    return out


@kernel
def _locate(disp, at, i, j, k, size_i, size_j, size_k):
    """The cell that voxel (i, j, k), flat index `at`, reads: its lower corner, and the weight of the upper per axis."""
    volume = size_i * size_j * size_k
    a, wi = cell_of(F(i) + disp[at], F(size_i - 1), np.int32(size_i - 2))
    b, wj = cell_of(F(j) + disp[at + volume], F(size_j - 1), np.int32(size_j - 2))
    c, wk = cell_of(F(k) + disp[at + 2 * volume], F(size_k - 1), np.int32(size_k - 2))
    return (a * size_j + b) * size_k + c, wi, wj, wk


@kernel
def _free(position, size):
    """1 where the position moves with the displacement, 0 on the edge and beyond it."""
    return F(1) if (position > 0) & (position < size - 1) else F(0)


@kernel
def _add_slopes(disp, given, out, shape, first, last):
    size_i, size_j, size_k = shape
    volume = size_i * size_j * size_k
    for i in range(first, last):
        for j in range(size_j):
            for k in range(size_k):
                at = (i * size_j + j) * size_k + k
                cell, wi, wj, wk = _locate(disp, at, i, j, k, size_i, size_j, size_k)
                gi = gj = gk = F(0)
                for n in range(3):
                    corner = n * volume + cell
                    upper = corner + size_j * size_k
                    v00, k00 = disp[corner], disp[corner + 1] - disp[corner]
                    v01, k01 = disp[corner + size_k], disp[corner + size_k + 1] - disp[corner + size_k]
                    v10, k10 = disp[upper], disp[upper + 1] - disp[upper]
                    v11, k11 = disp[upper + size_k], disp[upper + size_k + 1] - disp[upper + size_k]
                    v00, v01, v10, v11 = v00 + wk * k00, v01 + wk * k01, v10 + wk * k10, v11 + wk * k11
                    g = given[n * volume + at]
                    gi += g * (v10 - v00 + wj * (v11 - v10 - v01 + v00))
                    gj += g * (v01 - v00 + wi * (v11 - v10 - v01 + v00))
                    low = k00 + wj * (k01 - k00)
                    gk += g * (low + wi * (k10 + wj * (k11 - k10) - low))
                out[at] += _free(F(i) + disp[at], size_i) * gi
                out[at + volume] += _free(F(j) + disp[at + volume], size_j) * gj
                out[at + 2 * volume] += _free(F(k) + disp[at + 2 * volume], size_k) * gk


@kernel
def _scatter_components(disp, given, out, shape, first, last):
    size_i, size_j, size_k = shape
    volume = size_i * size_j * size_k
    for n in range(first, last):
        for i in range(size_i):
            for j in range(size_j):
                for k in range(size_k):
                    at = (i * size_j + j) * size_k + k
                    cell, wi, wj, wk = _locate(disp, at, i, j, k, size_i, size_j, size_k)
                    corner = n * volume + cell
                    upper = corner + size_j * size_k
                    g = given[n * volume + at]
                    low, high = (F(1) - wi) * g, wi * g
                    out[corner] += low * (F(1) - wj) * (F(1) - wk)
                    out[corner + 1] += low * (F(1) - wj) * wk
                    out[corner + size_k] += low * wj * (F(1) - wk)
                    out[corner + size_k + 1] += low * wj * wk
                    out[upper] += high * (F(1) - wj) * (F(1) - wk)
                    out[upper + 1] += high * (F(1) - wj) * wk
                    out[upper + size_k] += high * wj * (F(1) - wk)
                    out[upper + size_k + 1] += high * wj * wk
