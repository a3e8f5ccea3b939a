"""Transforms of the made-up patient, and grids to apply them on."""

from functools import cache
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import SimpleITK
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from corereg.geometry.displacement import Displacement
from corereg.geometry.grid import Grid
from corereg.io.images.image import Image
from corereg.io.transforms.formats.registry import FORMATS
from corereg.io.transforms.transform import Transform
from helpers.grids import ORIENTATIONS
from helpers.scenes import Map, centred_grid, voxels_mm, wave

FIXED = centred_grid((26, 24, 30), (4.0, 4.2, 3.0), "oblique")
MOVING = centred_grid((27, 24, 31), (4.0, 4.5, 3.5), "oblique", (-3.0, 6.0, 2.0))
RANGE_HU = 1300.0
TOLERANCE_HU = 1e-4 * RANGE_HU

FILES = {
    "itk": "transform.h5",
    "itk-field": "transform.nii.gz",
    "ants": "pair_",
    "learn2reg": "disp_0001_0002.nii.gz",
    "niftyreg": "deformation.nii.gz",
    "niftyreg-displacement": "displacement.nii.gz",
    "fsl": "warp.nii.gz",
    "numpy": "transform.npz",
}
"""A file name for each format that keeps the resolution."""


def small_affine() -> NDArray[np.float64]:
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler("xyz", [4.0, -3.0, 6.0], degrees=True).as_matrix() @ np.diag(
        [1.05, 0.96, 1.02]
    )
    matrix[:3, 3] = 3.0, -5.0, 2.0
    return matrix


@cache
def wave_displacement() -> Displacement:
    """On a working grid of its own, as in a registration."""
    grid = centred_grid((44, 42, 40), (3.2, 3.2, 3.2))
    points = voxels_mm(grid)
    return Displacement.from_mm(torch.as_tensor(np.moveaxis(wave(points) - points, -1, 0), dtype=torch.float32), grid)


def wavy(fixed: Image | Grid, moving: Image | Grid = MOVING) -> Transform:
    """A deformation, then an affine map: what a registration gives."""
    return Transform((wave_displacement(), small_affine()), fixed=fixed, moving=moving)


def away_from_border(transform: Transform, moving: Grid) -> NDArray[np.bool_]:
    """Voxels of the fixed grid, its faces left out, that are matched at least a voxel inside the moving grid."""
    coords = moving.to_voxel(transform.apply_points(voxels_mm(transform.fixed_grid)))
    inner = ((coords > 1) & (coords < np.array(moving.shape) - 2)).all(-1)
    mask = np.zeros_like(inner)
    mask[1:-1, 1:-1, 1:-1] = inner[1:-1, 1:-1, 1:-1]
    return mask


def reoriented(image: Image, letters: str) -> Image:
    """The same voxels stored in another order."""
    source = nibabel.Nifti1Image(image.array, image.grid.affine)
    to = nibabel.orientations.ornt_transform(
        nibabel.orientations.io_orientation(image.grid.affine), nibabel.orientations.axcodes2ornt(letters)
    )
    stored = source.as_reoriented(to)
    return Image(np.asarray(stored.dataobj), Grid(stored.shape, stored.affine))


def label_map(grid: Grid, dtype: type, into_patient: Map = lambda points_mm: points_mm) -> Image:
    """Nested regions with labels that a linear interpolation would fill up; `into_patient` as in `scan`."""
    distance = np.linalg.norm(into_patient(voxels_mm(grid)), axis=-1)
    return Image(np.select([distance < 15, distance < 30, distance < 42], [3, 90, 17], 0).astype(dtype), grid)


def written(transform: Transform, folder: Path, name: str, file: str | None = None) -> Path:
    path = folder / (file or FILES[name])
    FORMATS[name].write(path, transform.stored())
    return path


FIELD_SUFFIXES = [".nii.gz", ".nrrd", ".mha"]


def fixed_grid(orientation: str) -> Grid:
    return centred_grid((26, 23, 29), (4.0, 4.0, 3.0), orientation)


# Each orientation, and each format; the two have nothing to do with each other.
in_each_orientation_and_format = pytest.mark.parametrize(
    ("fixed", "suffix"),
    [*((orientation, ".nii.gz") for orientation in ORIENTATIONS), ("oblique", ".nrrd"), ("PIR", ".mha")],
    indirect=["fixed"],
)


on_an_oblique_image = pytest.mark.parametrize("fixed", ["oblique"], indirect=True)


def sitk_transform(path: Path) -> Any:
    return SimpleITK.DisplacementFieldTransform(SimpleITK.ReadImage(str(path), SimpleITK.sitkVectorFloat64))


HEADER_GEOMETRY = (
    *("qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z"),
    *("srow_x", "srow_y", "srow_z", "xyzt_units"),
)
