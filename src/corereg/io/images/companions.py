"""Label maps and masks beside the image that they belong to: whether they lie on it, and how they come to its voxels.

Voxels stored along other axes than the image's are turned, exactly. Upstream: image. Downstream: everything that takes
a label map or a mask together with an image.
"""

from dataclasses import replace
from typing import Any

import numpy as np

from corereg.errors import InputError
from corereg.geometry.grid import HEADER_TOLERANCE_MM, Grid
from corereg.io.images.arrays import as_array, is_array
from corereg.io.images.checks import described, scalar_volume_shape
from corereg.io.images.image import Image, opened

__all__ = ["as_mask", "laid_on", "turned"]


def turned(companion: Image, like: Grid) -> Image:
    """The same voxels along the array axes of a grid that has them all; anything else as it is."""
    if companion.grid.close_to(like, HEADER_TOLERANCE_MM):
        return companion
    turn = companion.grid.turn_to(like, HEADER_TOLERANCE_MM)
    if turn is None:
        return companion
    order, backwards = turn
    array = companion.array.transpose(order)[tuple(slice(None, None, -1 if each else 1) for each in backwards)]
    return replace(companion, array=np.ascontiguousarray(array), grid=like, header=None)


def laid_on(companion: Image, like: Grid, *, what: str, of: str, trusted: bool = False, cure: str = "") -> Image:
    """A companion of an image, voxel by voxel.

    Args:
        like, of: grid and name of the image.
        what: what messages call the companion.
        trusted: take the image's grid where the companion's own differs, if both have the same size.
        cure: what to do where the header alone is wrong, for the message.

    Raises:
        InputError: it has other voxels than the image.
    """
    found = turned(companion, like)
    if found.grid.close_to(like, HEADER_TOLERANCE_MM):
        return found
    same_size = found.grid.shape == like.shape
    if trusted and same_size:
        return replace(found, grid=like, header=None)
    # Taken as they are, voxels along other axes would be mirrored or permuted.
    offered = cure if same_size and found.grid.orientation == like.orientation else ""
    raise InputError(
        f"got {what} {found.name} of {described(found.grid)}, expected the grid of {of}: {described(like)}; resample "
        f"it onto that image{offered}"
    )


def as_mask(mask: Any, *, like: Grid, of: str) -> Image:
    """Make a mask, a boolean array that is true where the voxels are greater than 0, of whatever `as_image` takes.

    Args:
        mask: may also be a bare array or tensor of the image's shape.
        like: the grid of the image that it belongs to, whose voxels its own must be, along whichever axes.
        of: the name of that image, for messages.

    Raises:
        InputError: as for `as_image`; or on another grid, or empty.
    """
    if is_array(mask):
        mask = as_array(mask)
        if mask.shape != like.shape:
            raise InputError(
                f"got a mask array of shape {mask.shape}, expected that of {of}: {like.shape}; give an array with one "
                "value for each voxel of the image"
            )
        mask = Image(mask, like, name="the mask array")
    located, step = opened(mask, labels=True, like=like)
    scalar_volume_shape(located.array.shape, located.array.dtype, located.name)
    inside = replace(located, array=located.array > step / 2)
    if not inside.array.any():
        raise InputError(
            f"got the mask {located.name}, which is empty, expected voxels greater than 0; leave it out or redraw it"
        )
    return laid_on(inside, like, what="the mask", of=of)
