"""Parts of a scan that only fill up its array: planes of one value at the ends of an axis, where the body is cut off.

A scan that was resampled onto the grid of another has them, and so have many MRs. They count as outside the field of
view: as images, their edges would pull anatomy to where the field of view ends. A background around the body, as after
skull stripping, is kept.
"""

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from corereg.geometry.grid import Grid
from corereg.io.images.image import Image
from corereg.kept import kept
from corereg.preprocessing.pair import Scan

__all__ = ["without_blank_ends"]

CUT_SHARE = 0.5
"""The body is cut off where the first plane that is not blank has at least this share of the content of the fullest
plane. Where a body ends by itself, its planes fill up slowly."""


def without_blank_ends(scan: Scan) -> Scan:
    """The scan limited to where it shows something; the same object if that is everywhere."""
    image = scan.image
    box = _box(image.array)
    if box == tuple(slice(0, n) for n in image.array.shape):
        return scan
    shown = kept(("without blank ends", image.grid), lambda: _cropped(image, box), of=(image.array,))
    return scan._replace(image=shown, mask=None if scan.mask is None else scan.mask[box])


def _cropped(image: Image, box: tuple[slice, ...]) -> Image:
    affine = image.grid.affine.copy()
    affine[:3, 3] = image.grid.to_world([part.start for part in box])
    array = image.array[box]
    i, j, k = array.shape
    return replace(image, array=array, grid=Grid((i, j, k), affine), header=None)


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
    """How many planes at the start are blank."""
    value = planes[0].flat[0]
    if not (planes[0] == value).all():
        return 0
    content = np.array([np.count_nonzero(plane != value) for plane in planes])
    first = int((content > 0).argmax())
    return first if content[first] >= CUT_SHARE * max(content.max(), 1) else 0
