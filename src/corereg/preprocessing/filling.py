"""What only fills up a scan's array: planes of one value at the ends of an axis, and values that nothing measures.

A scan that was resampled onto the grid of another, or pasted into a larger canvas, has such planes, and so have many
MRs. Their edges would pull anatomy to where the field of view ends, and a canvas larger than what it shows takes time.
So a scan is registered as if they had never been added. Values such as -1000 or 32767 around an MR that was turned, or
beyond a round field of view, would be taken for contrast; they become 0.
"""

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from corereg.geometry.grid import Grid
from corereg.io.images.image import Image
from corereg.kept import kept
from corereg.preprocessing.pair import Mask

__all__ = ["CORNERS", "without_filling"]

FILLED_CORNERS = 4
"""A filling has at least this many of the array's corners. Only a value that nothing measures is taken for one, since a
background may lie far from all else that an image shows: a negative one where no other is, or one of `LARGEST`."""
LARGEST = 2**15 - 1, 2**16 - 1
"""The largest numbers of 16 bits."""
CORNERS = np.ix_((0, -1), (0, -1), (0, -1))
"""Index of the eight corner voxels of an array, (2, 2, 2)."""


def without_filling(image: Image, mask: Mask | None) -> tuple[Image, Mask | None]:
    """The image, and its mask (I, J, K), without blank ends and fill values; the same objects if there are none.

    What is left keeps its place in the world.
    """
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
    """The array with 0 in place of its fill values, if it has any and no other value is negative."""
    for extreme in (array.min(), array.max()):
        if extreme >= 0 and extreme not in LARGEST:
            continue
        if np.count_nonzero(array[CORNERS] == extreme) < FILLED_CORNERS:
            continue
        filled = array == extreme
        if not ((array < 0) & ~filled).any():
            array = np.where(filled, array.dtype.type(0), array)
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
