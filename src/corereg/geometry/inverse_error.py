"""How well two maps of the patient undo each other, and for what share of a grid a condition holds."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from corereg.geometry.grid import Grid
from corereg.geometry.positions import linear_map, slabs, thinning
from corereg.geometry.warp import inside

__all__ = ["InverseError", "Mask", "inverse_error", "share_of"]

MEASURED_POINTS = 200_000
"""Larger grids are thinned to about this many points."""

Mask = NDArray[np.bool_]
Map = Callable[[Tensor], Tensor]
"""A function of positions (1, 3, X, Y, Z), float64 RAS+ millimetres."""


@dataclass(frozen=True, slots=True)
class InverseError:
    """|T(T^-1(q)) - q| in millimetres over points q of the moving image that have a match inside the fixed grid."""

    mean: float
    p95: float
    max: float


def inverse_error(
    transform: Map, inverse: Map, fixed: Grid, moving: Grid, *, where: Mask | None = None
) -> InverseError:
    """Measure at points half a voxel from the voxel centres along every axis, where interpolation errs most.

    Args:
        where: voxels of the moving grid that count, such as its body; None counts all.
    """
    step = thinning(moving, MEASURED_POINTS)
    thinned = moving.strided(step)
    counted = None if where is None else torch.as_tensor(where[::step, ::step, ::step].copy())[None, None]
    matrix = thinned.affine.copy()
    matrix[:3, 3] = moving.to_world([0.5 if size > 1 else 0.0 for size in moving.shape])
    errors = []
    for planes, world in slabs(Grid(thinned.shape, matrix)):
        there = inverse(world)
        back = (transform(there) - world).square().sum(1, keepdim=True).sqrt()
        matched = inside(linear_map(fixed.inverse_affine, there), fixed.shape)
        errors.append(back[matched if counted is None else matched & counted[:, :, planes]])
    error = torch.cat(errors).numpy()
    if not error.size:
        return InverseError(float("nan"), float("nan"), float("nan"))
    return InverseError(float(error.mean()), float(np.quantile(error, 0.95)), float(error.max()))


def share_of(predicate: Map, grid: Grid) -> float:
    """Share of a grid's voxels, 0 to 1, where a predicate of positions, (1, 1, X, Y, Z), is true."""
    thinned = grid.strided(thinning(grid, MEASURED_POINTS))
    found = torch.cat([predicate(world).flatten() for _, world in slabs(thinned)])
    return float(found.double().mean())
