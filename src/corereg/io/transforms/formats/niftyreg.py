"""NiftyReg: NIfTI (I, J, K, 1, 3), intent 1007 named NREG_TRANS, RAS+ mm on the reference (fixed) image's grid.

The intent's first parameter says what the vectors are: 0 for positions on the floating (moving) image, 1 for offsets to
them. Control point grids and velocities are not read: `reg_transform -def` turns them into a deformation. An affine is
a text file of a 4x4 matrix, reference to floating.
"""

from pathlib import Path

import numpy as np

from corereg.errors import InputError
from corereg.geometry.grid import Matrix
from corereg.io.atomic import atomic_path
from corereg.io.images.nifti import VECTOR_INTENT, header_of_grid, is_nifti, write_voxels
from corereg.io.images.nifti_reader import open_nifti
from corereg.io.transforms.formats.common import WORLD, offsets, read_matrix, stored_offsets
from corereg.io.transforms.formats.stored import Located, StoredTransform

__all__ = ["INTENT_NAME", "read_niftyreg", "write_niftyreg_deformation", "write_niftyreg_displacement"]

INTENT_NAME = b"NREG_TRANS"
DEFORMATION, DISPLACEMENT = 0, 1

FROM_NOWHERE: Matrix = np.diag([0.0, 0.0, 0.0, 1.0])
"""The frame in which every position is 0, so that an offset from it is a position."""

CURE = "turn it into a deformation field first: reg_transform -ref FIXED -def TRANSFORM FIELD.nii.gz"


def write_niftyreg_deformation(path: Path, stored: StoredTransform) -> None:
    """Write positions on the moving image."""
    _write(path, stored, FROM_NOWHERE, DEFORMATION)


def write_niftyreg_displacement(path: Path, stored: StoredTransform) -> None:
    """Write offsets to the positions on the moving image."""
    _write(path, stored, WORLD, DISPLACEMENT)


def _write(path: Path, stored: StoredTransform, fixed_frame: Matrix, kind: int) -> None:
    vectors = offsets(stored, fixed_frame, WORLD)[:, :, :, None]
    header = header_of_grid(stored.fixed_grid)
    header.set_data_shape(vectors.shape)
    header["intent_code"], header["intent_name"], header["intent_p1"] = VECTOR_INTENT, INTENT_NAME, kind
    with atomic_path(path) as staged:
        write_voxels(staged, vectors, header)


def read_niftyreg(path: Path, fixed: Located | None, moving: Located | None) -> StoredTransform:
    """Read a deformation or displacement field, or the text file of an affine.

    Raises:
        InputError: it is none of these.
    """
    if not is_nifti(path):
        return StoredTransform((read_matrix(path),), fixed, moving)
    file = open_nifti(path)
    values, kind = file.read(), file.header["intent_p1"].item()
    if values.ndim != 5 or values.shape[3:] != (1, 3) or kind not in (DEFORMATION, DISPLACEMENT):
        raise InputError(
            f"got {path} of shape {values.shape} and kind {kind:g} (intent_p1), expected (I, J, K, 1, 3) and 0 or 1: "
            f"a deformation or a displacement; {CURE}"
        )
    fixed_frame = FROM_NOWHERE if kind == DEFORMATION else WORLD
    return stored_offsets(values[:, :, :, 0], fixed or file.grid, moving, (fixed_frame, WORLD), path)
