"""Images in and out: NIfTI, NRRD, MetaImage, DICOM folder, npz -> `Image`. Arrays are never reoriented."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from corereg.errors import InputError
from corereg.geometry.grid import Grid
from corereg.io.atomic import atomic_path, settle
from corereg.io.images.arrays import array_volume, is_array
from corereg.io.images.checks import (
    check_contrast,
    check_labelled,
    finite_intensities,
    plausible_grid,
    scalar_volume_shape,
    smallest_integers,
    warn_of_greys,
    whole_numbers,
)
from corereg.io.images.dicom.folder import read_dicom_folder
from corereg.io.images.dicom.label_objects import read_label_object
from corereg.io.images.itk import from_sitk, read_itk, to_sitk, write_itk
from corereg.io.images.memory import volume_in_memory
from corereg.io.images.nifti import is_nifti, write_nifti
from corereg.io.images.nifti_reader import has_nifti_name, read_nifti
from corereg.io.images.npz import read_npz
from corereg.io.images.ome_zarr import is_ome_zarr, read_ome_zarr
from corereg.io.images.stored import StoredVolume

__all__ = [
    "ITK_SUFFIXES",
    "Image",
    "as_image",
    "from_sitk",
    "opened",
    "read_image",
    "read_labels",
    "to_sitk",
    "write_image",
]

PathLike = str | os.PathLike[str]

ITK_SUFFIXES = (".nrrd", ".nhdr", ".mha", ".mhd")

KNOWN = "an image (.nii, .nii.gz, .hdr with .img, .nrrd, .nhdr, .mha, .mhd, .npz), a DICOM folder or an .ome.zarr"


@dataclass(frozen=True, eq=False)
class Image:
    """A volume, and where it lies in the patient.

    Args:
        array: (I, J, K), as stored.
        grid: its voxel-to-RAS grid, millimetres.
        header: the NIfTI header it came with, so that its geometry can be written back byte for byte; else None.
        name: what messages call it.
        series: the Series Instance UID, if it was read from DICOM.
        modality: the Modality that DICOM states, such as CT or MR.
        remarks: what the user should know about how it was chosen, one sentence each.
        files: those of the DICOM series that it was read from, in the order of the slices.
        label_names: what the labels mean, if it was read from a DICOM segmentation or structure set.

    Raises:
        InputError: the array has another shape than the grid.
    """

    array: NDArray[Any]
    grid: Grid
    header: Any = None
    name: str = "the image"
    series: str | None = None
    modality: str | None = None
    remarks: tuple[str, ...] = ()
    files: tuple[Path, ...] = ()
    label_names: Mapping[int, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.array.shape != self.grid.shape:
            raise InputError(
                f"got {self.name} of shape {self.array.shape} on a grid of shape {self.grid.shape}, expected equal "
                "shapes; give the array with its own grid"
            )


def read_image(path: PathLike, *, series: str | None = None) -> Image:
    """Read a scan: native byte order; integers stay unless scaled, all else is float32; NaN and inf are replaced.

    Args:
        path: a .nii, .nii.gz, .hdr, .nrrd, .nhdr, .mha, .mhd or .npz file, or a folder with a DICOM series.
        series: for a DICOM folder, the Series Instance UID to read. Without it, images are preferred to segmentations,
            doses and screenshots, and among images the series with the most slices is read.

    Raises:
        InputError: missing, unreadable, not one scalar 3-D volume, constant, or with an impossible geometry.
    """
    return as_image(path, series=series)


def read_labels(path: PathLike, like: Grid | None = None) -> Image:
    """Read a label map: an integer array with at least one voxel that is not 0. Floats close to integers are rounded.

    Many values that change from voxel to voxel, as those of a scan do, give a warning.

    Args:
        path: as for `read_image`, or a DICOM segmentation or structure set.
        like: the grid of the image that it belongs to, onto which DICOM objects are drawn.

    Raises:
        InputError: as for `read_image`; or floats that are not integers, or nothing but 0.
    """
    return as_image(path, labels=True, like=like)


def as_image(
    image: Any,
    *,
    labels: bool = False,
    series: str | None = None,
    blank: bool = False,
    like: Grid | None = None,
    affine: object = None,
    name: str = "the image",
) -> Image:
    """Make an `Image` of a path, an `Image`, a SimpleITK or nibabel image, a MetaTensor, or an array with an affine.

    Args:
        labels: check it as a label map (see `read_labels`) rather than as a scan (see `read_image`).
        series: for the path of a DICOM folder, as `read_image` takes it.
        blank: accept a scan without contrast and a label map without labels.
        like: for labels, as `read_labels` takes it.
        affine: for an array or tensor, (4, 4), voxel to RAS+ millimetres.
        name: what messages call an array or tensor.

    Raises:
        InputError: none of these, or as for `read_image` and `read_labels`.
    """
    if is_array(image):
        located, step = _located(array_volume(image, affine, name), name), 0.0
    elif affine is None:
        located, step = opened(image, series, labels=labels, like=like)
    else:
        raise InputError(f"got an affine for {name}, which is no array and has its own; leave the affine out")
    scalar_volume_shape(located.array.shape, located.array.dtype, located.name)
    if labels:
        array, check = whole_numbers(located.array, located.name, step), check_labelled
        warn_of_greys(array, located.name)
    else:
        array, check = finite_intensities(located.array, located.name, located.modality), check_contrast
    if not blank:
        check(array, located.name)
    return replace(located, array=array)


def opened(
    image: Any, series: str | None = None, *, labels: bool = False, like: Grid | None = None
) -> tuple[Image, float]:
    """The image of any source that `as_image` takes but an array, unchecked, and the step of its stored integers.

    Args:
        series, labels, like: as `as_image` takes them.

    Returns: the image, and the distance between neighbouring values that its file can express; 0 if it does not scale.
    """
    if isinstance(image, Image):
        return image, 0.0
    if isinstance(image, (str, os.PathLike)):
        drawn = read_label_object(Path(image), like) if labels else None
        stored, name = drawn or _read(Path(image), series), str(image)
    else:
        stored, name = volume_in_memory(image)
    return _located(stored, name), stored.step


def write_image(path: PathLike, array: NDArray[Any], like: Image | Grid, *, keep_float64: bool = False) -> None:
    """Write a scalar array (I, J, K) on the grid of `like`. The file appears when it is complete.

    If `like` has a NIfTI header and NIfTI is written, the geometry is that header's, byte for byte. bool is written as
    uint8, 64-bit integers as the smallest of uint8, int16, int32 and int64 that holds them, float64 as float32. The
    same array always gives the same bytes.

    Args:
        path: the output, ending in .nii, .nii.gz, .nrrd, .nhdr, .mha or .mhd.
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
    check_image_name(path)
    with atomic_path(path) as staged:
        if is_nifti(path):
            write_nifti(staged, array, grid, header)
        else:
            write_itk(staged, array, grid)


def check_image_name(path: Path) -> None:
    """Check that an image can be written under a name.

    Raises:
        InputError: its ending is that of no format.
    """
    if not is_nifti(path) and path.suffix.lower() not in ITK_SUFFIXES:
        raise InputError(f"got the output {path}, expected a name ending in .nii.gz, .nii, .nrrd or .mha; rename it")


def _storable(array: NDArray[Any], keep_float64: bool, name: str) -> NDArray[Any]:
    scalar_volume_shape(array.shape, array.dtype, name)
    if array.dtype.kind == "b":
        return array.astype(np.uint8)
    if array.dtype.kind == "f" and not (keep_float64 and array.dtype == np.float64):
        return array.astype(np.float32, copy=False)
    if array.dtype.kind in "iu" and array.dtype.itemsize == np.dtype(np.int64).itemsize:
        return smallest_integers(array, name)
    return array


def _read(path: Path, series: str | None = None) -> StoredVolume:
    """Read any supported source. Values are as they are in it."""
    settle(path.parent)
    if not path.exists():
        raise InputError(f"got {path}, which does not exist, expected {KNOWN}; check the path")
    if series is not None and not path.is_dir():
        raise InputError(f"got the series {series} for the file {path}, expected a DICOM folder; leave the series out")
    suffix = path.suffix.lower()
    try:
        if is_ome_zarr(path):
            return read_ome_zarr(path)
        if path.is_dir():
            return read_dicom_folder(path, series)
        if has_nifti_name(path):
            return read_nifti(path)
        if suffix in ITK_SUFFIXES:
            return read_itk(path)
        if suffix == ".npz":
            return read_npz(path)
    except PermissionError:
        raise InputError(f"got {path}, which may not be read, expected {KNOWN}; change its permissions") from None
    cure = "give the folder that it is in" if suffix in (".dcm", ".ima") else "convert it"
    raise InputError(f"got {path}, which is not an image by its name, expected {KNOWN}; {cure}")


def _located(stored: StoredVolume, name: str) -> Image:
    grid = plausible_grid(stored.array.shape, stored.affine, name)
    return Image(
        stored.array,
        grid,
        header=stored.header,
        name=name,
        series=stored.series,
        modality=stored.modality,
        remarks=stored.remarks,
        files=stored.files,
        label_names=stored.label_names,
    )
