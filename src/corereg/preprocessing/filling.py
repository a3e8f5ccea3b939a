"""What only fills up a scan's array: planes of one value at the ends of an axis, and a value far from all others.

A scan that was resampled onto the grid of another, or pasted into a larger canvas, has such planes, and so have many
MRs. Their edges would pull anatomy to where the field of view ends, and a canvas larger than what it shows takes time.
So a scan is registered as if they had never been added. Values such as -1000 or 32767 around an MR that was turned, or
beyond a round field of view, would be taken for contrast; they become the smallest of the others.
"""

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from corereg.geometry.grid import Grid
from corereg.io.images.image import Image
from corereg.kept import kept
from corereg.preprocessing.pair import Mask

__all__ = ["without_filling"]

FILLED_CORNERS, FILL_GAP = 4, 0.25
"""A lowest or highest value is a filling if at least this many of the array's corners have it, and if it lies farther
from the next value than this share of the range of all others."""
CORNERS = np.ix_((0, -1), (0, -1), (0, -1))


def without_filling(image: Image, mask: Mask | None) -> tuple[Image, Mask | None]:
    """The image, and its mask, without blank ends and fill values; the same objects if there are none."""
    box = _box(image.array)
    whole = box == tuple(slice(0, n) for n in image.array.shape)
    part = image.array if whole else image.array[box]
    array = kept("without filling", lambda: _unfilled(part), of=(image.array,))
    if whole:
        return (image if array is image.array else replace(image, array=array)), mask
    affine = image.grid.affine.copy()
    affine[:3, 3] = image.grid.to_world([part.start for part in box])
    i, j, k = array.shape
    shown = replace(image, array=array, grid=Grid((i, j, k), affine), header=None)
    return shown, None if mask is None else mask[box]


def _unfilled(array: NDArray[Any]) -> NDArray[Any]:
    """The array with its fill values, if it has any, replaced by the smallest of the others."""
    for extreme in (array.min(), array.max()):
        if np.count_nonzero(array[CORNERS] == extreme) < FILLED_CORNERS:
            continue
        filled = array == extreme
        others = array[~filled]
        low, high = (others.min(), others.max()) if others.size else (extreme, extreme)
        # As floats, since differences of integers may overflow.
        gap = max(float(low) - float(extreme), float(extreme) - float(high))
        if gap > FILL_GAP * (float(high) - float(low)) > 0:
            array = np.where(filled, low, array)
    return array


def _box(array: NDArray[Any]) -> tuple[slice, ...]:
    """The part between the blank ends. Those of one axis can hide those of another until they are gone."""
    box = tuple(slice(0, n) for n in array.shape)
    while True:
        ends = [_ends(np.moveaxis(array[box], axis, 0)) for axis in range(3)]
        if not any(map(any, ends)):
            return box
        axis = next(axis for axis in range(3) if any(ends[axis]))
        first, last = ends[axis]
        shown = slice(box[axis].start + first, box[axis].stop - last)
        box = tuple(shown if a == axis else part for a, part in enumerate(box))


def _ends(planes: NDArray[Any]) -> tuple[int, int]:
    return _blank(planes), _blank(planes[::-1])


def _blank(planes: NDArray[Any]) -> int:
    """How many planes at the start only fill up the array."""
    value = planes[0].flat[0]
    if not (planes[0] == value).all():
        return 0
    return int(np.argmax([np.any(plane != value) for plane in planes]))
