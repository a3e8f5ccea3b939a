"""FSL: fields of FNIRT, NIfTI (I, J, K, 3) of intent 2006 on the reference (fixed) image's grid; matrices of FLIRT.

FSL counts in millimetres from the first voxel: voxel index times spacing, with the first axis reversed if the
voxel-to-world matrix has a positive determinant. A field is either relative (the match minus the voxel's own position)
or absolute (the match itself); nothing in the file says which. fnirt and convertwarp write relative ones by default. A
matrix is a text file, and leads from the input (moving) image to the reference.
"""

from functools import reduce
from pathlib import Path

import numpy as np

from corereg.errors import InputError
from corereg.geometry.displacement import Displacement
from corereg.geometry.grid import Grid, Matrix
from corereg.geometry.positions import inverse_matrix
from corereg.io.atomic import atomic_path
from corereg.io.images.nifti import header_of_grid, is_nifti, write_voxels
from corereg.io.images.nifti_reader import open_nifti
from corereg.io.transforms.formats.common import offsets, read_matrix, stored_offsets
from corereg.io.transforms.formats.stored import Located, StoredTransform, grid_of

__all__ = ["FSL_INTENTS", "MATRIX_SUFFIX", "read_fsl", "write_fsl"]

FIELD_INTENT = 2006
"""FSL_FNIRT_DISPLACEMENT_FIELD."""

COEFFICIENT_INTENTS = (2007, 2008, 2009)
"""FSL_CUBIC_SPLINE_COEFFICIENTS, FSL_DCT_COEFFICIENTS, FSL_QUADRATIC_SPLINE_COEFFICIENTS."""

MATRIX_SUFFIX = ".mat"

FSL_INTENTS = (FIELD_INTENT, *COEFFICIENT_INTENTS)


def write_fsl(path: Path, stored: StoredTransform) -> None:
    """Write a relative field for `applywarp --rel`, or to .mat the matrix of an affine transform as FLIRT does.

    Raises:
        InputError: a .mat of a transform that is more than a matrix, or a grid is unknown.
    """
    frames = _frame(stored.fixed_grid), _frame(grid_of(stored.moving, "moving", path))
    if path.suffix.lower() == MATRIX_SUFFIX:
        _write_flirt(path, stored, *frames)
        return
    values = offsets(stored, *frames)
    header = header_of_grid(stored.fixed_grid)
    header.set_data_shape(values.shape)
    header["intent_code"] = FIELD_INTENT
    with atomic_path(path) as staged:
        write_voxels(staged, values, header)


def read_fsl(path: Path, fixed: Located | None, moving: Located | None) -> StoredTransform:
    """Read a relative field, or the matrix of FLIRT.

    Raises:
        InputError: it is something else, or the moving image, or for a matrix the fixed one, is missing.
    """
    if not is_nifti(path):
        return _read_flirt(path, fixed, moving)
    file = open_nifti(path)
    if int(file.header["intent_code"]) in COEFFICIENT_INTENTS:
        raise InputError(
            f"got {path}, which holds spline coefficients, expected a field; make one of it first: "
            "fnirtfileutils --in=COEFFICIENTS --ref=FIXED --out=FIELD.nii.gz --withaff"
        )
    values = file.read()
    if values.ndim != 4 or values.shape[3] != 3:
        raise InputError(f"got {path} of shape {values.shape}, expected (I, J, K, 3): a displacement field of FSL")
    grid = file.grid
    frames = _frame(grid), _frame(grid_of(moving, "moving", path))
    return stored_offsets(values, fixed or grid, moving, frames, path)


def _write_flirt(path: Path, stored: StoredTransform, fixed_frame: Matrix, moving_frame: Matrix) -> None:
    matrices = [part for part in stored.parts if not isinstance(part, Displacement)]
    if len(matrices) < len(stored.parts):
        raise InputError(
            f"got {path} for a transform with a displacement, expected a name ending in .nii.gz: a matrix cannot hold "
            "it; rename the output, or keep the affine part with --only"
        )
    forward = reduce(lambda total, matrix: matrix @ total, matrices, np.eye(4))
    with atomic_path(path) as staged:
        np.savetxt(staged, fixed_frame @ inverse_matrix(moving_frame @ forward), fmt="%.12g")


def _read_flirt(path: Path, fixed: Located | None, moving: Located | None) -> StoredTransform:
    frames = (_frame(grid_of(image, name, path)) for image, name in ((fixed, "fixed"), (moving, "moving")))
    fixed_frame, moving_frame = frames
    back = inverse_matrix(read_matrix(path))
    return StoredTransform((inverse_matrix(moving_frame) @ back @ fixed_frame,), fixed, moving)


def _frame(grid: Grid) -> Matrix:
    """(4, 4), RAS+ millimetres to FSL's frame."""
    scaled = np.diag([*grid.spacing, 1.0])
    if np.linalg.det(grid.linear) > 0:
        scaled[0, 0] *= -1
        scaled[0, 3] = (grid.shape[0] - 1) * grid.spacing[0]
    return np.asarray(scaled @ grid.inverse_affine)
