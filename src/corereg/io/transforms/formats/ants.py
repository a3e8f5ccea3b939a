"""ANTs: three files with a common prefix. T is the affine after the warp: `-t 1Warp.nii.gz -t 0GenericAffine.mat`.

The warp and its inverse both live on the fixed grid; `-t [0GenericAffine.mat,1] -t 1InverseWarp.nii.gz` leads back.
"""

from pathlib import Path

import torch

from corereg.errors import InputError
from corereg.geometry.chain import Part, inverse_parts, offsets_mm
from corereg.geometry.displacement import Displacement
from corereg.io.atomic import atomic_path
from corereg.io.images.itk import affine_to_sitk
from corereg.io.transforms.formats.common import warp_and_affine
from corereg.io.transforms.formats.itk import read_itk_transform
from corereg.io.transforms.formats.itk_field import field_grid, read_displacement_field, write_displacement_field
from corereg.io.transforms.formats.stored import Located, StoredTransform, grid_of
from corereg.lazy import simpleitk

__all__ = ["AFFINE", "ENDINGS", "WARP", "read_ants", "write_ants"]

ENDINGS = AFFINE, WARP, INVERSE_WARP = "0GenericAffine.mat", "1Warp.nii.gz", "1InverseWarp.nii.gz"


def write_ants(prefix: Path, stored: StoredTransform) -> None:
    """Write PREFIX0GenericAffine.mat, PREFIX1Warp.nii.gz and PREFIX1InverseWarp.nii.gz.

    The affine is made of the matrices at the end of the parts; everything before them becomes the warp.
    """
    warp, affine = warp_and_affine(stored)
    backward = stored.backward_parts
    fixed = field_grid(_with_prefix(prefix, WARP), stored.fixed or stored.fixed_grid)
    grid = grid_of(fixed, "fixed")
    with atomic_path(_with_prefix(prefix, WARP)) as staged:
        simpleitk().WriteTransform(affine_to_sitk(affine), str(staged.with_name(prefix.name + AFFINE)))
        write_displacement_field(staged, offsets_mm(warp, grid), fixed)
        back = inverse_parts(warp) if backward is None else (affine, *backward)
        write_displacement_field(staged.with_name(prefix.name + INVERSE_WARP), offsets_mm(back, grid), fixed)


def read_ants(prefix: Path, fixed: Located | None, moving: Located | None) -> StoredTransform:
    """Read the files of a prefix, one of which, the affine or the warp, may be missing.

    Raises:
        InputError: both are missing, or a file cannot be used.
    """
    files = {name: _with_prefix(prefix, name) for name in (AFFINE, WARP, INVERSE_WARP)}
    existing = {name: path for name, path in files.items() if path.is_file()}
    if not existing.keys() & {AFFINE, WARP}:
        raise InputError(f"got {prefix}, expected the prefix of {files[AFFINE]} and {files[WARP]}; check it")
    parts: list[Part] = []
    if WARP in existing:
        warp, grid = _field(existing[WARP])
        parts, fixed = [warp], fixed or grid
    affine = read_itk_transform(existing[AFFINE], None, None).parts if AFFINE in existing else ()
    backward = None
    if INVERSE_WARP in existing:
        backward = (*inverse_parts(affine), _field(existing[INVERSE_WARP])[0])
    return StoredTransform((*parts, *affine), fixed, moving, backward_parts=backward)


def _field(path: Path) -> tuple[Displacement, Located]:
    disp_mm, fixed = read_displacement_field(path)
    return Displacement.from_mm(torch.as_tensor(disp_mm), grid_of(fixed, "fixed", path)), fixed


def _with_prefix(prefix: Path, name: str) -> Path:
    return prefix.parent / (prefix.name + name)
