"""ITK's transforms, as files store them, turned into parts. ITK counts in LPS millimetres."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from corereg.errors import InputError
from corereg.geometry.chain import Part
from corereg.geometry.displacement import Displacement
from corereg.geometry.grid import Grid, Matrix
from corereg.io.images.checks import one_line, plausible_grid
from corereg.io.images.itk import LPS_RAS, affine_from_sitk
from corereg.io.transforms.formats.itk_records import ItkTransform
from corereg.io.transforms.formats.sampled import displacement_of_lps, sampled
from corereg.io.transforms.formats.stored import Located
from corereg.lazy import simpleitk

__all__ = ["parts_of_records"]

FIELDS = ("DisplacementFieldTransform", "GaussianSmoothingOnUpdateDisplacementFieldTransform")
"""ANTs calls its fields by the second name; they are stored alike."""

MATRIX_AND_OFFSET = ("AffineTransform", "MatrixOffsetTransformBase", "Rigid3DTransform")
"""A matrix and a translation, with the centre of rotation among the fixed parameters."""

SITK_CLASSES = (
    *("Euler3DTransform", "VersorTransform", "VersorRigid3DTransform", "Similarity3DTransform"),
    *("ScaleVersor3DTransform", "ScaleSkewVersor3DTransform", "ComposeScaleSkewVersor3DTransform"),
)
"""Linear transforms that SimpleITK has a class for."""

SITK_NUMBERS = {
    "ScaleTransform": "sitkScale",
    "ScaleLogarithmicTransform": "sitkScaleLogarithmic",
    "QuaternionRigidTransform": "sitkQuaternionRigid",
}
"""Linear transforms that SimpleITK makes by number only."""


def parts_of_records(records: Sequence[ItkTransform], fixed: Located | None, path: Path) -> tuple[Part, ...]:
    """The parts of transforms in the order in which a point passes them.

    Args:
        fixed: image or grid that they resample onto, on which a B-spline is sampled.

    Raises:
        InputError: a transform of an unsupported kind, damaged or singular; or a B-spline without `fixed`.
    """
    parts: list[Part] = []
    for record in records:
        try:
            parts.append(_part(record, parts, fixed, path))
        except RuntimeError as error:
            raise InputError(
                f"got {path} with a {record.kind} that ITK refuses ({one_line(error)}); write it again"
            ) from None
    return tuple(parts)


def _part(record: ItkTransform, before: Sequence[Part], fixed: Located | None, path: Path) -> Part:
    if record.kind in FIELDS:
        return _field(record, path)
    if record.kind == "BSplineTransform":
        return sampled(_spline(record, path), before, fixed, path)
    return _matrix(record, path)


def _field(record: ItkTransform, path: Path) -> Displacement:
    size, grid = _lattice(record, path)
    lps = record.parameters.reshape(*reversed(size), 3).transpose(2, 1, 0, 3)
    return displacement_of_lps(lps, grid)


def _spline(record: ItkTransform, path: Path) -> Any:
    _lattice(record, path)
    spline = simpleitk().BSplineTransform(3, record.order)
    spline.SetFixedParameters(record.fixed.tolist())
    spline.SetParameters(record.parameters.astype(np.float64).tolist())
    return spline


def _lattice(record: ItkTransform, path: Path) -> tuple[tuple[int, int, int], Grid]:
    """Size and grid of the vectors of a field or a B-spline: three numbers for each point must be there."""
    if record.fixed.size != 18:
        raise _miscounted(record, path)
    size, origin, spacing = record.fixed[:3], record.fixed[3:6], record.fixed[6:9]
    if not (size >= 1).all() or (size != np.rint(size)).any() or 3 * size.prod() != record.parameters.size:
        raise _miscounted(record, path)
    affine = np.eye(4)
    affine[:3, :3] = record.fixed[9:].reshape(3, 3) * spacing
    affine[:3, 3] = origin
    i, j, k = (int(n) for n in size)
    return (i, j, k), plausible_grid((i, j, k), LPS_RAS @ affine + 0.0, str(path))


def _matrix(record: ItkTransform, path: Path) -> Matrix:
    kind, parameters, fixed = record.kind, record.parameters.astype(np.float64), record.fixed
    if kind in MATRIX_AND_OFFSET:
        _expect(record, 12, path)
        return _about_centre(parameters[:9], parameters[9:], fixed if fixed.size else np.zeros(3))
    if kind == "CenteredAffineTransform":
        _expect(record, 15, path)
        return _about_centre(parameters[:9], parameters[12:], parameters[9:12])
    if kind == "TranslationTransform":
        _expect(record, 3, path)
        return _about_centre(np.eye(3), parameters, np.zeros(3))
    if kind == "IdentityTransform":
        return np.eye(4)
    if kind == "CenteredEuler3DTransform":
        _expect(record, 9, path)
        return _by_sitk("Euler3DTransform", np.r_[parameters[:3], parameters[6:]], parameters[3:6])
    if kind in SITK_CLASSES or kind in SITK_NUMBERS:
        return _by_sitk(kind, parameters, fixed)
    known = ", ".join((*MATRIX_AND_OFFSET, *SITK_CLASSES, *FIELDS, "BSplineTransform"))
    raise InputError(
        f"got {path} with a {kind}, expected {known} or another linear transform; make a displacement field of it with "
        "the program that wrote it"
    )


def _about_centre(matrix: NDArray[np.float64], translation: NDArray[Any], centre: NDArray[np.float64]) -> Matrix:
    """x -> M (x - c) + c + t in LPS millimetres, as a (4, 4) matrix of RAS+ millimetres."""
    lps = np.eye(4)
    lps[:3, :3] = matrix.reshape(3, 3)
    lps[:3, 3] = translation + centre - lps[:3, :3] @ centre
    return LPS_RAS @ lps @ LPS_RAS


def _by_sitk(kind: str, parameters: NDArray[np.float64], fixed: NDArray[np.float64]) -> Matrix:
    sitk = simpleitk()
    by_number = kind in SITK_NUMBERS
    transform = sitk.Transform(3, getattr(sitk, SITK_NUMBERS[kind])) if by_number else getattr(sitk, kind)()
    transform.SetFixedParameters(fixed.tolist())
    transform.SetParameters(parameters.tolist())
    return affine_from_sitk(transform)


def _expect(record: ItkTransform, parameters: int, path: Path) -> None:
    if record.parameters.size != parameters or record.fixed.size not in (0, 3):
        raise _miscounted(record, path)


def _miscounted(record: ItkTransform, path: Path) -> InputError:
    return InputError(
        f"got {path} with a {record.kind} of {record.parameters.size} parameters and {record.fixed.size} fixed ones, "
        "which do not belong together; write it again"
    )
