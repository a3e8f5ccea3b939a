"""Where a NIfTI header puts its voxels: sform, qform, units, and what other tools make of them."""

import math
import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from corereg.errors import InputError
from corereg.geometry.grid import SINGULAR_VOLUME, Grid
from corereg.lazy import nibabel

__all__ = [
    "SPACE_UNIT_BITS",
    "check_spacing",
    "header_affine",
    "in_header_units",
    "mm_affine",
    "shear_mm",
    "upright",
    "warn_of_doubtful_geometry",
]

Matrix = NDArray[np.float64]

QUIET = np.errstate(over="ignore", invalid="ignore")
"""For numbers from headers, which may be anything: results are checked instead."""

SPACE_UNIT_BITS = 0b111
"""The part of xyzt_units that holds the unit of length; the rest holds the unit of time."""

MM_PER_UNIT = {1: 1000.0, 2: 1.0, 3: 0.001}
"""NIFTI_UNITS_METER, _MM, _MICRON."""

DISAGREEMENT_MM = 0.1
"""Largest distance between two forms that is put down to rounding, beyond that of the quaternion."""

QUATERNION_EXCESS = 1e-3
"""How far rounding may bring b^2 + c^2 + d^2 beyond 1."""

QUATERNION_ROUNDING = 1e-7
"""1 - (b^2 + c^2 + d^2), whose root is a, counts as 0 below this, as in the code that the standard comes with
(nifti1_io.c): b, c and d are float32, so half turns, as of scans that FreeSurfer conformed, would be off by 0.03
degrees."""


def check_spacing(header: Any, name: str) -> None:
    """Check the voxel size of a header.

    Raises:
        InputError: a spacing is not a positive number.
    """
    axes = min(3, int(header["dim"][0]))
    spacing = header["pixdim"][1 : 1 + axes]
    if not ((spacing > 0) & np.isfinite(spacing)).all():
        raise InputError(
            f"got {name} with the spacing {spacing.tolist()} in its header, expected positive numbers; "
            "repair the header"
        )


def header_affine(header: Any) -> tuple[Matrix, bool]:
    """Voxel-to-RAS affine (4, 4) in millimetres, and whether it is the form that the header prefers.

    The sform is preferred to the qform. A form that is set and cannot be used gives way to the other one.
    """
    sform, qform = _sform(header), _qform(header)
    preferred = sform if int(header["sform_code"]) > 0 else qform if int(header["qform_code"]) > 0 else None
    affine = preferred if preferred is not None else qform if qform is not None else sform
    if affine is not None:
        return affine, affine is preferred
    codes = int(header["sform_code"]), int(header["qform_code"])
    if max(codes) > 0:
        return _stored_sform(header), True
    return _in_mm(np.array(header.get_base_affine(), dtype=np.float64), header), True


def mm_affine(image: Any) -> Matrix:
    """Voxel-to-RAS affine (4, 4) of a nibabel image in millimetres, whatever the unit of its header."""
    affine = np.array(image.affine if image.affine is not None else np.eye(4), dtype=np.float64)
    if not isinstance(image.header, nibabel().Nifti1Header):
        return affine
    return _in_mm(affine, image.header) if _usable(affine) else header_affine(image.header)[0]


def in_header_units(affine: Matrix, header: Any) -> Matrix:
    """An affine of millimetres in the unit of a header."""
    scaled = affine.copy()
    scaled[:3] /= MM_PER_UNIT.get(int(header["xyzt_units"]) & SPACE_UNIT_BITS, 1.0)
    return scaled


def shear_mm(affine: Matrix, shape: tuple[int, ...]) -> float:
    """How far a corner of a volume lies from where it would be if the axes were perpendicular; below 0.1 mm it is 0."""
    if not _usable(affine):
        return 0.0
    apart = float((np.abs(affine - _perpendicular(affine))[:3, :3] @ np.array(shape[:3])).max())
    return apart if apart > DISAGREEMENT_MM else 0.0


def upright(grid: Grid) -> Grid:
    """The smallest grid of the same spacing with perpendicular axes that covers all voxels of a sheared one."""
    axes = _perpendicular(grid.affine)
    last = np.array(grid.shape) - 1
    corners = grid.to_world(np.stack(np.meshgrid(*([0, n] for n in last), indexing="ij"), -1).reshape(-1, 3))
    at = (corners - axes[:3, 3]) @ np.linalg.inv(axes[:3, :3]).T
    low, high = np.floor(at.min(0) + 1e-6), np.ceil(at.max(0) - 1e-6)
    axes[:3, 3] += axes[:3, :3] @ low
    i, j, k = (int(n) for n in high - low + 1)
    return Grid((i, j, k), axes)


def warn_of_doubtful_geometry(header: Any, shape: tuple[int, ...], name: str) -> None:
    """Warn of a place in the world that is unset, ambiguous, or read differently by other tools."""
    sform, qform = _sform(header), _qform(header)
    codes = int(header["sform_code"]), int(header["qform_code"])
    if codes == (0, 0):
        warnings.warn(
            f"{name}: neither sform nor qform is set, so its place in the world is a guess (right to left along the "
            "first axis, centred at 0) that other tools do not share; set its sform",
            stacklevel=2,
        )
    elif codes[0] > 0 and sform is None and qform is not None:
        warnings.warn(f"{name}: its sform is singular; the qform is used", stacklevel=2)
    elif sform is not None and shear_mm(sform, shape):
        warnings.warn(
            f"{name}: its sform is sheared (by up to {shear_mm(sform, shape):.3g} mm), which tools built on ITK "
            "(3D Slicer, ANTs, SimpleITK) refuse or replace by the qform; resample it to perpendicular axes, or save "
            "it as .nrrd",
            stacklevel=2,
        )
    elif sform is not None and qform is not None:
        apart = np.abs(sform - qform)[:3] @ (*shape[:3], 1)  # at most, over the volume
        length = float(np.linalg.norm(np.linalg.norm(qform[:3, :3], axis=0) * shape[:3]))
        if apart.max() > DISAGREEMENT_MM + length * _rounded_angle(header):
            warnings.warn(
                f"{name}: its sform and its qform disagree by up to {apart.max():.3g} mm; the sform is used, "
                "some tools take the other",
                stacklevel=2,
            )


@QUIET
def _in_mm(affine: Matrix, header: Any) -> Matrix:
    scaled = affine.copy()
    scaled[:3] *= MM_PER_UNIT.get(int(header["xyzt_units"]) & SPACE_UNIT_BITS, 1.0)
    return scaled


@QUIET
def _usable(affine: Matrix) -> bool:
    return bool(np.isfinite(affine).all() and abs(np.linalg.det(affine[:3, :3])) > SINGULAR_VOLUME)


@QUIET
def _stored_sform(header: Any) -> Matrix:
    rows = [header["srow_x"], header["srow_y"], header["srow_z"], (0, 0, 0, 1)]
    return _in_mm(np.array(rows, dtype=np.float64), header)


def _sform(header: Any) -> Matrix | None:
    """None where it is not set or cannot be used."""
    sform = _stored_sform(header)
    return sform if int(header["sform_code"]) > 0 and _usable(sform) else None


@QUIET
def _quaternion(header: Any) -> NDArray[np.float64] | None:
    """(4,), of length 1; None if it cannot be one."""
    rest = np.array([header[f"quatern_{letter}"] for letter in "bcd"], dtype=np.float64)
    square = float(rest @ rest)
    if not square <= (1 + QUATERNION_EXCESS) ** 2:
        return None
    if 1 - square < QUATERNION_ROUNDING:
        return np.asarray([0.0, *rest / np.sqrt(square)])
    return np.asarray([np.sqrt(1 - square), *rest])


def _rounded_angle(header: Any) -> float:
    """How far, in radians, rounding may turn the axes: the nearer to a half turn, the more."""
    quaternion = _quaternion(header)
    real = 0.0 if quaternion is None else float(quaternion[0])
    return 2 * QUATERNION_ROUNDING / max(real, math.sqrt(QUATERNION_ROUNDING))


@QUIET
def _qform(header: Any) -> Matrix | None:
    """None where it is not set or cannot be used."""
    quaternion = _quaternion(header)
    if int(header["qform_code"]) <= 0 or quaternion is None:
        return None
    spacing = np.array(header["pixdim"][1:4], dtype=np.float64)
    spacing[2] *= -1 if header["pixdim"][0] < 0 else 1
    affine = np.eye(4)
    affine[:3, :3] = nibabel().quaternions.quat2mat(quaternion) * spacing
    affine[:3, 3] = [float(header[f"qoffset_{letter}"]) for letter in "xyz"]
    affine = _in_mm(affine, header)
    return affine if _usable(affine) else None


def _perpendicular(affine: Matrix) -> Matrix:
    """The nearest affine of the same spacing with perpendicular axes, through the same first voxel."""
    near = affine.copy()
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    left, _, right = np.linalg.svd(affine[:3, :3] / spacing)
    near[:3, :3] = left @ right * spacing
    return near
