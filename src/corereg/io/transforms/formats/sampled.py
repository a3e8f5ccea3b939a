"""Transforms that are neither linear nor a field, such as B-splines, sampled to become displacements."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from corereg.geometry.chain import Part, offsets_mm, through
from corereg.geometry.displacement import Displacement
from corereg.geometry.grid import Grid, Matrix
from corereg.geometry.positions import fitted_affine, linear_map, slabs
from corereg.io.images.itk import LPS_RAS, LPS_SIGNS, vectors_of_sitk
from corereg.io.transforms.formats.stored import Located, grid_of
from corereg.lazy import simpleitk

__all__ = ["displacement_of_lps", "sampled"]

LARGEST_GROWTH = 2
"""How many times longer than the fixed grid an axis of the sampled grid may become."""


def sampled(transform: Any, before: Sequence[Part], fixed: Located | None, name: object) -> Displacement:
    """A SimpleITK transform as a displacement, sampled where the voxels of the fixed grid arrive.

    Args:
        before: the parts that a point passes first. They carry the fixed grid along: matrices exactly, displacements by
            the affine map closest to them, with a grid large enough for every voxel's position.
        fixed: image or grid that the whole chain resamples onto.
        name: what messages call the file.

    Raises:
        InputError: `fixed` is missing.
    """
    grid = _where_voxels_arrive(before, grid_of(fixed, "fixed", name))
    sitk, lps = simpleitk(), LPS_RAS @ grid.affine
    origin, spacing = lps[:3, 3].tolist(), np.array(grid.spacing)
    direction = (lps[:3, :3] / spacing).ravel().tolist()
    size = [int(n) for n in grid.shape]
    field = sitk.TransformToDisplacementField(
        transform, sitk.sitkVectorFloat64, size, origin, spacing.tolist(), direction
    )
    return displacement_of_lps(vectors_of_sitk(field)[0], grid)


def displacement_of_lps(lps: NDArray[Any], grid: Grid) -> Displacement:
    """The displacement of vectors (I, J, K, 3) in LPS millimetres on a grid."""
    disp_mm = torch.as_tensor(np.moveaxis(lps * LPS_SIGNS, -1, 0).astype(np.float32))
    return Displacement.from_mm(disp_mm, grid)


def _where_voxels_arrive(before: Sequence[Part], fixed: Grid) -> Grid:
    if not before:
        return fixed
    matrix: Matrix = np.eye(4)
    if any(isinstance(part, Displacement) for part in before):
        matrix = fitted_affine(offsets_mm(before, fixed), fixed)
    else:
        for part in before:
            matrix = np.asarray(part) @ matrix
        return Grid(fixed.shape, matrix @ fixed.affine)
    carried = Grid(fixed.shape, matrix @ fixed.affine)
    low, high = np.zeros(3), np.array(fixed.shape) - 1.0
    for _, world in slabs(fixed):
        coords = linear_map(carried.inverse_affine, through(before, world))[0].flatten(1)
        low = np.minimum(low, coords.amin(1).numpy())
        high = np.maximum(high, coords.amax(1).numpy())
    limit = LARGEST_GROWTH * np.array(fixed.shape)
    low, high = np.floor(np.maximum(low, -limit)), np.ceil(np.minimum(high, limit))
    affine = carried.affine.copy()
    affine[:3, 3] = carried.to_world(low)
    i, j, k = (int(n) for n in high - low + 1)
    return Grid((i, j, k), affine)
