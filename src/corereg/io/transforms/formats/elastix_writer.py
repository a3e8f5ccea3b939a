"""elastix: write transform parameter files for `transformix`; `elastix` reads them and explains the format.

NAME.txt holds the affine part and begins with NAME_deformation.txt, whose field is the image NAME_deformation.nii.gz.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from corereg.geometry.chain import offsets_mm
from corereg.geometry.grid import Grid
from corereg.io.atomic import atomic_path
from corereg.io.images.itk import LPS_RAS
from corereg.io.transforms.formats.common import warp_and_affine
from corereg.io.transforms.formats.elastix import FIELD, FIELD_FILE, INITIAL, NONE
from corereg.io.transforms.formats.itk_field import field_grid, write_displacement_field
from corereg.io.transforms.formats.stored import StoredTransform, grid_of

__all__ = ["elastix_files", "write_elastix"]

Value = str | int | NDArray[np.float64]
"""A quoted word, a number or a row of numbers."""

RESAMPLING: dict[str, Value] = {
    "ResampleInterpolator": "FinalLinearInterpolator",
    "Resampler": "DefaultResampler",
    "DefaultPixelValue": 0,
    "ResultImageFormat": "nii.gz",
    "ResultImagePixelType": "float",
}
"""What `transformix` does unless the user edits it."""


def elastix_files(name: str) -> tuple[str, str]:
    """The names of the parameter file of the deformation and of its field, for that of the whole."""
    stem = Path(name).stem
    return f"{stem}_deformation.txt", f"{stem}_deformation.nii.gz"


def write_elastix(path: Path, stored: StoredTransform) -> None:
    """Write the matrices after the last displacement as one file, and all parts before them as another with a field.

    Raises:
        InputError: the fixed grid is unknown, onto which `transformix` resamples.
    """
    warp, affine = warp_and_affine(stored)
    grid = stored.fixed_grid
    with atomic_path(path) as staged:
        if not warp:
            _write(staged, grid, _affine(affine), NONE)
            return
        text, field = map(staged.with_name, elastix_files(path.name))
        like = field_grid(field, stored.fixed or grid)
        write_displacement_field(field, offsets_mm(warp, grid_of(like, "fixed")), like)
        _write(text, grid, {"Transform": FIELD, "NumberOfParameters": 0, FIELD_FILE: field.name}, NONE)
        _write(staged, grid, _affine(affine), text.name)


def _affine(matrix: NDArray[np.float64]) -> Mapping[str, Value]:
    lps = LPS_RAS @ matrix @ LPS_RAS
    return {
        "Transform": "AffineTransform",
        "NumberOfParameters": 12,
        "TransformParameters": np.concatenate([lps[:3, :3].ravel(), lps[:3, 3]]),
        "CenterOfRotationPoint": np.zeros(3),
    }


def _write(path: Path, grid: Grid, transform: Mapping[str, Value], initial: str) -> None:
    affine = LPS_RAS @ grid.affine + 0.0
    spacing = np.array(grid.spacing)
    rows: dict[str, Value] = {
        **transform,
        INITIAL[0]: initial,
        INITIAL[1]: initial,  # as elastix 5.1 and later call it
        "HowToCombineTransforms": "Compose",
        "FixedImageDimension": 3,
        "MovingImageDimension": 3,
        "FixedInternalImagePixelType": "float",
        "MovingInternalImagePixelType": "float",
        "Size": np.array(grid.shape, dtype=np.float64),
        "Index": np.zeros(3),
        "Spacing": spacing,
        "Origin": affine[:3, 3],
        "Direction": (affine[:3, :3] / spacing).T.ravel(),
        "UseDirectionCosines": "true",
        **RESAMPLING,
    }
    path.write_text("".join(f"({key} {_text(value)})\n" for key, value in rows.items()), encoding="utf-8")


def _text(value: Value) -> str:
    if isinstance(value, str):
        return f'"{value}"'
    return " ".join(f"{number:.15g}" for number in np.atleast_1d(value))
