"""Label maps and masks beside the image that they belong to: whether they lie on it, and how they come to its voxels.

Voxels stored along other axes than the image's are turned, exactly. What is compared with the image voxel by voxel is
laid on its grid; what will be resampled anyway stays on a grid of its own. Upstream: image. Downstream: everything that
takes a label map or a mask together with an image.
"""

from dataclasses import replace
from typing import Any, TypedDict
from warnings import warn

import numpy as np
from typing_extensions import Unpack

from corereg.errors import InputError
from corereg.geometry.grid import HEADER_TOLERANCE_MM, Grid
from corereg.geometry.resample import resample
from corereg.io.images.arrays import as_array, is_array
from corereg.io.images.checks import described, scalar_volume_shape
from corereg.io.images.image import Image, opened

__all__ = ["as_mask", "beside", "laid_on", "turned"]


class Options(TypedDict, total=False):
    """Further arguments of `beside`."""

    other: Grid | None
    trusted: bool
    cure: str


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


def beside(
    companion: Image,
    like: Grid,
    *,
    what: str,
    of: str,
    other: Grid | None = None,
    trusted: bool = False,
    cure: str = "",
) -> Image:
    """A companion in the space of its image: turned to the image if it has its voxels, on a grid of its own if not.

    Args:
        like, of: grid and name of the image.
        what: what messages call the companion.
        other: grid of the other image of a pair, whose companions are not to be mistaken for this one's.
        trusted: take the image's grid where the companion's own differs, if both have the same size.
        cure: what to do where the header alone is wrong, for the message.

    Raises:
        InputError: it lies outside the image, or on the other one's voxels; or it has as many voxels in other places,
            as after a wrong header.
    """
    found = turned(companion, like)
    if found.grid.close_to(like, HEADER_TOLERANCE_MM):
        return found
    if trusted and found.grid.shape == like.shape:
        return replace(found, grid=like, header=None)
    if sorted(found.grid.shape) == sorted(like.shape):
        # Taken as they are, voxels along other axes would be mirrored or permuted.
        offered = cure if found.grid.orientation == like.orientation else ""
        raise InputError(
            f"got {what} {found.name} of {described(found.grid)}, expected the grid of {of}: {described(like)}; "
            f"resample it onto that image{offered}"
        )
    if other is not None and turned(companion, other).grid.close_to(other, HEADER_TOLERANCE_MM):
        raise InputError(
            f"got {what} {found.name} on the voxels of the other image, {other}, expected one of {of}: "
            f"{described(like)}; give each image its own"
        )
    if not found.grid.overlaps(like):
        raise _elsewhere(found, like, what, of)
    return found


def laid_on(companion: Image, like: Grid, *, what: str, of: str, **options: Unpack[Options]) -> Image:
    """A companion on the voxels of its image, resampled by nearest neighbour from a grid of its own, with a warning.

    Args:
        companion: integers or booleans.
        like, what, of, **options: as `beside` takes them.

    Raises:
        InputError: as `beside`, or where nothing of it lies in the image.
    """
    found = beside(companion, like, what=what, of=of, **options)
    if found.grid.close_to(like, HEADER_TOLERANCE_MM):
        return found
    values = found.array.astype(np.uint8) if found.array.dtype == bool else found.array
    array = resample(values, found.grid, like, (), interpolation="nearest", labels=True)
    if not array.any():
        raise _elsewhere(found, like, what, of)
    warn(
        f"{what} {found.name} lies on a grid of its own, {found.grid}, and was resampled onto that of {of}, {like}, by "
        "nearest neighbour",
        stacklevel=2,
    )
    return replace(found, array=array.astype(found.array.dtype, copy=False), grid=like, header=None)


def _elsewhere(found: Image, like: Grid, what: str, of: str) -> InputError:
    return InputError(
        f"got {what} {found.name} of {described(found.grid)}, which marks nothing of {of}: {described(like)}; expected "
        "one in the space of that image, so draw it there or correct its header"
    )


def as_mask(mask: Any, *, like: Grid, of: str, other: Grid | None = None) -> Image:
    """Make a mask, a boolean array that is true where the voxels are greater than 0, of whatever `as_image` takes.

    Args:
        mask: may also be a bare array or tensor of the image's shape.
        like: the grid of the image that it belongs to, onto which it is laid.
        of: the name of that image, for messages.
        other: as `beside` takes it.

    Raises:
        InputError: as for `as_image` and `laid_on`; or empty.
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
    return laid_on(inside, like, what="the mask", of=of, other=other)
