"""NIfTI files: voxels and affine out of them, and geometry back into them byte for byte."""

import gzip
import warnings
import zlib
from importlib import import_module
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from corereg.errors import InputError
from corereg.geometry.grid import Grid
from corereg.io.images.checks import one_line, scalar_volume_shape
from corereg.lazy import nibabel

__all__ = [
    "gzipped",
    "header_of_grid",
    "is_nifti",
    "mm_affine",
    "read_nifti",
    "stored_voxels",
    "volume_of_nibabel",
    "write_nifti",
    "write_voxels",
]

GZIP_MAGIC = b"\x1f\x8b"

COMPRESSION_LEVEL = 1
"""The fastest: on noisy scans the higher levels take several times longer for a few percent."""

BLOCK_BYTES = 2**20
"""Of voxels that are brought into the file's order and compressed at a time: as many as fit into the cache."""

GEOMETRY_FIELDS = (
    *("dim", "pixdim", "xyzt_units", "qform_code", "sform_code"),
    *("quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z"),
    *("srow_x", "srow_y", "srow_z"),
)

SCANNER = 1
"""NIFTI_XFORM_SCANNER_ANAT."""

SPACE_UNIT_BITS = 0b111
"""Of xyzt_units; the others are the unit of time."""

MM_PER_UNIT = {1: 1000.0, 2: 1.0, 3: 0.001}
"""NIFTI_UNITS_METER, _MM, _MICRON."""

NO_EXTENSION = bytes(4)
"""What follows a header without extensions."""

VECTOR_AXES, VECTOR_INTENT = 5, 1007
"""NIFTI_INTENT_VECTOR: with another intent ITK and ANTs read a field as something else, and do not always say so."""

DISAGREEMENT_MM = 0.1
"""Between sform and qform; below lie the rounding errors of quaternions in float32."""


def is_nifti(path: Path) -> bool:
    return path.name.lower().endswith((".nii", ".nii.gz"))


def read_nifti(path: Path) -> tuple[NDArray[Any], NDArray[np.float64], Any]:
    """Array (I, J, K) as stored, voxel-to-RAS affine (4, 4) and the header as it is in the file.

    Raises:
        InputError: not a whole NIfTI file of one scalar volume with positive spacing.
    """
    content = _content(path)
    image_class = _image_class(content, path)
    try:
        header = image_class.header_class(content[: image_class.header_class.sizeof_hdr], check=False)
        _check_spacing(header, str(path))  # before nibabel mends it
        array, affine, _ = volume_of_nibabel(image_class.from_bytes(content), str(path))
    except InputError:
        raise
    except _unreadable() as error:
        raise InputError(
            f"got {path}, a NIfTI file that is cut short or damaged ({one_line(error)}), expected a whole one; "
            "copy or download it again"
        ) from None
    return array, affine, header


def _content(path: Path) -> bytes:
    content = path.read_bytes()
    if not path.name.lower().endswith(".gz"):
        return content
    if not content.startswith(GZIP_MAGIC):
        raise InputError(
            f"got {path}, which is not compressed by gzip, expected a .nii.gz image; rename it to what it is"
        )
    try:
        return _decompressed(content)
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise InputError(
            f"got {path}, a gzip file that is cut short or damaged, expected a whole one; copy or download it again"
        ) from None


def _decompressed(content: bytes) -> bytes:
    """By ISA-L where it is installed, which leaves it to zlib to say what is wrong with a file."""
    try:
        return import_module("isal.igzip").decompress(content)  # type: ignore[no-any-return]
    except Exception:
        return gzip.decompress(content)


def _image_class(content: bytes, path: Path) -> Any:
    nib = nibabel()

    for image_class in (nib.Nifti1Image, nib.Nifti2Image):
        if image_class.header_class.may_contain_header(content[: image_class.header_class.sizeof_hdr]):
            return image_class
    raise InputError(f"got {path}, which is not a NIfTI image, expected one by its name; rename it to what it is")


def _unreadable() -> tuple[type[Exception], ...]:
    from nibabel.filebasedimages import ImageFileError
    from nibabel.spatialimages import HeaderDataError
    from nibabel.wrapstruct import WrapStructError

    return OSError, ValueError, OverflowError, ImageFileError, HeaderDataError, WrapStructError


def _check_spacing(header: Any, name: str) -> None:
    axes = min(3, int(header["dim"][0]))
    spacing = header["pixdim"][1 : 1 + axes]
    if not (spacing > 0).all():
        raise InputError(
            f"got {name} with the spacing {spacing.tolist()} in its header, expected positive numbers; "
            "repair the header"
        )


def volume_of_nibabel(image: Any, name: str) -> tuple[NDArray[Any], NDArray[np.float64], Any]:
    """Array (I, J, K) as stored, voxel-to-RAS affine (4, 4), and NIfTI header or None, of a nibabel.SpatialImage.

    Raises:
        InputError: not one scalar volume with positive spacing.
    """
    shape = scalar_volume_shape(image.shape, np.dtype(image.get_data_dtype()), name)
    header = image.header if isinstance(image.header, nibabel().Nifti1Header) else None
    affine = mm_affine(image)
    if header is not None:
        _check_spacing(header, name)
        _warn_of_doubtful_geometry(header, shape, name)
    return stored_voxels(image).reshape(shape, order="F"), affine, header


def mm_affine(image: Any) -> NDArray[np.float64]:
    """Voxel-to-RAS affine (4, 4) of a nibabel image in millimetres, whatever the unit of its header."""
    affine = np.array(image.affine if image.affine is not None else np.eye(4), dtype=np.float64)
    if isinstance(image.header, nibabel().Nifti1Header):
        affine[:3] *= MM_PER_UNIT.get(int(image.header["xyzt_units"]) & SPACE_UNIT_BITS, 1.0)
    return affine


def stored_voxels(image: Any) -> NDArray[Any]:
    """Integers stay as they are unless the header scales them; what is scaled becomes float32."""
    from nibabel.arrayproxy import ArrayProxy

    data = image.dataobj
    if isinstance(data, ArrayProxy) and (data.slope, data.inter) != (1, 0):
        return np.asarray(data, dtype=np.float32)
    return np.asarray(data)


def _warn_of_doubtful_geometry(header: Any, shape: tuple[int, int, int], name: str) -> None:
    sform, qform = header.get_sform(coded=True)[0], header.get_qform(coded=True)[0]
    if sform is None and qform is None:
        warnings.warn(
            f"{name}: neither sform nor qform is set, so its place in the world is a guess (right to left along the "
            "first axis, centred at 0) that other tools do not share; set its sform",
            stacklevel=2,
        )
    elif sform is not None and qform is not None:
        apart = np.abs(sform - qform)[:3] @ (*shape, 1)  # at most, over the volume
        if apart.max() > DISAGREEMENT_MM:
            warnings.warn(
                f"{name}: its sform and its qform disagree by up to {apart.max():.3g} mm; the sform is used, "
                "some tools take the other",
                stacklevel=2,
            )


def write_nifti(path: Path, array: NDArray[Any], grid: Grid, header: Any = None, *, series: Any = None) -> None:
    """Write (I, J, K) with the geometry of `header`, byte for byte, or else with that of `grid` in sform and qform.

    An array (I, J, K, 1, 3) is written as a field of vectors, unless it is a series. The same array always gives the
    same bytes.

    Args:
        series: the header of a series, whose further axes those of an array (I, J, K, ...) are.
    """
    new = header_of_grid(grid) if header is None else _header_like(header)
    if series is not None:
        _declare_series(new, array.shape, series)
    elif array.ndim == VECTOR_AXES:
        _declare_vectors(new, array.shape, grid)
    write_voxels(path, array, new)


def write_voxels(path: Path, array: NDArray[Any], header: Any) -> None:
    """Write an array under a header that says everything but its type."""
    new = header.copy()
    new.set_data_dtype(array.dtype)
    new["scl_slope"], new["scl_inter"] = 1, 0
    new["vox_offset"] = new.sizeof_hdr + len(NO_EXTENSION)
    new["descrip"] = b"corereg"
    dtype = array.dtype.newbyteorder(new.endianness)
    rows, columns, slices = array.shape[:3]
    step = max(1, BLOCK_BYTES // (rows * columns * array.itemsize))
    # nibabel's own writer would mend the header on its way out, and be slower.
    with open(path, "wb") as file, _compressed(file) if path.name.lower().endswith(".gz") else file as stream:
        stream.write(new.binaryblock + NO_EXTENSION)
        for index in np.ndindex(array.shape[:2:-1]):
            volume = array[(..., *index[::-1])]
            for start in range(0, slices, step):
                stream.write(np.ascontiguousarray(volume[:, :, start : start + step].T, dtype=dtype).data)


def gzipped(content: bytes) -> bytes:
    """A gzip file's content, the same every time, by ISA-L where it is installed."""
    memory = BytesIO()
    with _compressed(memory) as stream:
        stream.write(content)
    return memory.getvalue()


def _compressed(file: BinaryIO | BytesIO) -> Any:
    """A gzip stream into a file, by ISA-L where it is installed: ten times as fast for files of the same size."""
    try:
        igzip = import_module("isal.igzip")
    except ImportError:
        return gzip.GzipFile("", "wb", COMPRESSION_LEVEL, file, mtime=0)
    return igzip.IGzipFile("", "wb", COMPRESSION_LEVEL, file, mtime=0)


def _declare_vectors(header: Any, shape: tuple[int, ...], grid: Grid) -> None:
    header["dim"][: VECTOR_AXES + 1] = (VECTOR_AXES, *shape)
    header["pixdim"][4:6] = 1
    header["intent_code"] = VECTOR_INTENT
    # Tools differ in which of the two they read: a field must have both.
    if header["sform_code"] == 0:
        header.set_sform(grid.affine, int(header["qform_code"]) or SCANNER)
    if header["qform_code"] == 0:
        header.set_qform(grid.affine, int(header["sform_code"]), strip_shears=True)


def _declare_series(header: Any, shape: tuple[int, ...], series: Any) -> None:
    header["dim"][: len(shape) + 1] = (len(shape), *shape)
    header["pixdim"][4:] = series["pixdim"][4:]
    header["xyzt_units"] = (int(header["xyzt_units"]) & SPACE_UNIT_BITS) | (
        int(series["xyzt_units"]) & ~SPACE_UNIT_BITS
    )
    for field in ("intent_code", "intent_name", "intent_p1", "intent_p2", "intent_p3", "toffset"):
        header[field] = series[field]


def _header_like(header: Any) -> Any:
    new = _single_file_header(header)
    for field in GEOMETRY_FIELDS:
        new[field] = header[field]
    return new


def _single_file_header(header: Any) -> Any:
    nib = nibabel()

    header_class = nib.Nifti2Header if isinstance(header, nib.Nifti2Header) else nib.Nifti1Header
    return header_class(endianness=header.endianness)


def header_of_grid(grid: Grid) -> Any:
    """A NIfTI-1 header with the geometry of a grid in sform and qform, millimetres."""
    nib = nibabel()

    new = nib.Nifti1Header()
    new.set_data_shape(grid.shape)
    new.set_xyzt_units("mm")
    new.set_sform(grid.affine, SCANNER)
    new.set_qform(grid.affine, SCANNER)
    return new
