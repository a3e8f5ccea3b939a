"""Compiled CPU kernel that finds the sampling positions of a line of voxels. Used by the kernels of stage 4.

Apart from the sampling itself, its loop vectorises.
"""
# mypy: disable-error-code="no-untyped-def, no-untyped-call"

import numpy as np

from corereg.geometry.kernels.threads import kernel

__all__ = ["locate"]

U, F = np.uint64, np.float32
"""Types of offsets and values. Unsigned offsets into flat arrays spare every inner loop a test for negative ones."""


@kernel
def locate(disp, shape, sampled, i, j, cell, share, free):
    """For each sampling position of one line: the voxel of its lower corner, the upper corner's share per axis, and 1
    if the position moves with the displacement, 0 beyond the edge, where it is held, and on it (as in grid_sample).

    Args:
        sampled: the shape of the sampled volume, and which of its voxels the displacement's first voxel is.
    """
    size_i, size_j, size_k = U(shape[0]), U(shape[1]), U(shape[2])
    whole, origin = sampled
    last_i, last_j, last_k = F(whole[0] - 1), F(whole[1] - 1), F(whole[2] - 1)
    cells_i, cells_j, cells_k = np.int32(whole[0] - 2), np.int32(whole[1] - 2), np.int32(whole[2] - 2)
    line_j, line_k = np.int32(whole[1]), np.int32(whole[2])
    from_i, from_j, from_k = U(origin[0]) + i, U(origin[1]) + j, U(origin[2])
    volume = size_i * size_j * size_k
    line = (i * size_j + j) * size_k
    for k in range(size_k):
        at = line + k
        x, y, z = F(from_i) + disp[at], F(from_j) + disp[at + volume], F(from_k + k) + disp[at + volume + volume]
        free[0, k] = F(1) if (x > 0) & (x < last_i) else F(0)
        free[1, k] = F(1) if (y > 0) & (y < last_j) else F(0)
        free[2, k] = F(1) if (z > 0) & (z < last_k) else F(0)
        # The order of the comparisons sends NaN to 0.
        x = min(x, last_i) if x > 0 else F(0)
        y = min(y, last_j) if y > 0 else F(0)
        z = min(z, last_k) if z > 0 else F(0)
        a, b, c = min(np.int32(x), cells_i), min(np.int32(y), cells_j), min(np.int32(z), cells_k)
        share[0, k], share[1, k], share[2, k] = x - F(a), y - F(b), z - F(c)
        cell[k] = (a * line_j + b) * line_k + c
