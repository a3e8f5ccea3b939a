"""What the formats share. Each counts positions in a frame of its own, defined by a matrix from RAS+ millimetres."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from corereg.errors import InputError
from corereg.geometry.chain import Part, check_matrix, check_offsets, parts_of_field, through
from corereg.geometry.displacement import Displacement
from corereg.geometry.grid import Matrix
from corereg.geometry.positions import inverse_matrix, linear_map, slabs
from corereg.io.transforms.formats.stored import Located, StoredTransform, grid_of

__all__ = [
    "WORLD",
    "is_matrix",
    "offsets",
    "one_matrix",
    "read_matrix",
    "stored_field",
    "stored_offsets",
    "warp_and_affine",
]

WORLD: Matrix = np.eye(4)
"""The frame of a format that counts in RAS+ millimetres."""

LARGEST_MATRIX_BYTES = 10_000
"""Sixteen numbers take a few hundred."""


def offsets(stored: StoredTransform, fixed_frame: Matrix, moving_frame: Matrix) -> NDArray[np.float32]:
    """(I, J, K, 3): how far the match of each voxel of the fixed grid lies from it, each counted in its own frame.

    Args:
        fixed_frame, moving_frame: (4, 4), RAS+ millimetres to the frame of positions on the fixed and moving image.
    """
    grid = stored.fixed_grid
    found = np.empty((*grid.shape, 3), dtype=np.float32)
    for planes, world in slabs(grid):
        apart = linear_map(moving_frame, through(stored.parts, world)) - linear_map(fixed_frame, world)
        found[planes] = apart[0].permute(1, 2, 3, 0).numpy()
    return found


def stored_offsets(
    values: NDArray[Any], fixed: Located, moving: Located | None, frames: tuple[Matrix, Matrix], path: Path
) -> StoredTransform:
    """The transform whose `offsets` in these frames are `values`, (I, J, K, 3).

    Raises:
        InputError: the values have another shape, or are not finite.
    """
    grid = grid_of(fixed, "fixed", path)
    if values.shape != (*grid.shape, 3):
        raise InputError(
            f"got {path} of shape {values.shape}, expected {(*grid.shape, 3)} for the fixed grid; give its own image"
        )
    if not np.isfinite(values).all():
        raise InputError(f"got {path} with NaN or infinite offsets, expected a whole field; make it again")
    try:
        check_offsets(values, "in the unit of the file")
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    fixed_frame, back = frames[0], inverse_matrix(frames[1])
    total_mm = np.empty((3, *grid.shape), dtype=np.float32)
    for planes, world in slabs(grid):
        there = torch.as_tensor(np.moveaxis(values[planes], -1, 0).astype(np.float64))[None]
        total_mm[:, planes] = (linear_map(back, linear_map(fixed_frame, world) + there) - world)[0].numpy()
    return stored_field(total_mm, fixed, moving)


def stored_field(total_mm: NDArray[np.float32], fixed: Located, moving: Located | None) -> StoredTransform:
    """The transform T given by T(p) - p at the voxels p of the fixed grid: (3, I, J, K), RAS+ millimetres."""
    return StoredTransform(parts_of_field(total_mm, grid_of(fixed, "fixed")), fixed, moving)


def warp_and_affine(stored: StoredTransform) -> tuple[tuple[Part, ...], Matrix]:
    """The parts up to the last displacement, and the product of the matrices that follow it."""
    first = len(stored.parts)
    while first and not isinstance(stored.parts[first - 1], Displacement):
        first -= 1
    affine: Matrix = np.eye(4)
    for matrix in stored.parts[first:]:
        affine = np.asarray(matrix) @ affine
    return stored.parts[:first], affine


def one_matrix(stored: StoredTransform, path: Path) -> Matrix:
    """The product of all parts, for a format of matrices.

    Raises:
        InputError: a part is a displacement.
    """
    warp, affine = warp_and_affine(stored)
    if warp:
        raise InputError(
            f"got a transform with a displacement for {path}, which holds a matrix alone; add --only affine, or choose "
            "another format"
        )
    return affine


def is_matrix(path: Path) -> bool:
    """Whether a file is the text of a 4x4 matrix."""
    try:
        read_matrix(path)
    except InputError:
        return False
    return True


def read_matrix(path: Path) -> Matrix:
    """The text of a 4x4 matrix.

    Raises:
        InputError: it is something else, or singular.
    """
    rows: list[list[float]] = []
    with suppress(OSError, ValueError):
        if path.stat().st_size < LARGEST_MATRIX_BYTES:
            lines = path.read_text("latin-1").splitlines()
            rows = [[float(word) for word in line.split()] for line in lines if line.strip()]
    if [len(row) for row in rows] != [4, 4, 4, 4]:
        raise InputError(f"got {path}, expected a text file of a 4x4 matrix; check the file")
    matrix = np.array(rows)
    try:
        check_matrix(matrix)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    return matrix
