"""SimpleITK's transform objects as parts of ours, and back.

A point passes the part of a composite that was added last first, so composites hold our parts in reverse order. ITK's
displacements are zero beyond their grid, whereas ours are held at their edge value.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from corereg.errors import InputError
from corereg.geometry.chain import Part
from corereg.geometry.displacement import Displacement
from corereg.geometry.grid import Grid
from corereg.io.images.itk import LPS_SIGNS, affine_from_sitk, affine_to_sitk, to_sitk, vectors_of_sitk
from corereg.io.transforms.formats.itk_parts import parts_of_records
from corereg.io.transforms.formats.itk_records import chained, read_text
from corereg.io.transforms.formats.sampled import displacement_of_lps, sampled
from corereg.io.transforms.formats.stored import Located, StoredTransform
from corereg.lazy import simpleitk

__all__ = ["first_grid", "stored_from_sitk", "stored_to_sitk"]

NAME = "the SimpleITK transform"


def stored_to_sitk(stored: StoredTransform) -> Any:
    """All parts as a SimpleITK.CompositeTransform."""
    composite = simpleitk().CompositeTransform(3)
    for part in reversed(stored.parts):
        composite.AddTransform(_part_to_sitk(part))
    return composite


def stored_from_sitk(transform: Any, *, fixed: Located | None = None, moving: Located | None = None) -> StoredTransform:
    """Read any 3-D SimpleITK transform. A part that is neither linear nor a field is sampled.

    Args:
        fixed: image or grid that it resamples onto; by default, the grid of the first displacement that a point passes.

    Raises:
        InputError: it is not 3-D, its offsets are not finite, or `fixed` is missing though it is needed.
    """
    if transform.GetDimension() != 3:
        raise InputError(f"got {NAME} of {transform.GetDimension()} dimensions, expected 3; give one of volumes")
    members = _members(transform)
    if members is None:
        parts = _parts_by_file(transform, fixed)
    else:
        parts = ()
        for member in members:
            parts = (*parts, _part_of_sitk(member, parts, fixed))
    return StoredTransform(parts, fixed or first_grid(parts), moving)


def first_grid(parts: Sequence[Part]) -> Grid | None:
    """The grid of the first displacement that a point passes, if there is one."""
    return next((part.grid for part in parts if isinstance(part, Displacement)), None)


def _members(transform: Any) -> list[Any] | None:
    """The members of a composite in the order in which a point passes them; None if SimpleITK lacks a type of one."""
    sitk = simpleitk()
    if transform.GetTransformEnum() != sitk.sitkComposite:
        return [transform]
    composite = sitk.CompositeTransform(transform)
    composite.FlattenTransform()
    try:
        members = [composite.GetNthTransform(n) for n in reversed(range(composite.GetNumberOfTransforms()))]
    except RuntimeError:
        return None
    return None if any(member.GetTransformEnum() == sitk.sitkComposite for member in members) else members


def _parts_by_file(transform: Any, fixed: Located | None) -> tuple[Part, ...]:
    """ITK has more types than SimpleITK, which keeps but cannot show them: a file shows them all."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "transform.tfm"
        simpleitk().WriteTransform(transform, str(path))
        return parts_of_records(chained(read_text(path), path), fixed, path)


def _part_of_sitk(part: Any, before: Sequence[Part], fixed: Located | None) -> Part:
    sitk = simpleitk()
    if part.IsLinear():
        return affine_from_sitk(part)
    if part.GetTransformEnum() != sitk.sitkDisplacementField:
        return sampled(part, before, fixed, NAME)
    lps, affine = vectors_of_sitk(sitk.DisplacementFieldTransform(part).GetDisplacementField())
    if not np.isfinite(lps).all():
        raise InputError(f"got {NAME} with NaN or infinite offsets, expected a whole field; make it again")
    i, j, k = lps.shape[:3]
    return displacement_of_lps(lps, Grid((i, j, k), affine))


def _part_to_sitk(part: Part) -> Any:
    if not isinstance(part, Displacement):
        return affine_to_sitk(part)
    sitk = simpleitk()
    lps = np.moveaxis(part.disp_mm().numpy(), 0, -1) * LPS_SIGNS
    return sitk.DisplacementFieldTransform(sitk.Cast(to_sitk(lps, part.grid), sitk.sitkVectorFloat64))
