"""A starting transform: the moving scan is placed where it leads, and the registration continues from there.

Upstream: a transform of any format. Downstream: the pre-alignment and the stages, which see the placed scan.
"""

import os
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from corereg.errors import InputError
from corereg.geometry.chain import Part, inverse_parts
from corereg.geometry.displacement import Displacement
from corereg.geometry.grid import Grid
from corereg.geometry.positions import as_points, as_positions
from corereg.geometry.resample import resample
from corereg.io.images.background import background_value
from corereg.io.images.image import Image
from corereg.io.transforms.transform import Transform
from corereg.preprocessing.pair import Scan
from corereg.preprocessing.working_grid import shrink

__all__ = ["check_overlap", "deforms", "initial_transform", "placed", "placed_labels"]

CHECKED = 24
"""Positions along each axis at which the overlap is checked."""

CPU = torch.device("cpu")


def initial_transform(initial: object, fixed: Image, moving: Image) -> Transform:
    """The transform to start from, which leads from this fixed to this moving image.

    Args:
        initial: a path, a Transform, a (4, 4) matrix of RAS+ millimetres, or None for the identity.

    Raises:
        InputError: it is not a transform, or the images do not overlap after it.
    """
    if initial is None:
        return Transform((), fixed=fixed, moving=moving)
    if isinstance(initial, Transform):
        transform, name = initial, "the initial transform"
    elif isinstance(initial, np.ndarray):
        transform, name = Transform((np.asarray(initial, np.float64),), fixed=fixed), "the initial matrix"
    elif isinstance(initial, str | os.PathLike):
        transform, name = Transform.load(os.fspath(initial), fixed=fixed, moving=moving), f"the initial {initial}"
    else:
        raise InputError(f"got {type(initial).__name__} as the initial transform, expected a path or a Transform")
    transform = replace(transform, fixed=fixed, moving=moving)
    check_overlap(transform, fixed, moving, f"expected an overlap after {name}; give the transform of this pair")
    return transform


def check_overlap(transform: Transform, fixed: Image, moving: Image, expected: str) -> None:
    """Check that a transform sends some of the fixed image into the moving one.

    Raises:
        InputError: all of it arrives outside, or meets a displacement only beyond that displacement's grid.
    """
    steps = [np.unique(np.linspace(0, n - 1, min(n, CHECKED))) for n in fixed.grid.shape]
    index = np.stack(np.meshgrid(*steps, indexing="ij"), -1).reshape(-1, 3)
    positions = as_positions(fixed.grid.to_world(index))
    arrived = moving.grid.to_voxel(as_points(transform.moved(positions)))
    inside = ((arrived >= -0.5) & (arrived <= np.array(moving.grid.shape) - 0.5)).all(1)
    if not (inside & ~transform.beyond(positions).numpy().reshape(-1)).any():
        raise InputError(f"got {fixed.name} and {moving.name}, which do not overlap in world coordinates, {expected}")


def deforms(transform: Transform) -> bool:
    """Whether it is more than an affine map."""
    return any(isinstance(part, Displacement) for part in transform.parts)


def placed(scan: Scan, initial: Transform, working: Grid) -> Scan:
    """The moving scan where a starting transform puts it in the fixed image's world.

    After affine maps it keeps its voxels and gets another grid. After a displacement it is resampled onto the working
    grid, and only voxels with data count.
    """
    if not deforms(initial):
        return scan._replace(image=_located(scan.image, initial.parts)) if initial.parts else scan
    image, outside = scan.image, background_value(scan.image.array, scan.image.modality)
    volume, grid = shrink(image.array, image.grid, min(working.spacing), device=CPU)
    array = resample(volume[0, 0].numpy(), grid, working, initial.parts, interpolation="linear", outside=outside)
    counted = np.ones(image.array.shape, np.uint8) if scan.mask is None else scan.mask.astype(np.uint8)
    seen = resample(counted, image.grid, working, initial.parts, interpolation="nearest", outside=0.0)
    return scan._replace(image=replace(image, array=array, grid=working, header=None), mask=seen > 0)


def placed_labels(labels: Image, initial: Transform, working: Grid) -> Image:
    """A label map of the moving scan where a starting transform puts it, as `placed` does."""
    if not deforms(initial):
        return _located(labels, initial.parts)
    array = resample(labels.array, labels.grid, working, initial.parts, interpolation="nearest", labels=True)
    return replace(labels, array=array, grid=working, header=None)


def _located(image: Image, matrices: Sequence[Part]) -> Image:
    affine = image.grid.affine
    for matrix in inverse_parts(matrices):
        assert not isinstance(matrix, Displacement)
        affine = matrix @ affine
    return replace(image, grid=Grid(image.grid.shape, affine), header=None)
