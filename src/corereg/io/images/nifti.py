"""NIfTI files as they are written: voxels under a new header, or under the geometry of another one byte for byte."""

from pathlib import Path
from typing import Any
from warnings import warn

import numpy as np
from numpy.typing import NDArray

from corereg.geometry.grid import Grid
from corereg.io.images.compression import deflating
from corereg.io.images.nifti_geometry import SPACE_UNIT_BITS, in_header_units, shear_mm
from corereg.lazy import nibabel

__all__ = ["VECTOR_INTENT", "header_of_grid", "is_nifti", "write_nifti", "write_voxels"]

BLOCK_BYTES = 2**20
"""Voxels that are brought into the file's order and compressed at a time: as many as fit into the cache."""

GEOMETRY_FIELDS = (
    *("dim", "pixdim", "xyzt_units", "qform_code", "sform_code"),
    *("quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z"),
    *("srow_x", "srow_y", "srow_z"),
)

SCANNER = 1
"""NIFTI_XFORM_SCANNER_ANAT."""

NO_EXTENSION = bytes(4)
"""What follows a header without extensions."""

LARGEST_NIFTI1_SIZE = 32767
"""Voxels along an axis: NIfTI-1 counts them in 16 bits."""

VECTOR_AXES, VECTOR_INTENT = 5, 1007
"""NIFTI_INTENT_VECTOR: with another intent ITK and ANTs read a field as something else, and do not always say so."""


def is_nifti(path: Path) -> bool:
    """Whether the name is that of a single NIfTI file, the only form that is written."""
    return path.name.lower().endswith((".nii", ".nii.gz"))


def write_nifti(path: Path, array: NDArray[Any], grid: Grid, header: Any = None, *, series: Any = None) -> None:
    """Write (I, J, K) with the geometry of `header`, byte for byte, or else with that of `grid` in sform and qform.

    NIfTI-1 is written wherever the sizes fit, because tools built on ITK do not open NIfTI-2. An array (I, J, K, 1, 3)
    is written as a field of vectors, unless it is a series. The same array always gives the same bytes.

    Args:
        series: the header of a series, which says what the further axes of an array (I, J, K, ...) mean.
    """
    new = header_of_grid(grid) if header is None else _header_like(header, array.shape)
    if series is not None:
        _declare_series(new, array.shape, series)
    elif array.ndim == VECTOR_AXES:
        _declare_vectors(new, array.shape, grid)
    if apart := shear_mm(grid.affine, grid.shape):
        warn(
            f"{path.name}: its sform is sheared (by up to {apart:.3g} mm), which tools built on ITK (3D Slicer, ANTs, "
            "SimpleITK) do not read from NIfTI; write .nrrd for them",
            stacklevel=2,
        )
    write_voxels(path, array, new)


def write_voxels(path: Path, array: NDArray[Any], header: Any) -> None:
    """Write an array under a header that says everything but its type."""
    new = header.copy()
    new.set_data_dtype(array.dtype)
    new["scl_slope"], new["scl_inter"] = 1, 0
    new["vox_offset"] = new.sizeof_hdr + len(NO_EXTENSION)
    new["descrip"] = b"corereg"
    dtype = array.dtype.newbyteorder(new.endianness)
    rows, columns, slices = array.shape[:3]
    step = max(1, BLOCK_BYTES // (rows * columns * array.itemsize))
    # nibabel's own writer would mend the header on its way out, and be slower.
    with open(path, "wb") as file, deflating(file) if path.name.lower().endswith(".gz") else file as stream:
        stream.write(new.binaryblock + NO_EXTENSION)
        for index in np.ndindex(array.shape[:2:-1]):
            volume = array[(..., *index[::-1])]
            for start in range(0, slices, step):
                stream.write(np.ascontiguousarray(volume[:, :, start : start + step].T, dtype=dtype).data)


def header_of_grid(grid: Grid) -> Any:
    """A header with the geometry of a grid in sform and qform, millimetres."""
    new = _new_header(grid.shape)
    new.set_data_shape(grid.shape)
    new.set_xyzt_units("mm")
    new.set_sform(grid.affine, SCANNER)
    new.set_qform(grid.affine, SCANNER)
    return new


def _new_header(shape: tuple[int, ...], endianness: str = "<") -> Any:
    nib = nibabel()

    header_class = nib.Nifti1Header if max(shape) <= LARGEST_NIFTI1_SIZE else nib.Nifti2Header
    return header_class(endianness=endianness)


def _header_like(header: Any, shape: tuple[int, ...]) -> Any:
    new = _new_header(shape, header.endianness)
    with np.errstate(over="ignore"):  # a form that is not set may hold anything
        for field in GEOMETRY_FIELDS:
            new[field] = header[field]
    return new


def _declare_vectors(header: Any, shape: tuple[int, ...], grid: Grid) -> None:
    header["dim"][: VECTOR_AXES + 1] = (VECTOR_AXES, *shape)
    header["pixdim"][4:6] = 1
    header["intent_code"] = VECTOR_INTENT
    # Tools differ in which of the two they read: a field must have both.
    affine = in_header_units(grid.affine, header)
    if header["sform_code"] == 0:
        header.set_sform(affine, int(header["qform_code"]) or SCANNER)
    if header["qform_code"] == 0:
        header.set_qform(affine, int(header["sform_code"]), strip_shears=True)


def _declare_series(header: Any, shape: tuple[int, ...], series: Any) -> None:
    header["dim"][: len(shape) + 1] = (len(shape), *shape)
    header["pixdim"][4:] = series["pixdim"][4:]
    header["xyzt_units"] = (int(header["xyzt_units"]) & SPACE_UNIT_BITS) | (
        int(series["xyzt_units"]) & ~SPACE_UNIT_BITS
    )
    for field in ("intent_code", "intent_name", "intent_p1", "intent_p2", "intent_p3", "toffset"):
        header[field] = series[field]
