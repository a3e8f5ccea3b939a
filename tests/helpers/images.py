"""Arrays and NIfTI files for tests of reading and writing."""

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from numpy.typing import NDArray

from corereg.geometry.grid import Grid

FLOAT32_MM = 2e-5
"""Rounding of a NIfTI origin of some 200 mm, which is float32."""


def ramp(grid: Grid, dtype: Any = np.int16) -> NDArray[Any]:
    """Every voxel another value, so that no permutation of axes goes unseen."""
    return (np.arange(np.prod(grid.shape)).reshape(grid.shape) - 1000).astype(dtype)


def save_nifti(path: Path, array: NDArray[Any], affine: NDArray[Any], **fields: Any) -> Path:
    """A NIfTI file by nibabel, with header fields forced in afterwards, nibabel's checks notwithstanding."""
    image = nibabel.Nifti1Image(array, affine)
    image.to_filename(path)
    if fields:
        content = bytearray(path.read_bytes())
        header = nibabel.Nifti1Header(bytes(content[:348]), check=False)
        for field, value in fields.items():
            header[field] = value
        content[:348] = header.binaryblock
        path.write_bytes(content)
    return path


def stored_along(axes: str, array: NDArray[Any], grid: Grid) -> tuple[NDArray[Any], Grid]:
    """The same voxels in the same places, with array axes along the letters of `axes`, such as "LPS". By nibabel."""
    wanted = nibabel.orientations.axcodes2ornt(axes)
    turn = nibabel.orientations.ornt_transform(nibabel.io_orientation(grid.affine), wanted)
    turned = nibabel.Nifti1Image(array, grid.affine).as_reoriented(turn)
    return np.asarray(turned.dataobj), Grid(turned.shape, turned.affine)
