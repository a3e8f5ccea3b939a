"""What an image must be before anything is computed from it. Each fault is reported in one line."""

import re
from typing import Any
from warnings import warn

import numpy as np
from numpy.typing import NDArray

from corereg.errors import InputError
from corereg.geometry.grid import Grid
from corereg.io.images.background import background_value

__all__ = [
    "check_contrast",
    "check_labelled",
    "check_real",
    "described",
    "finite_intensities",
    "one_line",
    "plausible_grid",
    "scalar_volume_shape",
    "smallest_integers",
    "warn_of_greys",
    "whole_numbers",
]

ITK_PREFIX = re.compile(r".*ERROR: (\w+\(0x\w+\): )?")

LABEL_DTYPES = (np.uint8, np.int16, np.int32, np.int64)
"""In order of preference. Every tool of the field reads the first three."""

LABEL_ROUNDING = 1e-3
"""How far a label may lie from its integer, where the file does not store scaled integers."""

LARGEST_STEP = 0.25
"""Scaled integers in larger steps cannot tell one label from the next."""

FEWEST_GREYS = 50
"""A grey image has at least this many values, and so have many label maps."""

SCATTER = 0.75
"""Share of neighbouring voxels that differ, of those that are not background, above which they are no structures.

Measured: 0.87 to 1 in images of all kinds, up to 0.14 in label maps; 0.5 and 0.7 in regions of 8 and of 4 voxels.
"""

FEWEST_NEIGHBOURS = 0.25
"""Pairs of neighbours for each voxel that is not background, below which nothing is said: landmarks of one voxel have
hardly any, scans about 0.7 of those that are looked at."""

FARTHEST_MM = 1e6
"""No corner of a medical image lies a kilometre from the origin."""


def one_line(error: BaseException) -> str:
    """The line of a library's message that names the cause: the first, but for ITK's, which begin with source paths."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    if not lines[0].startswith("Exception thrown in SimpleITK"):
        return lines[0]
    # Its "Reason:" is the last error of the operating system, whether or not it has to do with this one.
    causes = [line for line in lines if not line.startswith("Reason:")]
    return ITK_PREFIX.sub("", causes[-1])


def check_real(dtype: np.dtype[Any], name: str) -> None:
    """Check that each value of a file is one real number.

    Raises:
        InputError: colours, vectors, complex numbers or no numbers.
    """
    if dtype.kind not in "biuf":
        kind = {"c": "complex", "V": "colour or vector"}.get(dtype.kind, str(dtype))
        raise InputError(f"got {name} with {kind} voxels, expected one real number each; extract one component first")


def scalar_volume_shape(shape: tuple[int, ...], dtype: np.dtype[Any], name: str) -> tuple[int, int, int]:
    """The (I, J, K) of one scalar volume. Trailing axes of size 1, such as a single frame, are dropped.

    Raises:
        InputError: colour, vector or complex voxels; fewer than 3 axes or a single slice; several frames.
    """
    check_real(dtype, name)
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


def plausible_grid(shape: tuple[int, ...], affine: NDArray[np.float64], name: str) -> Grid:
    """The grid of the first three axes of an image.

    Raises:
        InputError: a singular affine, or one that no patient fits into.
    """
    if len(shape) < 3:
        raise InputError(f"got {name} of shape {shape}, expected a 3-D volume (I, J, K); give the whole scan")
    i, j, k = shape[:3]
    try:
        with np.errstate(over="ignore", invalid="ignore"):
            grid = Grid((i, j, k), affine)
            farthest = float(np.abs(grid.corners_mm()).max())
    except InputError as error:
        raise InputError(f"{name}: {error}") from None
    if not farthest < FARTHEST_MM:
        raise InputError(
            f"got {name} with a corner {farthest:.3g} mm from the origin of the world, expected a patient's place in "
            "millimetres; repair the spacing, the unit or the origin in its header"
        )
    return grid


def described(grid: Grid) -> str:
    """A grid in words, with the place of its first voxel."""
    first = ", ".join(f"{x:.4g}" for x in grid.affine[:3, 3])
    return f"{grid} from ({first})"


def check_contrast(array: NDArray[Any], name: str) -> None:
    """Check that an image holds more than one value.

    Raises:
        InputError: all voxels are alike.
    """
    low = array.min()
    if low == array.max():
        raise InputError(f"got {name}, whose voxels all equal {low:g}, expected an image with contrast; check the file")


def finite_intensities(array: NDArray[Any], name: str, modality: str | None = None) -> NDArray[Any]:
    """The array itself or a cleaned copy: native byte order, floats as float32, finite.

    Voxels that are NaN or infinite take the background's value, and a warning counts them.

    Args:
        modality: as for `background_value`.

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
            value = background_value(array[finite], modality)
            array = np.where(finite, array, np.float32(value))
            warn(f"{name}: {bad} NaN or infinite voxels were replaced by {value:g}", stacklevel=2)
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def smallest_integers(array: NDArray[Any], name: str) -> NDArray[Any]:
    """Integers, or floats of integer value, in the smallest of uint8, int16, int32 and int64 that holds them all.

    Raises:
        InputError: a value does not fit into int64.
    """
    low, high = array.min(), array.max()
    for dtype in LABEL_DTYPES:
        limits = np.iinfo(dtype)
        # In Python's integers: a float of 2^63 compares equal to the largest int64 and does not fit.
        if limits.min <= int(low) and int(high) <= limits.max:
            return array.astype(dtype, copy=False)
    raise InputError(
        f"got {name} with values from {low} to {high}, expected integers of at most 64 bits with a sign; renumber the "
        "labels"
    )


def check_labelled(array: NDArray[Any], name: str) -> None:
    """Check that a label map holds a label.

    Raises:
        InputError: every voxel is background (0).
    """
    if not array.any():
        raise InputError(f"got {name}, in which every voxel is 0, expected a label map; check the file")


def warn_of_greys(array: NDArray[Any], name: str) -> None:
    """Warn where a label map has many values that change from voxel to voxel, as those of a scan do.

    The number of values alone does not tell: parcellations and supervoxels have thousands, each a region of voxels.
    """
    if _scatter(array) >= SCATTER and (values := len(np.unique(array))) >= FEWEST_GREYS:
        warn(
            f"got {name} with {values} different values that change from voxel to voxel, as in a scan, expected a "
            "label map with one value for each structure; check the file",
            stacklevel=2,
        )


def _scatter(array: NDArray[Any]) -> float:
    """Share of pairs of neighbours that differ, where neither is 0 nor the most common value (air, as of a CT)."""
    sparse = array[::3, ::3, ::3]
    values, counts = np.unique(sparse, return_counts=True)
    counted = (array != 0) & (array != values[counts.argmax()])
    pairs = differing = 0
    for axis in range(3):
        # Every other line along each axis tells enough.
        lines, known = (np.moveaxis(each, axis, 0)[:, ::2, ::2] for each in (array, counted))
        both = known[1:] & known[:-1]
        pairs += int(both.sum())
        differing += int((both & (lines[1:] != lines[:-1])).sum())
    return differing / pairs if pairs > FEWEST_NEIGHBOURS * counted.sum() else 0.0


def whole_numbers(array: NDArray[Any], name: str, step: float = 0.0) -> NDArray[Any]:
    """The array as integers in native byte order; integer types are kept, floats close to integers are rounded.

    Args:
        step: distance between neighbouring values that the file can express: its rounding is half of that.

    Raises:
        InputError: a value is not an integer.
    """
    if array.dtype.kind == "f":
        with np.errstate(invalid="ignore"):
            nearest = np.rint(array)
            tolerance = max(LABEL_ROUNDING, 0.51 * step if step <= LARGEST_STEP else 0.0)
            broken = ~(np.abs(array - nearest) <= tolerance)
        if broken.any():
            raise InputError(
                f"got {name}, a label map of floats ({np.count_nonzero(broken)} voxels such as {array[broken][0]:g}), "
                "expected integer labels; was it resampled linearly? give the map resampled by nearest neighbour"
            )
        array = smallest_integers(nearest, name)
    if array.dtype.kind == "b":
        array = array.astype(np.uint8)
    return array.astype(array.dtype.newbyteorder("="), copy=False)
