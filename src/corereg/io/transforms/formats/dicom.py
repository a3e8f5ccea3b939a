"""DICOM registration objects, read: matrices (Spatial Registration) and grids of offsets (Deformable Spatial ...).

The Registered frame of reference is the fixed image's, a Source frame of reference the moving image's. A matrix leads
from each frame listed to the Registered one. A deformation leads the other way: a point x of the Registered frame goes
to Post (Pre x + d(x)), with the grid of d in the Registered frame. DICOM counts in LPS millimetres.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from corereg.errors import InputError
from corereg.geometry.chain import check_matrix, check_offsets
from corereg.geometry.grid import Matrix
from corereg.geometry.positions import inverse_matrix
from corereg.io.images.checks import one_line, plausible_grid
from corereg.io.images.dicom.headers import is_deflated
from corereg.io.images.itk import LPS_RAS
from corereg.io.transforms.formats.sampled import displacement_of_lps
from corereg.io.transforms.formats.stored import Located, StoredTransform
from corereg.lazy import pydicom

__all__ = ["DEFORMABLE", "MATRIX", "read_dicom"]

MATRIX, DEFORMABLE = "1.2.840.10008.5.1.4.1.1.66.1", "1.2.840.10008.5.1.4.1.1.66.3"
"""SOP classes: Spatial Registration and Deformable Spatial Registration."""

EXPECTED = "a Spatial Registration or a Deformable Spatial Registration object"


def read_dicom(path: Path, fixed: Located | None, moving: Located | None) -> StoredTransform:
    """Read the registration of one moving frame of reference with the Registered one.

    Raises:
        InputError: another object, a damaged one, or one that registers several frames of reference.
    """
    try:
        if is_deflated(path):
            raise InputError(f"got {path}, which is compressed as a whole, expected {EXPECTED}; export it uncompressed")
        data = pydicom().dcmread(path)
        kind = str(data.get("SOPClassUID", ""))
        if kind == DEFORMABLE:
            return _deformation(data, path, fixed, moving)
        if kind == MATRIX:
            return StoredTransform((_matrix_of_frames(data, path),), fixed, moving)
    except InputError:
        raise
    except Exception as error:  # pydicom raises whatever a damaged file leads it to
        raise InputError(f"got {path}, which is damaged ({one_line(error)}), expected {EXPECTED}") from None
    name = " ".join(pydicom().uid.UID(kind).name.split()) or "unknown"
    raise InputError(f"got {path}, a DICOM object of the kind {name}, expected {EXPECTED}")


def _matrix_of_frames(data: Any, path: Path) -> Matrix:
    """From the Registered frame to the one that is moved."""
    moved, registered = [], np.eye(4)
    for item in data.RegistrationSequence:
        matrix = np.eye(4)
        for registration in item.MatrixRegistrationSequence:
            for step in registration.MatrixSequence:
                matrix = _matrix(step, path) @ matrix
        if item.get("FrameOfReferenceUID") == data.get("FrameOfReferenceUID") and (
            len(data.RegistrationSequence) == 2 and np.array_equal(matrix, np.eye(4))
        ):
            registered = matrix
        else:
            moved.append(matrix)
    if len(moved) == 2:  # two sets of images in one frame of reference, of which one stays
        moved = [matrix for matrix in moved if not np.array_equal(matrix, np.eye(4))] or moved[:1]
    if len(moved) != 1:
        raise InputError(
            f"got {path}, which registers {len(moved)} frames of reference, expected one moving one; export each "
            "registration alone"
        )
    return inverse_matrix(moved[0]) @ registered


def _deformation(data: Any, path: Path, fixed: Located | None, moving: Located | None) -> StoredTransform:
    items = [item for item in data.DeformableRegistrationSequence if item.get("DeformableRegistrationGridSequence")]
    if len(items) != 1:
        raise InputError(
            f"got {path} with {len(items)} deformation grids, expected one; export each registration alone"
        )
    (item,) = items
    pre, post = (_one(item, f"{name}DeformationMatrixRegistrationSequence", path) for name in ("Pre", "Post"))
    content = item.DeformableRegistrationGridSequence[0]
    i, j, k = (int(n) for n in content.GridDimensions)
    spacing = np.array(content.GridResolution, dtype=np.float64)
    rows = np.array(content.ImageOrientationPatient, dtype=np.float64).reshape(2, 3)
    affine = np.eye(4)
    affine[:3, :3] = np.stack([*rows, np.cross(*rows)], axis=1) * spacing
    affine[:3, 3] = np.array(content.ImagePositionPatient, dtype=np.float64)
    grid = plausible_grid((i, j, k), LPS_RAS @ affine + 0.0, str(path))
    vectors = np.frombuffer(content.VectorGridData, "<f4")
    if vectors.size != 3 * i * j * k:
        raise InputError(f"got {path} with {vectors.size} numbers for a grid of {grid}; export it again")
    lps = vectors.reshape(k, j, i, 3).transpose(2, 1, 0, 3).astype(np.float64)
    if not np.isfinite(lps).all():
        raise InputError(f"got {path}, which is undefined (NaN) in places, expected an offset everywhere")
    check_offsets(lps, "mm")
    # T(x) = Post Pre (x + u(x)) with u = inverse(Pre) d.
    linear = (LPS_RAS @ pre @ LPS_RAS)[:3, :3]
    displacement = displacement_of_lps(lps @ np.linalg.inv(linear).T, grid)
    after = post @ pre
    parts = (displacement,) if np.array_equal(after, np.eye(4)) else (displacement, after)
    return StoredTransform(parts, fixed or grid, moving)


def _one(item: Any, sequence: str, path: Path) -> Matrix:
    found = item.get(sequence) or []
    return _matrix(found[0], path) if found else np.eye(4)


def _matrix(item: Any, path: Path) -> Matrix:
    """(4, 4) of RAS+ millimetres."""
    values: NDArray[np.float64] = np.array(item.FrameOfReferenceTransformationMatrix, dtype=np.float64)
    matrix = LPS_RAS @ values.reshape(4, 4) @ LPS_RAS + 0.0
    try:
        check_matrix(matrix)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    return matrix
