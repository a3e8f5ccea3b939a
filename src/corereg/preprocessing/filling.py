"""Parts of a scan that only fill up its array: planes of one value at the ends of an axis, where the body is cut off.

A scan that was resampled onto the grid of another has them, and so have many MRs. Their edges would pull anatomy to
where the field of view ends, so they count nothing, and the planes next to them take their place. What the other scan
shows there is kept, since anatomy may move across the cut. So is a background around a whole body, as after skull
stripping.
"""

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from corereg.kept import kept
from corereg.preprocessing.pair import Mask, Scan

__all__ = ["without_blank_ends"]

CUT_SHARE = 0.5
"""The body is cut off where the first plane that is not blank has at least this share of the content of the fullest
plane. Where a body ends by itself, its planes fill up slowly."""


def without_blank_ends(scan: Scan) -> Scan:
    """The scan with its blank ends masked and held constant; the same object if it has none."""
    image = scan.image
    box = _box(image.array)
    if box == tuple(slice(0, n) for n in image.array.shape):
        return scan
    held, shown = kept("without blank ends", lambda: _held(image.array, box), of=(image.array,))
    return scan._replace(image=replace(image, array=held), mask=shown if scan.mask is None else shown & scan.mask)


def _held(array: NDArray[Any], box: tuple[slice, ...]) -> tuple[NDArray[Any], Mask]:
    """The array, held constant beyond the box, and the box as a mask."""
    ends = [(part.start, n - part.stop) for part, n in zip(box, array.shape, strict=True)]
    shown = np.zeros(array.shape, np.bool_)
    shown[box] = True
    return np.pad(array[box], ends, "edge"), shown


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
