"""Images in and out: NIfTI, NRRD, MetaImage, DICOM folder, npz -> `Image`. Arrays are never reoriented."""

import os
import warnings
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from corereg.errors import InputError
from corereg.geometry.grid import HEADER_TOLERANCE_MM, Grid
from corereg.io.atomic import atomic_path
from corereg.io.images.checks import clean_intensities, integer_labels, scalar_volume_shape, smallest_integers
from corereg.io.images.dicom import read_dicom_folder
from corereg.io.images.itk import from_sitk, read_itk, to_sitk, write_itk
from corereg.io.images.memory import volume_in_memory
from corereg.io.images.nifti import is_nifti, read_nifti, write_nifti

__all__ = ["Image", "as_image", "from_sitk", "read_image", "read_labels", "read_mask", "to_sitk", "write_image"]

PathLike = str | os.PathLike[str]

ITK_SUFFIXES = (".nrrd", ".nhdr", ".mha", ".mhd")
KNOWN = "an image (.nii, .nii.gz, .nrrd, .nhdr, .mha, .mhd, .npz) or a DICOM folder"

RADCHEST_KEY, AFFINE_KEY = "ct", "affine"
RADCHEST_AXES = np.array([[0.0, 0.0, -0.8], [0.0, -0.8, 0.0], [-0.8, 0.0, 0.0]])
"""RAD-ChestCT: slices run down, rows to the back, columns from right to left, 0.8 mm each."""


@dataclass(frozen=True, eq=False)
class Image:
    """A volume, and where it lies in the patient.

    Args:
        array: (I, J, K), as stored.
        grid: its voxel-to-RAS grid, millimetres.
        header: the NIfTI header it came with, so that its geometry can be written back byte for byte; else None.
        name: what messages call it.

    Raises:
        InputError: the array has another shape than the grid.
    """

    array: NDArray[Any]
    grid: Grid
    header: Any = None
    name: str = "the image"

    def __post_init__(self) -> None:
        if self.array.shape != self.grid.shape:
            raise InputError(
                f"got {self.name} of shape {self.array.shape} on a grid of shape {self.grid.shape}, expected equal "
                "shapes; give the array with its own grid"
            )


def read_image(path: PathLike, *, series: str | None = None) -> Image:
    """Read a scan: native byte order; integers stay unless scaled, all else is float32; NaN and inf are replaced.

    Args:
        path: a .nii, .nii.gz, .nrrd, .nhdr, .mha, .mhd or .npz file, or a folder with a DICOM series.
        series: for a DICOM folder, the Series Instance UID to read instead of the largest series.

    Raises:
        InputError: missing, unreadable, not one scalar 3-D volume, constant, or with an impossible geometry.
    """
    return _checked(_read(Path(path), series))


def read_labels(path: PathLike) -> Image:
    """Read a label map: an integer array with at least one voxel that is not 0. Floats of integer value are cast.

    Raises:
        InputError: as for `read_image`; or floats that are not integers, or nothing but 0.
    """
    return _checked_labels(_read(Path(path)))


def read_mask(path: PathLike, *, like: Grid, of: str) -> Image:
    """Read a mask: a boolean array, true where the file is greater than 0.

    Args:
        like: the grid of the image that it belongs to, which its own must match.
        of: the name of that image, for messages.

    Raises:
        InputError: as for `read_image`; or on another grid, or empty.
    """
    mask = _read(Path(path))
    if not mask.grid.close_to(like, HEADER_TOLERANCE_MM):
        raise InputError(
            f"got the mask {mask.name} of {_where(mask.grid)}, expected the grid of {of}: {_where(like)}; "
            "resample the mask onto that image"
        )
    inside = mask.array > 0
    if not inside.any():
        raise InputError(
            f"got the mask {mask.name}, which is empty, expected voxels greater than 0; leave it out or redraw it"
        )
    return replace(mask, array=inside)


def as_image(image: Any, *, labels: bool = False) -> Image:
    """Make an `Image` of a path, an `Image`, a SimpleITK or nibabel image, or a MetaTensor, with the same checks.

    Args:
        labels: check it as `read_labels` does, not as `read_image`.

    Raises:
        InputError: none of these, or as for `read_image` and `read_labels`.
    """
    if isinstance(image, (str, os.PathLike)):
        image = _read(Path(image))
    elif not isinstance(image, Image):
        image = _located(*volume_in_memory(image))
    return _checked_labels(image) if labels else _checked(image)


def write_image(path: PathLike, array: NDArray[Any], like: Image | Grid, *, keep_float64: bool = False) -> None:
    """Write a scalar array (I, J, K) on the grid of `like`. The file appears when it is complete.

    Geometry is that of the NIfTI header of `like`, byte for byte, where it has one and NIfTI is written. bool is
    written as uint8, 64-bit integers as the smallest of uint8, int16, int32 that holds them, float64 as float32.
    The same array always gives the same bytes.

    Args:
        path: where to, ending in .nii, .nii.gz, .nrrd, .nhdr, .mha or .mhd.
        keep_float64: write float64 as it is.

    Raises:
        InputError: unknown extension, array of another shape, or a folder that is missing or not writable.
    """
    path = Path(path)
    grid, header = (like, None) if isinstance(like, Grid) else (like.grid, like.header)
    if array.shape != grid.shape:
        raise InputError(
            f"got an array of shape {array.shape} for {path}, expected {grid.shape}; give it with its own grid"
        )
    array = _storable(array, keep_float64, str(path))
    if is_nifti(path):
        with atomic_path(path) as staged:
            write_nifti(staged, array, grid, header)
    elif path.suffix.lower() in ITK_SUFFIXES:
        with atomic_path(path) as staged:
            write_itk(staged, array, grid)
    else:
        raise InputError(f"got the output {path}, expected a name ending in .nii.gz, .nii, .nrrd or .mha; rename it")


def _checked(image: Image) -> Image:
    scalar_volume_shape(image.array.shape, image.array.dtype, image.name)
    return replace(image, array=clean_intensities(image.array, image.name))


def _checked_labels(image: Image) -> Image:
    scalar_volume_shape(image.array.shape, image.array.dtype, image.name)
    return replace(image, array=integer_labels(image.array, image.name))


def _storable(array: NDArray[Any], keep_float64: bool, name: str) -> NDArray[Any]:
    scalar_volume_shape(array.shape, array.dtype, name)
    if array.dtype.kind == "b":
        return array.astype(np.uint8)
    if array.dtype.kind == "f" and not (keep_float64 and array.dtype == np.float64):
        return array.astype(np.float32, copy=False)
    if array.dtype.kind in "iu" and array.dtype.itemsize == np.dtype(np.int64).itemsize:
        return smallest_integers(array, name)
    return array


def _read(path: Path, series: str | None = None) -> Image:
    """Any supported source, with its geometry checked and its values as they are."""
    if not path.exists():
        raise InputError(f"got {path}, which does not exist, expected {KNOWN}; check the path")
    if series is not None and not path.is_dir():
        raise InputError(f"got the series {series} for the file {path}, expected a DICOM folder; leave the series out")
    header = None
    try:
        if path.is_dir():
            array, affine = read_dicom_folder(path, series)
        elif is_nifti(path):
            array, affine, header = read_nifti(path)
        elif path.suffix.lower() in ITK_SUFFIXES:
            array, affine = read_itk(path)
        elif path.suffix.lower() == ".npz":
            array, affine = _read_npz(path)
        else:
            cure = "give the folder that it is in" if path.suffix.lower() in (".dcm", ".ima") else "convert it"
            raise InputError(f"got {path}, which is not an image by its name, expected {KNOWN}; {cure}")
    except PermissionError:
        raise InputError(f"got {path}, which may not be read, expected {KNOWN}; ask for the permission") from None
    return _located(array, affine, header, str(path))


def _located(array: NDArray[Any], affine: NDArray[np.float64], header: Any, name: str) -> Image:
    i, j, k = array.shape
    try:
        grid = Grid((i, j, k), affine)
    except InputError as error:
        raise InputError(f"{name}: {error}") from None
    return Image(array, grid, header, name)


def _read_npz(path: Path) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """One array with an `affine` beside it or none, or `ct` as RAD-ChestCT has it (its origin is not published: 0 is
    put at the centre of the volume).
    """
    try:
        with np.load(path, allow_pickle=False) as content:
            names = [key for key in content.files if key != AFFINE_KEY]
            key = RADCHEST_KEY if RADCHEST_KEY in names else names[0] if len(names) == 1 else None
            array = content[key] if key else None
            affine = content[AFFINE_KEY] if AFFINE_KEY in content.files else None
    except (OSError, EOFError, ValueError, zipfile.BadZipFile):
        raise InputError(
            f"got {path}, which is damaged or no npz file of plain arrays, expected one of numpy.savez; write it again"
        ) from None
    if array is None:
        raise InputError(
            f"got {path} with the arrays {names}, expected a single one (and `{AFFINE_KEY}`, 4x4, to RAS mm); "
            "save it alone"
        )
    shape = scalar_volume_shape(array.shape, array.dtype, str(path))
    array = array.reshape(shape)
    if affine is not None:
        return array, np.asarray(affine, dtype=np.float64)
    affine = np.eye(4)
    if key == RADCHEST_KEY:
        affine[:3, :3] = RADCHEST_AXES
        affine[:3, 3] = -RADCHEST_AXES @ ((np.array(shape) - 1) / 2)
    else:
        warnings.warn(f"{path}: no `{AFFINE_KEY}` in it, so 1 mm voxels along R, A, S are assumed", stacklevel=2)
    return array, affine


def _where(grid: Grid) -> str:
    first = ", ".join(f"{x:.4g}" for x in grid.affine[:3, 3])
    return f"{grid} from ({first})"
