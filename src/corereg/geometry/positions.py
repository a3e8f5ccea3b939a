"""Positions in the patient, many at a time: a grid's voxels slab by slab, matrices applied, maps fitted to them.

Positions are (1, 3, X, Y, Z), float64 RAS+ millimetres.
"""

import math
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from corereg.geometry.grid import Grid, Matrix
from corereg.geometry.warp import affine_coords

__all__ = ["as_points", "as_positions", "fitted_affine", "inverse_matrix", "linear_map", "slabs", "thinning"]

SLAB_VOXELS = 2**22
"""Voxels worked on at a time: bounds the memory that positions take."""

FIT_POINTS = 20_000
"""Grid points to which the affine part of a field is fitted."""


def as_positions(points_mm: NDArray[np.float64]) -> Tensor:
    """(1, 3, N, 1, 1) of points (..., 3)."""
    return torch.as_tensor(points_mm.reshape(-1, 3).T.copy())[None, :, :, None, None]


def as_points(positions: Tensor) -> NDArray[np.float64]:
    """(N, 3) of what `as_positions` gave."""
    return np.asarray(positions[0, :, :, 0, 0].T.numpy())


def linear_map(matrix: Matrix, positions: Tensor) -> Tensor:
    """Positions through a (4, 4) matrix."""
    matrix_t = torch.as_tensor(np.array(matrix)).to(positions)
    return torch.einsum("ac,bcxyz->baxyz", matrix_t[:3, :3], positions) + matrix_t[:3, 3].view(1, 3, 1, 1, 1)


def inverse_matrix(matrix: Matrix) -> Matrix:
    """The matrix that leads back."""
    return np.asarray(np.linalg.inv(matrix), dtype=np.float64)


def slabs(grid: Grid) -> Iterator[tuple[slice, Tensor]]:
    """World positions of a grid's voxels, slab by slab along i: which voxels of i, and their positions."""
    step = max(1, SLAB_VOXELS // (grid.shape[1] * grid.shape[2]))
    for start in range(0, grid.shape[0], step):
        stop = min(start + step, grid.shape[0])
        matrix = grid.affine.copy()
        matrix[:3, 3] = grid.to_world((start, 0, 0))
        like = torch.empty(0, dtype=torch.float64)
        yield slice(start, stop), affine_coords((stop - start, *grid.shape[1:]), matrix, like=like)


def thinning(grid: Grid, points: int) -> int:
    """Stride at which a grid keeps about so many of its voxels."""
    return max(1, int(np.rint(np.cbrt(math.prod(grid.shape) / points))))


def fitted_affine(total_mm: NDArray[np.float32], grid: Grid) -> Matrix:
    """The affine map (4, 4) closest to p + d(p) over the grid, or the identity where no invertible one is near."""
    step = thinning(grid, FIT_POINTS)
    picked = tuple(slice(None, None, min(step, max(1, n // 2))) for n in grid.shape)
    index = np.stack(
        np.meshgrid(*(np.arange(n)[s] for n, s in zip(grid.shape, picked, strict=True)), indexing="ij"), -1
    )
    start = grid.to_world(index.reshape(-1, 3))
    end = start + total_mm[(slice(None), *picked)].reshape(3, -1).T
    centre = start.mean(0)
    design = np.c_[start - centre, np.ones(len(start))]
    solution = np.linalg.lstsq(design, end - centre, rcond=None)[0].T
    affine = np.eye(4)
    affine[:3, :3] = solution[:, :3]
    affine[:3, 3] = solution[:, 3] + centre - solution[:, :3] @ centre
    return affine if np.linalg.det(affine[:3, :3]) > 0 else np.eye(4)
