"""Learn2Reg: displacements in voxels, warped[x] = moving[x + u(x)], components in the order of the array axes.

Newer tasks store (I, J, K, 3), float32, as NIfTI with an identity affine, or as the only array of an .npz. The first
tasks stored (3, I/2, J/2, K/2), float16, in voxels of the full size, which the evaluation enlarges by
`scipy.ndimage.zoom(u, 2, order=2)`; one of them stored (3, I, J, K). No file holds the grids of the images.

Legend: disp_vox (3, I, J, K), u(x): index x of the fixed image corresponds to index x + u(x) of the moving image.
"""

from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from corereg.errors import InputError
from corereg.geometry.grid import Grid, Matrix
from corereg.io.atomic import atomic_path
from corereg.io.images.nifti import header_of_grid, is_nifti, write_voxels
from corereg.io.images.nifti_reader import open_nifti
from corereg.io.images.npz import npz_arrays
from corereg.io.transforms.formats.common import offsets, stored_offsets
from corereg.io.transforms.formats.stored import Located, StoredTransform, grid_of

__all__ = [
    "read_disp_vox",
    "read_learn2reg",
    "write_disp_vox",
    "write_half_disp_vox",
    "write_learn2reg",
    "write_learn2reg_half",
]

EXPECTED = "a Learn2Reg field of shape (I, J, K, 3), or (3, I/2, J/2, K/2) in an .npz"

ALIGNED = 2
"""NIFTI_XFORM_ALIGNED_ANAT: the sform code of the challenge's own files."""

ZOOM_ORDER: Final = 2
"""The spline order that the challenge uses between half and full size."""


def write_learn2reg(path: Path, stored: StoredTransform) -> None:
    """Write full resolution as .nii.gz or .npz."""
    write_disp_vox(path, _disp_vox(path, stored))


def write_learn2reg_half(path: Path, stored: StoredTransform) -> None:
    """Write half resolution in float16 as .npz.

    Raises:
        InputError: the fixed image has an odd size, to which the challenge cannot enlarge a field.
    """
    write_half_disp_vox(path, _disp_vox(path, stored))


def read_learn2reg(path: Path, fixed: Located | None, moving: Located | None) -> StoredTransform:
    """Read a field of any of the layouts.

    Raises:
        InputError: it is something else, or the images are missing or of another size.
    """
    frames = _frames(fixed, moving, path)
    disp_vox = read_disp_vox(path, grid_of(fixed, "fixed", path).shape)
    assert fixed is not None
    return stored_offsets(np.moveaxis(disp_vox, 0, -1), fixed, moving, frames, path)


def write_disp_vox(path: Path, disp_vox: NDArray[np.float32]) -> None:
    """Write (3, I, J, K), float32, as (I, J, K, 3) to .nii.gz or .npz. The file appears when it is complete."""
    stored = np.moveaxis(disp_vox, 0, -1).astype(np.float32, copy=False)
    with atomic_path(path) as staged:
        if not is_nifti(path):
            np.savez_compressed(staged, stored)
            return
        i, j, k = disp_vox.shape[1:]
        header = header_of_grid(Grid((i, j, k), np.eye(4)))
        header.set_data_shape(stored.shape)
        header.set_sform(np.eye(4), ALIGNED)
        write_voxels(staged, stored, header)


def write_half_disp_vox(path: Path, disp_vox: NDArray[np.float32]) -> None:
    """Write (3, I, J, K) as (3, I/2, J/2, K/2), float16, to .npz. The file appears when it is complete.

    Raises:
        InputError: a size is odd.
    """
    shape = disp_vox.shape[1:]
    if any(n % 2 for n in shape):
        raise InputError(
            f"got a fixed image of {shape} voxels, expected even sizes for a field of half the size; write the field "
            "at full size"
        )
    with atomic_path(path) as staged:
        np.savez_compressed(staged, _zoomed(disp_vox, 0.5).astype(np.float16))


def read_disp_vox(path: Path, shape: tuple[int, int, int]) -> NDArray[Any]:
    """Read a field of any layout, as the challenge does: (3, I, J, K), for a fixed image of this shape.

    Raises:
        InputError: it is unreadable, of another shape, or not finite.
    """
    values = open_nifti(path).read() if is_nifti(path) else _only_array(path)
    if values.shape == (*shape, 3):
        values = np.moveaxis(values, -1, 0)
    elif values.shape == (3, *(n // 2 for n in shape)) and not any(n % 2 for n in shape):
        values = _zoomed(values.astype(np.float32), 2.0)
    if values.shape != (3, *shape):
        raise InputError(
            f"got {path} of shape {values.shape}, expected {(*shape, 3)} for the fixed image; is it the field of "
            "another pair?"
        )
    if not np.isfinite(values).all():
        raise InputError(f"got {path} with NaN or infinite displacements, expected a whole field; make it again")
    return values


def _disp_vox(path: Path, stored: StoredTransform) -> NDArray[np.float32]:
    return np.moveaxis(offsets(stored, *_frames(stored.fixed, stored.moving, path)), -1, 0)


def _frames(fixed: Located | None, moving: Located | None, path: Path) -> tuple[Matrix, Matrix]:
    """RAS+ millimetres to the voxels of either image."""
    return grid_of(fixed, "fixed", path).inverse_affine, grid_of(moving, "moving", path).inverse_affine


def _zoomed(disp_vox: NDArray[np.float32], factor: float) -> NDArray[np.float32]:
    """Each component at another size, as the challenge resizes it; the values stay voxels of the full size."""
    from scipy.ndimage import zoom

    return np.stack([zoom(component, factor, order=ZOOM_ORDER) for component in disp_vox])


def _only_array(path: Path) -> NDArray[np.float32]:
    arrays = list(npz_arrays(path).values())
    if len(arrays) != 1 or arrays[0].dtype.kind not in "iuf":
        raise InputError(
            f"got {path} with arrays of {', '.join(str(each.dtype) for each in arrays) or 'nothing'}, expected "
            f"{EXPECTED}; save the field alone"
        )
    with np.errstate(over="ignore"):
        return arrays[0].astype(np.float32)
