"""SimpleITK's transform objects as parts of ours, and back.

ITK counts in LPS millimetres. A point passes the part of a composite that was added last first, so composites hold our
parts in reverse order. ITK's displacements are zero beyond their grid, whereas ours are held at their edge value.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from corereg.errors import InputError
from corereg.geometry.chain import Part
from corereg.geometry.displacement import Displacement
from corereg.geometry.grid import Grid
from corereg.io.images.itk import LPS_SIGNS, affine_from_sitk, affine_to_sitk, to_sitk, vectors_of_sitk
from corereg.io.transforms.formats.stored import Located, StoredTransform, grid_of
from corereg.lazy import simpleitk

__all__ = ["stored_from_sitk", "stored_to_sitk"]


def stored_to_sitk(stored: StoredTransform) -> Any:
    """All parts as a SimpleITK.CompositeTransform."""
    composite = simpleitk().CompositeTransform(3)
    for part in reversed(stored.parts):
        composite.AddTransform(_part_to_sitk(part))
    return composite


def stored_from_sitk(
    transform: Any, *, fixed: Located | None = None, moving: Located | None = None, name: object = "the ITK transform"
) -> StoredTransform:
    """Read any 3-D SimpleITK transform. A part that is neither linear nor a field is sampled on the fixed grid.

    Args:
        fixed: image or grid that it resamples onto; by default, the grid of the first displacement that a point passes.
        name: what messages call it.

    Raises:
        InputError: it is not 3-D, its offsets are not finite, or `fixed` is missing though it is needed.
    """
    if transform.GetDimension() != 3:
        raise InputError(f"got {name} of {transform.GetDimension()} dimensions, expected 3; give one of volumes")
    parts = tuple(_part_of_sitk(part, fixed, name) for part in _in_the_order_of_points(transform))
    return StoredTransform(parts, fixed or _first_grid(parts), moving)


def _first_grid(parts: Sequence[Part]) -> Grid | None:
    return next((part.grid for part in parts if isinstance(part, Displacement)), None)


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
