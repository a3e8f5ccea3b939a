"""SimpleITK images and files. ITK counts world coordinates in LPS; they become RAS here and nowhere else."""

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from corereg.errors import InputError
from corereg.geometry.grid import Grid
from corereg.io.images.checks import one_line, scalar_volume_shape
from corereg.io.images.itk_headers import check_itk_header
from corereg.io.images.stored import StoredVolume
from corereg.lazy import simpleitk

__all__ = [
    "LPS_RAS",
    "LPS_SIGNS",
    "affine_from_sitk",
    "affine_of_sitk_image",
    "affine_to_sitk",
    "from_sitk",
    "itk_name",
    "itk_reader",
    "read_itk",
    "read_itk_image",
    "to_sitk",
    "vectors_of_sitk",
    "volume_of_sitk",
    "write_itk",
]

LPS_RAS: NDArray[np.float64] = np.diag([-1.0, -1.0, 1.0, 1.0])
"""(4, 4), its own inverse."""

LPS_SIGNS: NDArray[np.float32] = np.diag(LPS_RAS)[:3].astype(np.float32)
"""(3,), the same for the components of an offset."""

STAND_INS: dict[np.dtype[Any], type] = {np.dtype(bool): np.uint8, np.dtype(np.float16): np.float32}

COMPRESSION_LEVEL = 1
"""zlib's fastest: on noisy scans the higher levels take several times longer for a few percent."""


def to_sitk(array: NDArray[Any], grid: Grid) -> Any:
    """A SimpleITK.Image of a scalar array (I, J, K), or of components last (I, J, K, C), which are left as they are.

    ITK has no bool and no float16: they become uint8 and float32.
    """
    sitk = simpleitk()

    assert array.shape[:3] == grid.shape, f"array of shape {array.shape} on the grid {grid}"
    array = array.astype(STAND_INS.get(array.dtype, array.dtype), copy=False)
    image = sitk.GetImageFromArray(np.ascontiguousarray(np.swapaxes(array, 0, 2)), isVector=array.ndim == 4)
    affine = LPS_RAS @ grid.affine + 0.0  # adding 0 turns -0 into 0
    image.SetOrigin(affine[:3, 3].tolist())
    image.SetSpacing(grid.spacing)
    image.SetDirection((affine[:3, :3] / grid.spacing).ravel().tolist())
    return image


def from_sitk(image: Any) -> tuple[NDArray[Any], Grid]:
    """Array (I, J, K) and grid of a scalar 3-D SimpleITK.Image.

    Raises:
        InputError: not one scalar volume, or a singular geometry.
    """
    stored = volume_of_sitk(image, "a SimpleITK image")
    i, j, k = stored.array.shape
    return stored.array, Grid((i, j, k), stored.affine)


def volume_of_sitk(image: Any, name: str) -> StoredVolume:
    """Read one scalar volume from a SimpleITK.Image; a single frame of a series counts as one.

    Raises:
        InputError: not one scalar volume.
    """
    complex_or_vector = image.GetNumberOfComponentsPerPixel() > 1 or "complex" in image.GetPixelIDTypeAsString()
    dtype = np.dtype("V") if complex_or_vector else np.dtype(float)
    shape = scalar_volume_shape(image.GetSize(), dtype, name)
    array = simpleitk().GetArrayFromImage(image).T.reshape(shape, order="F")
    return StoredVolume(array, affine_of_sitk_image(image))


def affine_of_sitk_image(image: Any) -> NDArray[np.float64]:
    """Voxel-to-RAS affine (4, 4) of the first three axes of an image, or of a reader that knows its header."""
    axes = image.GetDimension()
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (axes, axes))[:3, :3] * image.GetSpacing()[:3]
    affine[:3, 3] = image.GetOrigin()[:3]
    return LPS_RAS @ affine + 0.0


def vectors_of_sitk(image: Any) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """Vectors (I, J, K, C) as stored, in LPS, and voxel-to-RAS affine (4, 4) of a 3-D SimpleITK.Image of vectors."""
    return simpleitk().GetArrayFromImage(image).transpose(2, 1, 0, 3), affine_of_sitk_image(image)


def itk_reader(path: Path) -> Any:
    """An ImageFileReader that has read the header of a .nrrd, .nhdr, .mha or .mhd.

    Raises:
        InputError: not readable, or a header that is not safe to read.
    """
    check_itk_header(path)
    reader = simpleitk().ImageFileReader()
    reader.SetFileName(itk_name(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise _unreadable(path, error) from None
    return reader


def read_itk_image(reader: Any) -> Any:
    """The image whose header `itk_reader` has read.

    Raises:
        InputError: its voxels cannot be read.
    """
    try:
        return reader.Execute()
    except RuntimeError as error:
        raise _unreadable(reader.GetFileName(), error) from None


def read_itk(path: Path) -> StoredVolume:
    """Read one scalar volume from a .nrrd, .nhdr, .mha or .mhd.

    Raises:
        InputError: not readable, or not one scalar volume.
    """
    return volume_of_sitk(read_itk_image(itk_reader(path)), str(path))


def itk_name(path: Path) -> str:
    """A path as ITK takes it. A name that is not UTF-8 would end the process.

    Raises:
        InputError: such a name.
    """
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise InputError(
            f"got {os.fsencode(path)!r}, a name that is not UTF-8, expected one that is; rename the file or its folder"
        ) from None
    return str(path)


def _unreadable(path: object, error: BaseException) -> InputError:
    return InputError(
        f"got {path}, which cannot be read ({one_line(error)}), expected a whole image; copy or export it again"
    )


def write_itk(path: Path, array: NDArray[Any], grid: Grid, *, time: tuple[float, float] | None = None) -> None:
    """Write a scalar array (I, J, K), or components last (I, J, K, C), in the format that the extension names.

    Args:
        time: origin and spacing of a fourth axis, along which the components are frames.
    """
    sitk = simpleitk()

    if time is None:
        image = to_sitk(array, grid)
    else:
        image = sitk.JoinSeries([to_sitk(array[..., frame], grid) for frame in range(array.shape[3])], *time)
    sitk.WriteImage(image, itk_name(path), useCompression=True, compressionLevel=COMPRESSION_LEVEL)


def affine_from_sitk(transform: Any) -> NDArray[np.float64]:
    """(4, 4) matrix of RAS+ millimetres of a linear SimpleITK transform, whatever its centre."""
    points = np.concatenate([np.zeros((1, 3)), np.eye(3)])
    moved = np.array([transform.TransformPoint(p.tolist()) for p in points])
    matrix = np.eye(4)
    matrix[:3, :3] = (moved[1:] - moved[0]).T
    matrix[:3, 3] = moved[0]
    return LPS_RAS @ matrix @ LPS_RAS


def affine_to_sitk(matrix: NDArray[np.float64]) -> Any:
    """A SimpleITK.AffineTransform of a (4, 4) matrix of RAS+ millimetres."""
    lps = LPS_RAS @ matrix @ LPS_RAS
    transform = simpleitk().AffineTransform(3)
    transform.SetMatrix(lps[:3, :3].ravel().tolist())
    transform.SetTranslation(lps[:3, 3].tolist())
    return transform
