"""Finds displacement fields by the challenge's names and reads them, whatever their format, in voxels.

Upstream: a folder of fields. Downstream: `score`.

Legend: disp_vox (3, I, J, K), u(x): index x of the fixed grid corresponds to index x + u(x) of the moving grid.
I J K voxel axes in array order.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from corereg.errors import InputError
from corereg.evaluation.cases import Case
from corereg.geometry.grid import HEADER_TOLERANCE_MM, Grid
from corereg.geometry.positions import moving_offsets_vox
from corereg.io.transforms.formats.itk_field import read_displacement_field
from corereg.io.transforms.formats.learn2reg import read_disp_vox
from corereg.io.transforms.formats.registry import SUFFIXES, detect_format
from corereg.io.transforms.formats.stored import grid_of
from corereg.io.transforms.transform import Transform

__all__ = ["MILLIMETRES", "VOXELS", "FieldFile", "find_field", "read_field"]

IN_FOLDER = "transform.nii.gz"
"""What a registration writes into a folder of its own."""
VOXELS, MILLIMETRES = "voxels", "millimetres"


@dataclass(frozen=True, slots=True)
class FieldFile:
    """A field as it was read.

    Args:
        disp_vox: (3, I, J, K), into the moving grid's indices.
        own_vox: (3, I, J, K), the same displacement in voxels of the fixed grid, for its regularity; `disp_vox` itself
            if both images share their voxel axes.
        unit: the unit of the numbers in the file, "voxels" or "millimetres".
    """

    disp_vox: NDArray[Any]
    own_vox: NDArray[Any]
    unit: str


def find_field(folder: Path, case: Case) -> Path | None:
    """The file of a pair's field: `disp_<fixed>_<modality>_<moving>_<modality>` or `disp_<fixed>_<moving>` with any
    ending that can be read, or transform.nii.gz in a folder of that name, or of the name that a batch gives it.
    """
    for name in case.field_names():
        for candidate in (*(folder / f"{name}{suffix}" for suffix in SUFFIXES), folder / name / IN_FOLDER):
            if candidate.is_file():
                return candidate
    batched = folder / f"{case.fixed.name}_{case.moving.name}" / IN_FOLDER
    return batched if batched.is_file() else None


def read_field(path: Path, fixed: Grid, moving: Grid) -> FieldFile:
    """Read a field of any format that `Transform.load` knows.

    Learn2Reg's are read as the challenge reads them: voxels stay voxels, without a detour through millimetres.

    Raises:
        InputError: it is unreadable, not finite, or not on the fixed grid.
    """
    form = detect_format(path, challenge=True)
    if form == "learn2reg":
        disp_vox = read_disp_vox(path, fixed.shape)
        return FieldFile(disp_vox, disp_vox, VOXELS)
    if form == "itk-field":
        total_mm, where = read_displacement_field(path)
        grid = grid_of(where, "fixed", path)
    else:
        transform = Transform.load(path, fixed=fixed, moving=moving, source_format=form)
        total_mm, grid = transform.total_mm(), transform.fixed_grid
    if not grid.close_to(fixed, HEADER_TOLERANCE_MM):
        raise InputError(
            f"got {path} on {grid}, expected the grid of the fixed image or, if it is labelled, of its label map: "
            f"{fixed}; is it the field of another pair, or are the labels yet to be resampled onto the image?"
        )
    own_vox = np.einsum("ac,cijk->aijk", fixed.inverse_affine[:3, :3], total_mm.astype(np.float64))
    if fixed.close_to(moving, HEADER_TOLERANCE_MM):
        return FieldFile(own_vox, own_vox, MILLIMETRES)
    return FieldFile(moving_offsets_vox(own_vox, fixed, moving), own_vox, MILLIMETRES)
