"""Sizes that a header declares: checked against the file and the memory before anything is allocated."""

import math
from collections.abc import Sequence

import psutil

from corereg.errors import InputError
from corereg.io.images.compression import LARGEST_RATIO

__all__ = ["check_compressed_size", "check_memory", "check_stored_size"]

GIGABYTE = 1e9


def check_memory(shape: Sequence[int], itemsize: int, name: str) -> int:
    """Return the bytes of an array, which must fit into the free memory.

    Raises:
        InputError: it does not, or an axis has no voxels.
    """
    if not shape or min(shape) < 1:
        raise InputError(f"got {name} of shape {tuple(shape)}, expected at least one voxel along each axis; check it")
    needed, free = math.prod(shape) * itemsize, psutil.virtual_memory().available
    if needed > free:
        size = " x ".join(map(str, shape))
        raise InputError(
            f"got {name}, whose header declares {size} voxels ({needed / GIGABYTE:.3g} GB), expected an image that "
            f"fits into the free memory ({free / GIGABYTE:.3g} GB); check the header, or crop or resample the image"
        )
    return needed


def check_stored_size(needed: int, there: int, name: str) -> None:
    """Check that a file holds as many bytes as its header declares.

    Raises:
        InputError: it is too short.
    """
    if there < needed:
        raise InputError(
            f"got {name}, which is cut short or damaged ({there} of {needed} bytes are there), expected a whole file; "
            "copy or download it again"
        )


def check_compressed_size(needed: int, there: int, name: str) -> None:
    """Check that a compressed file can hold as many bytes as its header declares.

    Raises:
        InputError: deflate cannot compress that well.
    """
    if needed > (there + 1) * LARGEST_RATIO:
        raise InputError(
            f"got {name}, which is cut short or damaged ({there} compressed bytes cannot hold the {needed} bytes that "
            "the header declares), expected a whole file; copy or download it again"
        )
