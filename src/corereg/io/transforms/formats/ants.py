"""ANTs: three files with a common prefix. T = affine after warp, as `-t 1Warp.nii.gz -t 0GenericAffine.mat` gives it.

The warp and its inverse both live on the fixed grid; `-t [0GenericAffine.mat,1] -t 1InverseWarp.nii.gz` leads back.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from corereg.errors import InputError
from corereg.geometry.chain import Part, inverse_part
from corereg.geometry.displacement import Displacement
from corereg.geometry.grid import Grid, Matrix
from corereg.io.atomic import atomic_path
from corereg.io.images.itk import affine_to_sitk
from corereg.io.transforms.formats.common import Located
from corereg.io.transforms.formats.itk import read_itk_transform
from corereg.io.transforms.formats.itk_field import read_displacement_field, write_displacement_field
from corereg.io.transforms.transform import Transform
from corereg.lazy import simpleitk

__all__ = ["AFFINE", "WARP", "read_ants", "write_ants"]

AFFINE, WARP, INVERSE_WARP = "0GenericAffine.mat", "1Warp.nii.gz", "1InverseWarp.nii.gz"


def write_ants(prefix: Path, transform: Transform) -> None:
    """PREFIX0GenericAffine.mat, PREFIX1Warp.nii.gz and PREFIX1InverseWarp.nii.gz.

    The affine is the matrices at the end of the parts; everything before is the warp.
    """
    first = len(transform.parts)
    while first and not isinstance(transform.parts[first - 1], Displacement):
        first -= 1
    affine: Matrix = np.eye(4)
    for matrix in transform.parts[first:]:
        affine = np.asarray(matrix) @ affine
    warp = Transform(transform.parts[:first], transform.fixed, moving=transform.fixed)
    fixed = transform.fixed_grid if transform.fixed is None else transform.fixed
    with atomic_path(_beside(prefix, WARP)) as staged:
        simpleitk().WriteTransform(affine_to_sitk(affine), str(staged.with_name(prefix.name + AFFINE)))
        write_displacement_field(staged, warp.total_mm(), fixed)
        back = warp.inverse()
        if transform.backward is not None:
            back = replace(transform.backward, parts=(affine, *transform.backward.parts), names=(), fixed=fixed)
        write_displacement_field(staged.with_name(prefix.name + INVERSE_WARP), back.total_mm(), fixed)


def read_ants(prefix: Path, fixed: Located | None, moving: Located | None) -> Transform:
    """The files of a prefix, of which the affine or the warp may be missing.

    Raises:
        InputError: neither is there, or a file cannot be used.
    """
    files = {name: _beside(prefix, name) for name in (AFFINE, WARP, INVERSE_WARP)}
    there = {name: path for name, path in files.items() if path.is_file()}
    if not there.keys() & {AFFINE, WARP}:
        raise InputError(f"got {prefix}, expected the prefix of {files[AFFINE]} and {files[WARP]}; check it")
    parts: list[Part] = []
    if WARP in there:
        warp, fixed_there = _field(there[WARP])
        parts, fixed = [warp], fixed or fixed_there
    affine = read_itk_transform(there[AFFINE], None, None).parts if AFFINE in there else ()
    backward = None
    if INVERSE_WARP in there:
        back = [*(inverse_part(matrix) for matrix in affine), _field(there[INVERSE_WARP])[0]]
        backward = Transform(tuple(back), moving, fixed)
    return Transform((*parts, *affine), fixed, moving, backward=backward)


def _field(path: Path) -> tuple[Displacement, Located]:
    disp_mm, fixed = read_displacement_field(path)
    return Displacement.from_mm(torch.as_tensor(disp_mm), fixed if isinstance(fixed, Grid) else fixed.grid), fixed


def _beside(prefix: Path, name: str) -> Path:
    return prefix.parent / (prefix.name + name)
