"""Many positions in the patient at a time: the voxels of a grid slab by slab, matrices applied to them or fitted.

Positions are (1, 3, X, Y, Z), float64 RAS+ millimetres.
"""

import math
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from corereg.errors import InputError
from corereg.geometry.grid import Grid, Matrix, Points
from corereg.geometry.warp import affine_coords

__all__ = [
    "as_points",
    "as_positions",
    "finite_points",
    "fitted_affine",
    "inverse_matrix",
    "linear_map",
    "moving_offsets_vox",
    "slabs",
    "thinning",
]

SLAB_VOXELS = 2**22
"""Voxels processed at a time: bounds the memory that their positions take."""

FIT_POINTS = 20_000
"""Grid points used to fit the affine part of a field."""


LEAST_VOLUME = 1e-6
"""Volume ratio below which an affine map fitted to a field is not used: its inverse would magnify rounding errors."""


def finite_points(points_mm: Points | Tensor) -> NDArray[np.float64]:
    """Points (..., 3) of a user as float64.

    Raises:
        InputError: no array of real numbers, another last dimension, or a coordinate is masked, NaN or infinite.
    """
    try:
        given = np.asanyarray(points_mm.detach().cpu() if isinstance(points_mm, Tensor) else points_mm)
    except ValueError:  # rows of unequal lengths
        given = None
    if given is None or given.dtype.kind not in "iuf":
        raise InputError(
            "got points that are no array of real numbers, expected (..., 3) in RAS+ millimetres; convert them"
        )
    points = np.ma.filled(given.astype(np.float64), np.nan)
    if points.shape[-1:] != (3,):
        raise InputError(f"got points of shape {points.shape}, expected (..., 3) in RAS+ millimetres; transpose them")
    if not np.isfinite(points).all():
        bad = int((~np.isfinite(points)).any(-1).sum())
        raise InputError(
            f"got {bad} points with NaN, infinite or masked coordinates, expected finite ones; leave those out"
        )
    return points


def as_positions(points_mm: NDArray[np.float64]) -> Tensor:
    """Points (..., 3) as positions (1, 3, N, 1, 1)."""
    return torch.as_tensor(points_mm.reshape(-1, 3).T.copy())[None, :, :, None, None]


def as_points(positions: Tensor) -> NDArray[np.float64]:
    """Positions (1, 3, N, 1, 1) as points (N, 3): undoes `as_positions`."""
    return np.asarray(positions[0, :, :, 0, 0].T.numpy())


def linear_map(matrix: Matrix | Tensor, positions: Tensor) -> Tensor:
    """Apply a (4, 4) matrix to positions (B, 3, X, Y, Z) in any frame; the result has their type and device."""
    matrix_t = (matrix if isinstance(matrix, Tensor) else torch.as_tensor(np.array(matrix))).to(positions)
    return torch.einsum("ac,bcxyz->baxyz", matrix_t[:3, :3], positions) + matrix_t[:3, 3].view(1, 3, 1, 1, 1)


def inverse_matrix(matrix: Matrix) -> Matrix:
    """The inverse of a (4, 4) matrix."""
    return np.asarray(np.linalg.inv(matrix), dtype=np.float64)


def slabs(grid: Grid) -> Iterator[tuple[slice, Tensor]]:
    """Yield a grid's voxels slab by slab along i: the range of i, and the world positions of its voxels."""
    step = max(1, SLAB_VOXELS // (grid.shape[1] * grid.shape[2]))
    for start in range(0, grid.shape[0], step):
        stop = min(start + step, grid.shape[0])
        matrix = grid.affine.copy()
        matrix[:3, 3] = grid.to_world((start, 0, 0))
        like = torch.empty(0, dtype=torch.float64)
        yield slice(start, stop), affine_coords((stop - start, *grid.shape[1:]), matrix, like=like)


def thinning(grid: Grid, points: int) -> int:
    """The stride at which a grid keeps about `points` of its voxels."""
    return max(1, int(np.rint(np.cbrt(math.prod(grid.shape) / points))))


def fitted_affine(total_mm: NDArray[np.float32], grid: Grid) -> Matrix:
    """The affine map (4, 4) closest to p + d(p) over the grid, or the identity if that map is not invertible.

    Across a grid of a single voxel along some axis, where d says nothing, the map leaves distances as they are.
    """
    step = thinning(grid, FIT_POINTS)
    picked = tuple(slice(None, None, min(step, max(1, n // 2))) for n in grid.shape)
    index = np.stack(
        np.meshgrid(*(np.arange(n)[s] for n, s in zip(grid.shape, picked, strict=True)), indexing="ij"), -1
    )
    start = grid.to_world(index.reshape(-1, 3))
    end = start + total_mm[(slice(None), *picked)].reshape(3, -1).T
    centre = start.mean(0)
    design = np.c_[start - centre, np.ones(len(start))]
    if min(grid.shape) > 1:
        solution = np.linalg.lstsq(design, end - centre, rcond=None)[0].T
    else:
        # Of all maps that fit equally well, the one whose displacement changes least.
        solution = np.linalg.lstsq(design, end - start, rcond=None)[0].T + np.eye(3, 4)
    affine = np.eye(4)
    affine[:3, :3] = solution[:, :3]
    affine[:3, 3] = solution[:, 3] + centre - solution[:, :3] @ centre
    return affine if np.linalg.det(affine[:3, :3]) > LEAST_VOLUME else np.eye(4)


def moving_offsets_vox(own_vox: NDArray[np.float64], fixed: Grid, moving: Grid) -> NDArray[np.float64]:
    """A displacement (3, I, J, K) in voxels of its own fixed grid as offsets u into the moving grid's indices.

    Index x of the fixed grid corresponds to index x + u(x) of the moving grid.
    """
    matrix = fixed.to_voxels_of(moving)
    index = np.indices(fixed.shape, np.float64)
    there = np.einsum("ac,cijk->aijk", matrix[:3, :3], index + own_vox) + matrix[:3, 3].reshape(3, 1, 1, 1)
    return np.asarray(there - index)
