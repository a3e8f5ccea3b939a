"""Displacement fields of other people's making: found by the challenge's names, read in any form, in voxels.

Upstream: a folder of fields. Downstream: `score`.

Legend: disp_vox (3, I, J, K), u(x): index x of the fixed grid corresponds to index x + u(x) of the moving grid.
I J K voxel axes in array order.
"""

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from corereg.errors import InputError
from corereg.evaluation.cases import Case
from corereg.geometry.grid import HEADER_TOLERANCE_MM, Grid
from corereg.io.images.checks import one_line
from corereg.io.images.image import ITK_SUFFIXES
from corereg.io.images.nifti import is_nifti
from corereg.io.transforms.formats.itk_field import read_displacement_field
from corereg.lazy import nibabel

__all__ = ["FIELD_SUFFIXES", "FieldFile", "find_field", "read_field"]

FIELD_SUFFIXES = (".nii.gz", ".npz", ".nii", *ITK_SUFFIXES, ".h5", ".hdf5", ".tfm", ".txt", ".mat")
IN_FOLDER = "transform.nii.gz"
"""What a registration writes into a folder of its own."""
ZOOM_ORDER: Final = 2
"""Learn2Reg's reader of its older fields: `scipy.ndimage.zoom(component, 2, order=2)`."""
NIFTYREG_INTENT, FNIRT_INTENTS = b"NREG_TRANS", range(2006, 2010)
"""NIfTI intents of fields that mean something else than ITK's."""
PLAIN_KEY = "disp_mm"
VOXELS, MILLIMETRES = "voxels", "millimetres"


@dataclass(frozen=True, slots=True)
class FieldFile:
    """A field as it was read.

    Args:
        disp_vox: (3, I, J, K), into the moving grid's indices.
        own_vox: (3, I, J, K), the same displacement in voxels of the fixed grid, for its regularity; `disp_vox` itself
            where both images share their voxel axes.
        unit: of the numbers in the file, "voxels" or "millimetres".
    """

    disp_vox: NDArray[Any]
    own_vox: NDArray[Any]
    unit: str


def find_field(folder: Path, case: Case) -> Path | None:
    """The file of a pair's field: `disp_<fixed>_<modality>_<moving>_<modality>` or `disp_<fixed>_<moving>` with any
    ending that can be read, or transform.nii.gz in a folder so named.
    """
    for name in case.field_names():
        for candidate in (*(folder / f"{name}{suffix}" for suffix in FIELD_SUFFIXES), folder / name / IN_FOLDER):
            if candidate.is_file():
                return candidate
    return None


def read_field(path: Path, fixed: Grid, moving: Grid) -> FieldFile:
    """Read a field in Learn2Reg's new form (I, J, K, 3) or old one (3, I/2, J/2, K/2), as ITK writes it, or in any
    other form that `io.convert` knows.

    Learn2Reg's forms are read here as the challenge does, voxels to voxels, without a way through millimetres.

    Raises:
        InputError: unreadable, not finite, or not on the fixed grid.
    """
    name = path.name.lower()
    if name.endswith(".npz") and not _holds(path, PLAIN_KEY):
        return _in_voxels(_from_npz(path, fixed), path, fixed)
    if is_nifti(path):
        try:
            image = nibabel().load(path)
            values = np.asanyarray(image.dataobj)
        except Exception as error:  # nibabel raises a dozen kinds, all of which mean the same to the user
            raise InputError(
                f"got {path}, which cannot be read ({one_line(error)}), expected a displacement field; make it again"
            ) from None
        intent = image.header["intent_name"].item(), int(image.header["intent_code"])
        if intent[0] == NIFTYREG_INTENT or intent[1] in FNIRT_INTENTS:
            return _converted(path, fixed, moving)
        if values.ndim == 4 and values.shape[-1] == 3:
            return _in_voxels(np.moveaxis(values, -1, 0), path, fixed)
    elif not name.endswith(ITK_SUFFIXES):
        return _converted(path, fixed, moving)
    total_mm, where = read_displacement_field(path)
    grid = where if isinstance(where, Grid) else where.grid
    if not grid.close_to(fixed, HEADER_TOLERANCE_MM):
        raise InputError(
            f"got {path} on {grid}, expected the grid of the fixed image, {fixed}; is it the field of another pair?"
        )
    return _in_millimetres(total_mm, fixed, moving)


def _converted(path: Path, fixed: Grid, moving: Grid) -> FieldFile:
    """Whatever else the package reads: composites, affine matrices, the fields of NiftyReg and FSL."""
    from corereg.io.transforms.formats.registry import read_transform

    transform = read_transform(path, fixed=fixed, moving=moving)
    if not transform.fixed_grid.close_to(fixed, HEADER_TOLERANCE_MM):
        raise InputError(f"got {path} on {transform.fixed_grid}, expected the grid of the fixed image, {fixed}")
    return _in_millimetres(transform.total_mm(), fixed, moving)


def _holds(path: Path, key: str) -> bool:
    """Whether an archive has an array of that name."""
    try:
        with zipfile.ZipFile(path) as archive:
            return f"{key}.npy" in archive.namelist()
    except (OSError, zipfile.BadZipFile):
        return False


def _in_voxels(disp_vox: NDArray[Any], path: Path, fixed: Grid) -> FieldFile:
    if disp_vox.shape != (3, *fixed.shape):
        raise InputError(
            f"got {path} for {disp_vox.shape[1:]} voxels, expected {fixed.shape}, those of the fixed image; "
            "is it the field of another pair?"
        )
    if not np.isfinite(disp_vox).all():
        raise InputError(f"got {path} with NaN or infinite displacements, expected numbers everywhere; make it again")
    return FieldFile(disp_vox, disp_vox, VOXELS)


def _in_millimetres(total_mm: NDArray[np.float32], fixed: Grid, moving: Grid) -> FieldFile:
    own_vox = np.einsum("ac,cijk->aijk", fixed.inverse_affine[:3, :3], total_mm.astype(np.float64))
    if fixed.close_to(moving, HEADER_TOLERANCE_MM):
        return FieldFile(own_vox, own_vox, MILLIMETRES)
    matrix = fixed.to_voxels_of(moving)
    index = np.indices(fixed.shape, np.float64)
    there = np.einsum("ac,cijk->aijk", matrix[:3, :3], index + own_vox) + matrix[:3, 3].reshape(3, 1, 1, 1)
    return FieldFile(there - index, own_vox, MILLIMETRES)


def _from_npz(path: Path, fixed: Grid) -> NDArray[Any]:
    """(3, I, J, K) from an archive of one array, whatever its key: (I, J, K, 3), or the older (3, ...) at half size."""
    try:
        with np.load(path, allow_pickle=False) as content:
            arrays = [content[key] for key in content.files]
    except (OSError, EOFError, ValueError, zipfile.BadZipFile):
        raise InputError(
            f"got {path}, which is damaged or no npz file of plain arrays, expected one of numpy.savez; make it again"
        ) from None
    if len(arrays) != 1 or arrays[0].ndim != 4 or 3 not in (arrays[0].shape[0], arrays[0].shape[-1]):
        raise InputError(
            f"got {path} with arrays of shapes {[a.shape for a in arrays]}, expected one of (I, J, K, 3), or of "
            "(3, I/2, J/2, K/2) as older tasks have it; save the field alone"
        )
    array: NDArray[np.float32] = arrays[0].astype(np.float32)
    if array.shape[-1] == 3 and array.shape[:3] == fixed.shape:
        return np.moveaxis(array, -1, 0)
    halved = tuple(2 * size for size in array.shape[1:])
    if array.shape[0] == 3 and halved == fixed.shape:
        return np.stack([_doubled(component) for component in array])
    return array if array.shape[0] == 3 else np.moveaxis(array, -1, 0)


def _doubled(component: NDArray[np.float32]) -> NDArray[np.float32]:
    """(2 I, 2 J, 2 K) of (I, J, K), as the challenge reads its older fields; the values stay."""
    return np.asarray(ndimage.zoom(component, 2, order=ZOOM_ORDER))
