"""ITK, and with it ANTs, SimpleITK, elastix and 3D Slicer: transforms of any kind in .h5, .tfm, .txt and .mat.

ITK counts in LPS millimetres. Of a composite the part that was added last is passed first: the files hold our parts in
reverse order. A displacement is zero beyond its grid there, whereas it is held at its edge value here.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from corereg.errors import InputError
from corereg.geometry.chain import Part
from corereg.geometry.displacement import Displacement
from corereg.geometry.grid import Grid
from corereg.io.atomic import atomic_path
from corereg.io.images.checks import one_line
from corereg.io.images.itk import LPS_SIGNS, affine_from_sitk, affine_to_sitk, to_sitk, vectors_of_sitk
from corereg.io.transforms.formats.common import Located, grid_of
from corereg.io.transforms.formats.itk_extras import append_extras, read_extras
from corereg.io.transforms.formats.itk_field import read_displacement_field, write_displacement_field
from corereg.io.transforms.formats.itk_h5 import read_backward, write_h5
from corereg.io.transforms.transform import Transform
from corereg.lazy import simpleitk

__all__ = [
    "COMPOSITE_SUFFIXES",
    "TRANSFORM_SUFFIXES",
    "read_field",
    "read_itk_transform",
    "transform_from_sitk",
    "transform_to_sitk",
    "write_composite",
    "write_field",
]

H5_SUFFIXES = (".h5", ".hdf5")
COMPOSITE_SUFFIXES = (*H5_SUFFIXES, ".tfm", ".txt")
TRANSFORM_SUFFIXES = (*COMPOSITE_SUFFIXES, ".mat")
"""ITK has no composites in .mat."""


def write_composite(path: Path, transform: Transform) -> None:
    """All parts as a composite; an .h5 holds the other direction too, where the moving grid is known."""
    with atomic_path(path) as staged:
        if path.suffix.lower() in H5_SUFFIXES:
            write_h5(staged, transform)
        else:
            simpleitk().WriteTransform(transform_to_sitk(transform), str(staged))
            append_extras(staged, transform)


def read_itk_transform(path: Path, fixed: Located | None, moving: Located | None) -> Transform:
    """Any ITK transform; what is neither linear nor a field is sampled on the fixed grid.

    Raises:
        InputError: unreadable, with offsets that are not finite, or the fixed image is missing.
    """
    try:
        loaded = simpleitk().ReadTransform(str(path))
    except RuntimeError as error:
        raise InputError(
            f"got {path}, which cannot be read ({one_line(error)}), expected an ITK transform; write it again, or say "
            "its format with --from"
        ) from None
    extras = read_extras(path)
    fixed, moving = fixed or extras.fixed, moving or extras.moving
    transform = transform_from_sitk(loaded, fixed=fixed, moving=moving, name=path)
    names = extras.names if len(extras.names) == len(transform.parts) else ()
    backward = read_backward(path, moving, fixed) if path.suffix.lower() in H5_SUFFIXES else None
    return Transform(transform.parts, transform.fixed, moving, names, backward)


def write_field(path: Path, transform: Transform) -> None:
    """One displacement field of all parts."""
    fixed = transform.fixed_grid if transform.fixed is None else transform.fixed
    write_displacement_field(path, transform.total_mm(), fixed)


def read_field(path: Path, fixed: Located | None, moving: Located | None) -> Transform:
    """A displacement field.

    Raises:
        InputError: something else.
    """
    total_mm, grid = read_displacement_field(path)
    transform = Transform.from_field(total_mm, grid, moving)
    return transform if fixed is None else replace(transform, fixed=fixed)


def transform_to_sitk(transform: Transform) -> Any:
    """A SimpleITK.CompositeTransform of all parts."""
    composite = simpleitk().CompositeTransform(3)
    for part in reversed(transform.parts):
        composite.AddTransform(_part_to_sitk(part))
    return composite


def transform_from_sitk(
    transform: Any, *, fixed: Located | None = None, moving: Located | None = None, name: object = "the ITK transform"
) -> Transform:
    """Of any 3-D SimpleITK transform.

    Args:
        fixed: image or grid that it resamples onto; without it, the grid of the first displacement that a point passes.

    Raises:
        InputError: not 3-D, singular, offsets that are not finite, or `fixed` is missing where it is needed.
    """
    if transform.GetDimension() != 3:
        raise InputError(f"got {name} of {transform.GetDimension()} dimensions, expected 3; give one of volumes")
    parts = tuple(_part_of_sitk(part, fixed, name) for part in _in_the_order_of_points(transform))
    fields = [part.grid for part in parts if isinstance(part, Displacement)]
    try:
        return Transform(parts, fixed or next(iter(fields), None), moving)
    except InputError as error:
        raise InputError(f"{name}: {error}") from None


def _in_the_order_of_points(transform: Any) -> list[Any]:
    sitk = simpleitk()
    if transform.GetTransformEnum() != sitk.sitkComposite:
        return [transform]
    composite = sitk.CompositeTransform(transform)
    nested = (composite.GetNthTransform(n) for n in reversed(range(composite.GetNumberOfTransforms())))
    return [part for item in nested for part in _in_the_order_of_points(item)]


def _part_of_sitk(part: Any, fixed: Located | None, name: object) -> Part:
    sitk = simpleitk()
    if part.IsLinear():
        return affine_from_sitk(part)
    if part.GetTransformEnum() == sitk.sitkDisplacementField:
        field = sitk.DisplacementFieldTransform(part).GetDisplacementField()
    else:
        grid = grid_of(fixed, "fixed", name)
        like = to_sitk(np.broadcast_to(np.uint8(0), grid.shape), grid)
        field = sitk.TransformToDisplacementField(
            part, sitk.sitkVectorFloat64, like.GetSize(), like.GetOrigin(), like.GetSpacing(), like.GetDirection()
        )
    lps, affine = vectors_of_sitk(field)
    if not np.isfinite(lps).all():
        raise InputError(f"got {name} with NaN or infinite offsets, expected a whole field; make it again")
    i, j, k = lps.shape[:3]
    disp_mm = torch.as_tensor(np.moveaxis(lps * LPS_SIGNS, -1, 0).astype(np.float32))
    return Displacement.from_mm(disp_mm, Grid((i, j, k), affine))


def _part_to_sitk(part: Part) -> Any:
    if not isinstance(part, Displacement):
        return affine_to_sitk(part)
    sitk = simpleitk()
    lps = np.moveaxis(part.disp_mm().numpy(), 0, -1) * LPS_SIGNS
    return sitk.DisplacementFieldTransform(sitk.Cast(to_sitk(lps, part.grid), sitk.sitkVectorFloat64))
