"""OME-Zarr images (NGFF 0.4 and 0.5): the finest level of the first multiscale image, as one volume.

A coordinate is the voxel index times the scale, plus the translation, and increases towards the side that the axis's
orientation names (RFC 4, "Coordinate Direction Convention"). So the translation of an axis from left to right counts to
the right, as ngff-zarr writes it from nibabel; from ITK it writes the LPS position there, which cannot be recognised.
Without an orientation, axes are taken as those of DICOM: x to the left, y to the back, z to the head.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from warnings import warn

import numpy as np
from numpy.typing import NDArray

from corereg.errors import InputError
from corereg.io.images.checks import one_line
from corereg.io.images.sizes import check_memory
from corereg.io.images.stored import StoredVolume
from corereg.lazy import zarr

__all__ = ["DIRECTIONS", "MM_PER_UNIT", "USUAL", "is_ome_zarr", "read_ome_zarr", "whole_array"]

SPARSEST = 1000
"""Largest number of chunks for each that is stored: empty ones need not be."""

MARKERS = (".zattrs", ".zgroup", "zarr.json")

MM_PER_UNIT = {
    **{"nanometer": 1e-6, "micrometer": 1e-3, "millimeter": 1.0, "centimeter": 10.0, "meter": 1e3},
    **{"angstrom": 1e-7, "inch": 25.4},
}

USUAL = {"x": "right-to-left", "y": "anterior-to-posterior", "z": "inferior-to-superior"}

DIRECTIONS = {
    **{"left-to-right": (0, 1), "right-to-left": (0, -1), "posterior-to-anterior": (1, 1)},
    **{"anterior-to-posterior": (1, -1), "inferior-to-superior": (2, 1), "superior-to-inferior": (2, -1)},
}
"""RAS+ axis and sign of an axis that runs from one side of the patient to the other."""


def is_ome_zarr(path: Path) -> bool:
    """Whether a folder is a Zarr group."""
    return path.is_dir() and any((path / name).is_file() for name in MARKERS)


def read_ome_zarr(path: Path) -> StoredVolume:
    """Read the finest level.

    Raises:
        InputError: zarr is not installed, or the folder holds no OME-Zarr image of one volume.
    """
    library = zarr()
    try:
        group = library.open_group(str(path), mode="r")
        attributes = dict(group.attrs)
        image = attributes.get("ome", attributes)["multiscales"][0]
        level = image["datasets"][0]
        stored = whole_array(group[level["path"]], path)
        affine, order = _placed(image, level, stored.shape, path)
    except InputError:
        raise
    except Exception as error:  # zarr raises whatever a damaged store leads it to
        raise InputError(
            f"got {path}, which cannot be read as an OME-Zarr image ({type(error).__name__}: {one_line(error)}); write "
            "it again"
        ) from None
    return StoredVolume(stored.transpose(order).reshape([stored.shape[axis] for axis in order[:3]]), affine)


def whole_array(array: Any, path: Path) -> NDArray[Any]:
    """A Zarr array, read once its size is known to be plausible. Chunks that are not there hold the fill value.

    Raises:
        InputError: it does not fit into memory, or next to none of its chunks are there.
    """
    check_memory(array.shape, array.dtype.itemsize, str(path))
    stored = array.nchunks_initialized
    if array.nchunks > SPARSEST * (stored + 1):
        raise InputError(
            f"got {path}, which is cut short or damaged ({stored} of {array.nchunks} chunks are there), expected a "
            "whole store; copy or download it again"
        )
    return np.asarray(array[...])


def _placed(
    image: Mapping[str, Any], level: Mapping[str, Any], shape: Sequence[int], path: Path
) -> tuple[NDArray[np.float64], list[int]]:
    """The voxel-to-RAS affine, and the order of the axes: x, y, z, then those of size 1."""
    axes = image["axes"]
    names = [axis["name"] for axis in axes]
    others = [at for at, name in enumerate(names) if name not in USUAL]
    if len(names) != len(shape) or set(USUAL) - set(names) or any(shape[at] != 1 for at in others):
        sizes = ", ".join(f"{name} {size}" for name, size in zip(names, shape, strict=False))
        raise InputError(f"got {path} with the axes {sizes}, expected one volume x, y, z; extract one channel first")
    scale, shift = np.ones(len(names)), np.zeros(len(names))
    for step in [*level.get("coordinateTransformations", []), *image.get("coordinateTransformations", [])]:
        if step["type"] == "scale":
            scale, shift = scale * step["scale"], shift * step["scale"]
        elif step["type"] == "translation":
            shift = shift + step["translation"]
        else:
            raise InputError(f"got {path} with a {step['type']}, expected scale and translation; resample it first")
    affine = np.eye(4)
    affine[:3, :3] = 0
    order = [names.index(name) for name in USUAL]
    if any("unit" not in axes[at] for at in order):
        warn(f"{path}: its axes have no unit; millimetres are assumed", stacklevel=2)
    stated = {at: _side(found) for at in order if (found := axes[at].get("orientation"))}
    if len(stated) < len(order):
        warn(
            f"{path}: its axes have no orientation; x to the left, y to the back, z to the head is assumed",
            stacklevel=2,
        )
    for column, at in enumerate(order):
        side = stated.get(at, USUAL[names[at]])
        if side not in DIRECTIONS:
            raise InputError(f"got {path} with an axis {side}, expected one of {', '.join(DIRECTIONS)}; correct it")
        world, sign = DIRECTIONS[side]
        mm = sign * MM_PER_UNIT[axes[at].get("unit", "millimeter")]
        affine[world, column], affine[world, 3] = mm * scale[at], mm * shift[at]
    return affine, [*order, *others]


def _side(orientation: Mapping[str, str] | str) -> str:
    """RFC 4 has an object; from nibabel, ngff-zarr writes the value alone."""
    return orientation if isinstance(orientation, str) else orientation["value"]
