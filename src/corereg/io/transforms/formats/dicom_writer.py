"""DICOM registration objects, written; `dicom` reads them and explains the format.

Matrices alone become a Spatial Registration object; a transform with a displacement becomes a Deformable Spatial
Registration object, whose Post matrix holds the affine part after it.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from corereg.errors import InputError
from corereg.geometry.chain import offsets_mm
from corereg.geometry.grid import Grid, Matrix
from corereg.geometry.positions import inverse_matrix
from corereg.io.images.dicom.objects import headers_of, new_object, refer_to, references, save_object
from corereg.io.images.image import Image
from corereg.io.images.itk import LPS_RAS, LPS_SIGNS
from corereg.io.images.nifti_geometry import shear_mm, upright
from corereg.io.transforms.formats.common import warp_and_affine
from corereg.io.transforms.formats.dicom import DEFORMABLE, MATRIX
from corereg.io.transforms.formats.stored import Located, StoredTransform
from corereg.lazy import pydicom

__all__ = ["write_dicom"]

LARGEST_BYTES = 2**32 - 2
"""Largest size of one value in a DICOM file."""

RIGID_TOLERANCE = 1e-6
"""How far a matrix times its transpose may be from the identity to count as a rotation."""


def write_dicom(path: Path, stored: StoredTransform) -> None:
    """Write a registration of the moving frame of reference with the fixed one.

    Raises:
        InputError: a frame of reference is unknown, or the grid is too large for DICOM.
    """
    headers = {name: _headers(image) for name, image in (("fixed", stored.fixed), ("moving", stored.moving))}
    frames = [
        given or _frame(headers[name], name) for given, name in zip(stored.frames, ("fixed", "moving"), strict=True)
    ]
    warp, affine = warp_and_affine(stored)
    like = next(iter([*headers["fixed"], *headers["moving"]]), None)
    data = new_object(DEFORMABLE if warp else MATRIX, "REG", like)
    data.FrameOfReferenceUID = frames[0]
    images = {name: references(found) for name, found in headers.items()}
    if warp:
        grid = _grid(stored.fixed_grid)
        item = _deformation(LPS_SIGNS * np.moveaxis(offsets_mm(warp, grid), 0, -1), grid, affine)
        item.SourceFrameOfReferenceUID, item.RegistrationTypeCodeSequence = frames[1], []
        if images["moving"]:
            item.ReferencedImageSequence = images["moving"]
        data.DeformableRegistrationSequence = [item]
    else:
        items = zip(frames, (np.eye(4), inverse_matrix(affine)), images.values(), strict=True)
        data.RegistrationSequence = [_registration(*item) for item in items]
    refer_to(data, [*headers["fixed"], *headers["moving"]])
    save_object(path, data)


def _headers(image: Located | None) -> list[Any]:
    return headers_of(image.files) if isinstance(image, Image) else []


def _frame(headers: list[Any], name: str) -> str:
    frame = headers[0].get("FrameOfReferenceUID") if headers else None
    if not frame:
        raise InputError(
            f"got no frame of reference of the {name} image for dicom, expected its DICOM series or the UID; add "
            f"--{name} FOLDER or --{name}-frame UID"
        )
    return str(frame)


def _registration(frame: str, matrix: Matrix, images: list[Any]) -> Any:
    item, inner = pydicom().Dataset(), pydicom().Dataset()
    item.FrameOfReferenceUID = frame
    if images:
        item.ReferencedImageSequence = images
    inner.MatrixSequence, inner.RegistrationTypeCodeSequence = [_matrix(matrix)], []
    item.MatrixRegistrationSequence = [inner]
    return item


def _deformation(lps: NDArray[np.float32], grid: Grid, affine: Matrix) -> Any:
    """Offsets (I, J, K, 3), and the matrix after them."""
    item, content = pydicom().Dataset(), pydicom().Dataset()
    if lps.nbytes > LARGEST_BYTES:
        raise InputError(
            f"got a grid of {grid} for dicom, which is limited to {LARGEST_BYTES // 12} voxels; convert another "
            "transform, on a coarser grid"
        )
    geometry = LPS_RAS @ grid.affine + 0.0
    content.ImagePositionPatient = _decimals(geometry[:3, 3])
    content.ImageOrientationPatient = _decimals((geometry[:3, :2] / grid.spacing[:2]).T.ravel())
    content.GridDimensions = list(grid.shape)
    content.GridResolution = list(grid.spacing)
    content.VectorGridData = np.ascontiguousarray(lps.transpose(2, 1, 0, 3), "<f4").tobytes()
    item.DeformableRegistrationGridSequence = [content]
    item.PreDeformationMatrixRegistrationSequence = [_matrix(np.eye(4))]
    item.PostDeformationMatrixRegistrationSequence = [_matrix(affine)]
    return item


def _matrix(matrix: Matrix) -> Any:
    item = pydicom().Dataset()
    linear = matrix[:3, :3]
    product = linear.T @ linear
    scale = np.diag(np.diag(product))
    rigid = np.linalg.det(linear) > 0 and np.abs(product - np.eye(3)).max() < RIGID_TOLERANCE
    scaled = np.linalg.det(linear) > 0 and np.abs(product - scale).max() < RIGID_TOLERANCE
    item.FrameOfReferenceTransformationMatrixType = "RIGID" if rigid else "RIGID_SCALE" if scaled else "AFFINE"
    item.FrameOfReferenceTransformationMatrix = _decimals((LPS_RAS @ matrix @ LPS_RAS + 0.0).ravel())
    return item


def _decimals(values: NDArray[np.float64]) -> list[Any]:
    """Decimal strings of DICOM, which have room for 16 characters."""
    return [pydicom().valuerep.DSfloat(float(value), auto_format=True) for value in values]


def _grid(fixed: Grid) -> Grid:
    """The fixed grid as DICOM can state it: perpendicular axes, the third of them the normal of the first two."""
    grid = upright(fixed) if shear_mm(fixed.affine, fixed.shape) else fixed
    if np.linalg.det(grid.linear) > 0:
        return grid
    affine = grid.affine.copy()
    affine[:3, 3] = grid.to_world([0, 0, grid.shape[2] - 1])
    affine[:3, 2] *= -1
    return Grid(grid.shape, affine)
