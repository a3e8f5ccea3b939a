"""Displacement fields in files that 3D Slicer, ANTs and ITK open: vector images in LPS millimetres."""

from pathlib import Path
from typing import Any
from warnings import warn

import numpy as np
from numpy.typing import NDArray

from corereg.errors import InputError
from corereg.geometry.grid import Grid
from corereg.io.atomic import atomic_path
from corereg.io.images.checks import plausible_grid
from corereg.io.images.image import ITK_SUFFIXES, Image
from corereg.io.images.itk import LPS_SIGNS, itk_reader, read_itk_image, vectors_of_sitk, write_itk
from corereg.io.images.nifti import VECTOR_INTENT, is_nifti, write_nifti
from corereg.io.images.nifti_geometry import shear_mm, upright, warn_of_doubtful_geometry
from corereg.io.images.nifti_reader import open_nifti

__all__ = ["FIELD_SUFFIXES", "field_grid", "read_displacement_field", "write_displacement_field"]

FIELD_SUFFIXES = (".nii.gz", ".nii", *ITK_SUFFIXES)

EXPECTED = "a displacement field (.nii, .nii.gz, .nrrd, .mha, .mhd) with three components in LPS millimetres"
CURE = "write it again as an ITK displacement field"


def field_grid(path: Path, fixed: Image | Grid) -> Image | Grid:
    """The grid on which a field for `fixed` is written to `path`: its own, if ITK reads that from such a file.

    ITK does not read a sheared grid from NIfTI, so a grid with perpendicular axes that covers it is taken there.
    """
    grid = fixed if isinstance(fixed, Grid) else fixed.grid
    if not is_nifti(path) or not shear_mm(grid.affine, grid.shape):
        return fixed
    covering = upright(grid)
    warn(
        f"{path.name}: the fixed grid is sheared, which tools built on ITK do not read from NIfTI, so the field is "
        f"written on a grid that covers it: {covering}; save .h5 or .nrrd to keep the grid",
        stacklevel=2,
    )
    return covering


def write_displacement_field(path: Path, disp_mm: NDArray[np.float32], fixed: Image | Grid) -> None:
    """Write offsets (3, I, J, K) in RAS+ millimetres on the grid of `fixed`. The file appears when it is complete.

    Raises:
        InputError: the extension is unknown, or the folder is missing or not writable.
    """
    grid, header = (fixed, None) if isinstance(fixed, Grid) else (fixed.grid, fixed.header)
    lps = np.moveaxis(disp_mm, 0, -1) * LPS_SIGNS
    if is_nifti(path):
        with atomic_path(path) as staged:
            write_nifti(staged, lps[:, :, :, None, :], grid, header)
    elif path.suffix.lower() in ITK_SUFFIXES:
        with atomic_path(path) as staged:
            write_itk(staged, lps, grid)
    else:
        raise InputError(f"got the output {path}, expected a name ending in .nii.gz, .nii, .nrrd or .mha; rename it")


def read_displacement_field(path: Path) -> tuple[NDArray[np.float32], Image | Grid]:
    """Offsets (3, I, J, K) in RAS+ millimetres, and their grid (for NIfTI, as an image with its header).

    Raises:
        InputError: the file is missing, unreadable, without three components per voxel, not declared as vectors, or
            not finite.
    """
    if not path.is_file():
        raise InputError(f"got {path}, which is no file, expected {EXPECTED}; check the path")
    lps, grid, header = _read_nifti(path) if is_nifti(path) else _read_itk(path)
    if not np.isfinite(lps).all():
        raise InputError(f"got {path} with NaN or infinite offsets, expected {EXPECTED}; make it again")
    disp_mm = np.ascontiguousarray(np.moveaxis(lps.astype(np.float32) * LPS_SIGNS, -1, 0))
    if header is None:
        return disp_mm, grid
    header["dim"] = (3, *grid.shape, 1, 1, 1, 1)
    nothing = np.broadcast_to(np.uint8(0), grid.shape)
    return disp_mm, Image(nothing, grid, header, str(path))


def _read_nifti(path: Path) -> tuple[NDArray[Any], Grid, Any]:
    file = open_nifti(path)
    values, intent = file.read(), int(file.header["intent_code"])
    if values.ndim != 5 or values.shape[3:] != (1, 3):
        raise InputError(f"got {path} of shape {values.shape}, expected shape (I, J, K, 1, 3): {EXPECTED}; {CURE}")
    if intent != VECTOR_INTENT:
        raise InputError(
            f"got {path} with NIfTI intent {intent}, expected {VECTOR_INTENT} (vector): other tools would misread it; "
            "write it again with the right intent"
        )
    warn_of_doubtful_geometry(file.header, file.shape, str(path))
    return values[:, :, :, 0, :], file.grid, file.header.copy() if file.usual_form else None


def _read_itk(path: Path) -> tuple[NDArray[Any], Grid, Any]:
    image = read_itk_image(itk_reader(path))
    if image.GetDimension() != 3 or image.GetNumberOfComponentsPerPixel() != 3:
        raise InputError(
            f"got {path} with {image.GetDimension()} axes and {image.GetNumberOfComponentsPerPixel()} components, "
            f"expected {EXPECTED}; {CURE}"
        )
    values, affine = vectors_of_sitk(image)
    return values, plausible_grid(values.shape, affine, str(path)), None
