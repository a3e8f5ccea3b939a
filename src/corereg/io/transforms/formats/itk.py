"""ITK, and with it ANTs, SimpleITK, elastix and 3D Slicer: transforms of any kind in .h5, .tfm, .txt and .mat."""

from dataclasses import replace
from pathlib import Path

from corereg.errors import InputError
from corereg.geometry.chain import offsets_mm
from corereg.io.atomic import atomic_path
from corereg.io.images.checks import one_line
from corereg.io.transforms.formats.common import stored_field
from corereg.io.transforms.formats.itk_extras import append_extras, read_extras
from corereg.io.transforms.formats.itk_field import read_displacement_field, write_displacement_field
from corereg.io.transforms.formats.itk_h5 import read_backward, write_h5
from corereg.io.transforms.formats.sitk_parts import stored_from_sitk, stored_to_sitk
from corereg.io.transforms.formats.stored import Located, StoredTransform
from corereg.lazy import simpleitk

__all__ = [
    "COMPOSITE_SUFFIXES",
    "TRANSFORM_SUFFIXES",
    "read_field",
    "read_itk_transform",
    "write_composite",
    "write_field",
]

H5_SUFFIXES = (".h5", ".hdf5")
COMPOSITE_SUFFIXES = (*H5_SUFFIXES, ".tfm", ".txt")
TRANSFORM_SUFFIXES = (*COMPOSITE_SUFFIXES, ".mat")
"""ITK does not write composites to .mat."""


def write_composite(path: Path, stored: StoredTransform) -> None:
    """Write all parts as a composite. An .h5 also holds the other direction if the moving grid is known."""
    with atomic_path(path) as staged:
        if path.suffix.lower() in H5_SUFFIXES:
            write_h5(staged, stored)
        else:
            simpleitk().WriteTransform(stored_to_sitk(stored), str(staged))
            append_extras(staged, stored)


def read_itk_transform(path: Path, fixed: Located | None, moving: Located | None) -> StoredTransform:
    """Read any ITK transform. A part that is neither linear nor a field is sampled on the fixed grid.

    Raises:
        InputError: it is unreadable, its offsets are not finite, or the fixed image is missing though it is needed.
    """
    try:
        loaded = simpleitk().ReadTransform(str(path))
    except RuntimeError as error:
        raise InputError(
            f"got {path}, which cannot be read ({one_line(error)}), expected an ITK transform; write it again, or say "
            "its format with --from"
        ) from None
    extras = read_extras(path)
    stored = stored_from_sitk(loaded, fixed=fixed or extras.fixed, moving=moving or extras.moving, name=path)
    names = extras.names if len(extras.names) == len(stored.parts) else ()
    backward = read_backward(path) if path.suffix.lower() in H5_SUFFIXES else None
    return replace(stored, names=names, backward_parts=backward)


def write_field(path: Path, stored: StoredTransform) -> None:
    """Write all parts as one displacement field."""
    grid = stored.fixed_grid
    write_displacement_field(path, offsets_mm(stored.parts, grid), stored.fixed or grid)


def read_field(path: Path, fixed: Located | None, moving: Located | None) -> StoredTransform:
    """Read a displacement field.

    Raises:
        InputError: it is something else.
    """
    stored = stored_field(*read_displacement_field(path), moving)
    return stored if fixed is None else replace(stored, fixed=fixed)
