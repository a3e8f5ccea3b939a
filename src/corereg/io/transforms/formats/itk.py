"""ITK, and with it ANTs, SimpleITK and 3D Slicer: transforms of any kind in .h5, .tfm, .txt and .mat."""

from dataclasses import replace
from pathlib import Path

from corereg.errors import InputError
from corereg.geometry.chain import offsets_mm
from corereg.io.atomic import atomic_path
from corereg.io.transforms.formats.common import is_matrix, stored_field
from corereg.io.transforms.formats.itk_extras import Extras, append_extras, read_extras
from corereg.io.transforms.formats.itk_field import field_grid, read_displacement_field, write_displacement_field
from corereg.io.transforms.formats.itk_h5 import ItkFile, read_h5, write_h5
from corereg.io.transforms.formats.itk_parts import parts_of_records
from corereg.io.transforms.formats.itk_records import chained, is_matlab, is_text, read_matlab, read_text
from corereg.io.transforms.formats.sitk_parts import first_grid, stored_to_sitk
from corereg.io.transforms.formats.stored import Located, StoredTransform, grid_of
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
    """Read any ITK transform. A B-spline is sampled where the voxels of the fixed grid arrive.

    Raises:
        InputError: it is unreadable, its offsets are not finite, or the fixed image is missing though it is needed.
    """
    content = _content(path)
    extras = content.extras
    fixed, moving = fixed or extras.fixed, moving or extras.moving
    parts = parts_of_records(chained(content.records, path), fixed, path)
    names = extras.names if len(extras.names) == len(parts) else ()
    return StoredTransform(parts, fixed or first_grid(parts), moving, names, content.backward)


def write_field(path: Path, stored: StoredTransform) -> None:
    """Write all parts as one displacement field."""
    fixed = field_grid(path, stored.fixed or stored.fixed_grid)
    write_displacement_field(path, offsets_mm(stored.parts, grid_of(fixed, "fixed")), fixed)


def read_field(path: Path, fixed: Located | None, moving: Located | None) -> StoredTransform:
    """Read a displacement field.

    Raises:
        InputError: it is something else.
    """
    stored = stored_field(*read_displacement_field(path), moving)
    return stored if fixed is None else replace(stored, fixed=fixed)


def _content(path: Path) -> ItkFile:
    """The content of a file. Its first bytes say what it is, since several programs write .txt and .mat."""
    if path.suffix.lower() in H5_SUFFIXES:
        return read_h5(path)
    if is_text(path):
        return ItkFile(tuple(read_text(path)), read_extras(path))
    if is_matlab(path):
        return ItkFile(tuple(read_matlab(path)), Extras())
    if is_matrix(path):
        raise InputError(
            f"got {path}, a bare 4x4 matrix, which does not say whose it is; write it again by `corereg convert`",
            options="add --from niftyreg (world to world) or --from fsl (FLIRT)",
        )
    raise InputError(
        f"got {path}, which cannot be read as a transform of ITK or elastix; write it again, or say its format "
        "to `corereg convert`",
        options="add --from",
    )
