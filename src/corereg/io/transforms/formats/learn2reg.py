"""Learn2Reg: displacements in voxels, warped[x] = moving[x + u(x)], components in the order of the array's axes.

Newer tasks store (I, J, K, 3), float32, as NIfTI with an identity affine, or as the only array of an .npz. The first
tasks stored (3, I/2, J/2, K/2), float16, in full voxels, which the evaluation brings to full size by
`scipy.ndimage.zoom(u, 2, order=2)`; one of them stored (3, I, J, K). Neither holds the images' grids.
"""

import zipfile
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from corereg.errors import InputError
from corereg.geometry.grid import Grid, Matrix
from corereg.io.atomic import atomic_path
from corereg.io.images.nifti import header_of_grid, is_nifti, write_voxels
from corereg.io.transforms.formats.common import Located, grid_of, load_nifti, offsets, transform_of
from corereg.io.transforms.transform import Transform

__all__ = ["read_learn2reg", "write_learn2reg", "write_learn2reg_half"]

EXPECTED = "a Learn2Reg field of shape (I, J, K, 3), or (3, I/2, J/2, K/2) in an .npz"

ALIGNED = 2
"""NIFTI_XFORM_ALIGNED_ANAT: the sform code of the challenge's own files."""

HALF: Final = 0.5
ZOOM_ORDER: Final = 2
"""Of the resampling in the challenge's evaluation."""


def write_learn2reg(path: Path, transform: Transform) -> None:
    """Full resolution, .nii.gz or .npz."""
    disp_vox = offsets(transform, *_frames(transform.fixed, transform.moving, path))
    with atomic_path(path) as staged:
        if not is_nifti(path):
            np.savez_compressed(staged, disp_vox)
            return
        header = header_of_grid(Grid(transform.fixed_grid.shape, np.eye(4)))
        header.set_data_shape(disp_vox.shape)
        header.set_sform(np.eye(4), ALIGNED)
        write_voxels(staged, disp_vox, header)


def write_learn2reg_half(path: Path, transform: Transform) -> None:
    """Half resolution, float16, .npz.

    Raises:
        InputError: a fixed image of odd size, which the challenge's evaluation could not bring back.
    """
    from scipy.ndimage import zoom

    shape = transform.fixed_grid.shape
    if any(n % 2 for n in shape):
        raise InputError(f"got a fixed image of {shape} voxels, expected even sizes for half a grid; use learn2reg")
    disp_vox = offsets(transform, *_frames(transform.fixed, transform.moving, path))
    half = np.stack([zoom(disp_vox[..., axis], HALF, order=ZOOM_ORDER) for axis in range(3)])
    with atomic_path(path) as staged:
        np.savez_compressed(staged, half.astype(np.float16))


def read_learn2reg(path: Path, fixed: Located | None, moving: Located | None) -> Transform:
    """Any of them, told apart by shape.

    Raises:
        InputError: no such field, or the images are missing or of another size.
    """
    frames = _frames(fixed, moving, path)
    shape = grid_of(fixed, "fixed", path).shape
    values = load_nifti(path, EXPECTED)[0] if is_nifti(path) else _only_array(path)
    assert fixed is not None
    return transform_of(_full(values, shape), fixed, moving, frames, path)


def _frames(fixed: Located | None, moving: Located | None, path: Path) -> tuple[Matrix, Matrix]:
    """Voxels of either image."""
    return grid_of(fixed, "fixed", path).inverse_affine, grid_of(moving, "moving", path).inverse_affine


def _full(values: NDArray[Any], shape: tuple[int, int, int]) -> NDArray[Any]:
    """(I, J, K, 3) of any of the layouts; what is none of them is left for the check of the shape."""
    if values.shape == (3, *shape):
        return np.moveaxis(values, 0, -1)
    if values.shape == (3, *(n // 2 for n in shape)) and not any(n % 2 for n in shape):
        from scipy.ndimage import zoom

        half = values.astype(np.float32)
        return np.stack([zoom(half[axis], 1 / HALF, order=ZOOM_ORDER) for axis in range(3)], -1)
    return values


def _only_array(path: Path) -> NDArray[Any]:
    try:
        with np.load(path, allow_pickle=False) as content:
            arrays = [content[key] for key in content.files]
    except (OSError, EOFError, ValueError, zipfile.BadZipFile):
        raise InputError(f"got {path}, which is damaged or no .npz, expected {EXPECTED}; copy it again") from None
    if len(arrays) != 1:
        raise InputError(f"got {path} with {len(arrays)} arrays, expected {EXPECTED}; save the field alone")
    return np.asarray(arrays[0])
