"""What an image must be before anything is computed from it. One line for each way of not being that."""

import re
import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from corereg.errors import InputError

__all__ = [
    "clean_intensities",
    "finite_intensities",
    "integer_labels",
    "one_line",
    "scalar_volume_shape",
    "smallest_integers",
    "whole_numbers",
]

ITK_PREFIX = re.compile(r".*ERROR: (\w+\(0x\w+\): )?")

LABEL_DTYPES = (np.uint8, np.int16, np.int32)
"""In the order of preference: the integers that every tool of the field reads."""


def one_line(error: BaseException) -> str:
    """The line of a library's message that tells the cause: the first, save for ITK, which begins with source paths."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    if not lines[0].startswith("Exception thrown in SimpleITK"):
        return lines[0]
    # Its "Reason:" is the last error of the operating system, whether or not it has to do with this one.
    causes = [line for line in lines if not line.startswith("Reason:")]
    return ITK_PREFIX.sub("", causes[-1])


def scalar_volume_shape(shape: tuple[int, ...], dtype: np.dtype[Any], name: str) -> tuple[int, int, int]:
    """The (I, J, K) of one scalar volume. Trailing axes of size 1, such as a single frame, are dropped.

    Raises:
        InputError: colour, vector or complex voxels; fewer than 3 axes or a single slice; several frames.
    """
    if dtype.kind not in "biuf":
        kind = "complex" if dtype.kind == "c" else "colour or vector"
        raise InputError(f"got {name} with {kind} voxels, expected one real number each; extract one component first")
    frames = shape[3:]
    if any(n != 1 for n in frames):
        raise InputError(
            f"got {name}, {len(shape)}-D of shape {shape}, expected one 3-D volume; extract one frame first"
        )
    if len(shape) < 3 or min(shape[:3]) < 2:
        raise InputError(
            f"got {name}, a 2-D image or single slice of shape {shape}, expected a 3-D volume of at least 2 voxels "
            "along each axis; give the whole scan"
        )
    return int(shape[0]), int(shape[1]), int(shape[2])


def clean_intensities(array: NDArray[Any], name: str) -> NDArray[Any]:
    """As `finite_intensities`, for an image with contrast.

    Raises:
        InputError: no finite voxel, or all voxels alike.
    """
    array = finite_intensities(array, name)
    low = array.min()
    if low == array.max():
        raise InputError(f"got {name}, whose voxels all equal {low:g}, expected an image with contrast; check the file")
    return array


def finite_intensities(array: NDArray[Any], name: str) -> NDArray[Any]:
    """The array itself or a cleaned copy: native byte order, floats as float32, finite.

    Voxels that are NaN or infinite take the minimum of the others, and a warning tells how many they were.

    Raises:
        InputError: no finite voxel.
    """
    if array.dtype.kind == "f":
        with np.errstate(over="ignore"):
            array = array.astype(np.float32, copy=False)
        finite = np.isfinite(array)
        bad = finite.size - int(np.count_nonzero(finite))
        if bad == finite.size:
            raise InputError(f"got {name} without a single finite voxel, expected an image; export it again")
        if bad:
            floor = array[finite].min()
            array = np.where(finite, array, floor)
            warnings.warn(f"{name}: {bad} NaN or infinite voxels replaced by the minimum, {floor:g}", stacklevel=2)
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def smallest_integers(array: NDArray[Any], name: str) -> NDArray[Any]:
    """Integers, or floats of integer value, in the smallest of uint8, int16 and int32 that holds them all.

    Raises:
        InputError: a value does not fit in int32.
    """
    low, high = array.min(), array.max()
    for dtype in LABEL_DTYPES:
        if np.iinfo(dtype).min <= low and high <= np.iinfo(dtype).max:
            return array.astype(dtype, copy=False)
    raise InputError(
        f"got {name} with values from {low} to {high}, expected integers of at most 32 bits; renumber the labels"
    )


def integer_labels(array: NDArray[Any], name: str) -> NDArray[Any]:
    """As `whole_numbers`, for a map with a label in it.

    Raises:
        InputError: a value is not an integer, or every voxel is background (0).
    """
    array = whole_numbers(array, name)
    if not array.any():
        raise InputError(f"got {name}, in which every voxel is 0, expected a label map; check the file")
    return array


def whole_numbers(array: NDArray[Any], name: str) -> NDArray[Any]:
    """The array as integers in native byte order; integer types are kept, floats of integer value are cast.

    Raises:
        InputError: a value is not an integer.
    """
    if array.dtype.kind == "f":
        with np.errstate(invalid="ignore"):
            broken = array != np.rint(array)
        broken |= ~np.isfinite(array)
        if broken.any():
            raise InputError(
                f"got {name}, a label map of floats ({np.count_nonzero(broken)} voxels such as {array[broken][0]:g}), "
                "expected integer labels; was it resampled linearly? give the map resampled by nearest neighbour"
            )
        array = smallest_integers(array, name)
    if array.dtype.kind == "b":
        array = array.astype(np.uint8)
    return array.astype(array.dtype.newbyteorder("="), copy=False)
