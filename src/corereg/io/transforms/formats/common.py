"""What the formats share. Each counts positions in a frame of its own, which a matrix from RAS+ millimetres defines."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from corereg.errors import InputError
from corereg.geometry.grid import Grid, Matrix
from corereg.geometry.positions import inverse_matrix, linear_map, slabs
from corereg.io.images.checks import one_line
from corereg.io.images.image import Image
from corereg.io.images.nifti import mm_affine
from corereg.io.transforms.transform import Transform
from corereg.lazy import nibabel

__all__ = ["WORLD", "Located", "grid_of", "grid_of_nifti", "load_nifti", "offsets", "transform_of"]

Located = Image | Grid

WORLD: Matrix = np.eye(4)
"""The frame of a format that counts in RAS+ millimetres."""


def grid_of(image: Located | None, name: str, of: object) -> Grid:
    """The grid of the fixed or moving image.

    Raises:
        InputError: None, for a format that cannot do without.
    """
    if image is None:
        raise InputError(
            f"got {of} without the {name} image, expected it, since the file lacks its grid; add --{name} IMAGE"
        )
    return image if isinstance(image, Grid) else image.grid


def offsets(transform: Transform, fixed_frame: Matrix, moving_frame: Matrix) -> NDArray[np.float32]:
    """(I, J, K, 3): how far the match of each voxel of the fixed grid lies from it, each counted in its own frame.

    Args:
        fixed_frame, moving_frame: (4, 4), RAS+ millimetres to the frame of positions on the fixed and moving image.
    """
    grid = transform.fixed_grid
    found = np.empty((*grid.shape, 3), dtype=np.float32)
    for where, world in slabs(grid):
        apart = linear_map(moving_frame, transform.moved(world)) - linear_map(fixed_frame, world)
        found[where] = apart[0].permute(1, 2, 3, 0).numpy()
    return found


def transform_of(
    values: NDArray[Any],
    fixed: Located,
    moving: Located | None,
    frames: tuple[Matrix, Matrix],
    path: Path,
) -> Transform:
    """The transform whose `offsets` in these frames are `values`, (I, J, K, 3).

    Raises:
        InputError: values of another shape, or that are not finite.
    """
    grid = grid_of(fixed, "fixed", path)
    if values.shape != (*grid.shape, 3):
        raise InputError(
            f"got {path} of shape {values.shape}, expected {(*grid.shape, 3)} for the fixed grid; give its own image"
        )
    if not np.isfinite(values).all():
        raise InputError(f"got {path} with NaN or infinite offsets, expected a whole field; make it again")
    fixed_frame, back = frames[0], inverse_matrix(frames[1])
    total_mm = np.empty((3, *grid.shape), dtype=np.float32)
    for where, world in slabs(grid):
        stored = torch.as_tensor(np.moveaxis(values[where], -1, 0).astype(np.float64))[None]
        total_mm[:, where] = (linear_map(back, linear_map(fixed_frame, world) + stored) - world)[0].numpy()
    return Transform.from_field(total_mm, fixed, moving)


def load_nifti(path: Path, expected: str) -> tuple[NDArray[Any], Any]:
    """Values and image of a NIfTI file.

    Raises:
        InputError: cannot be read.
    """
    try:
        image = nibabel().load(path)
        return np.asanyarray(image.dataobj), image
    except Exception as error:  # nibabel raises a dozen kinds, all of which mean the same to the user
        raise InputError(
            f"got {path}, which cannot be read ({one_line(error)}), expected {expected}; copy or export it again"
        ) from None


def grid_of_nifti(image: Any) -> Grid:
    """The grid of a NIfTI image's first three axes."""
    i, j, k = image.shape[:3]
    return Grid((i, j, k), mm_affine(image))
