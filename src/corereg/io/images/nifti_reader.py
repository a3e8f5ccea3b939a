"""NIfTI files and nibabel images -> voxels and affine. No header is trusted: sizes are checked before reading."""

import math
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from warnings import warn

import numpy as np
from numpy.typing import NDArray

from corereg.errors import InputError
from corereg.geometry.grid import Grid
from corereg.io.images.checks import check_real, one_line, plausible_grid, scalar_volume_shape
from corereg.io.images.compression import GZIP_MAGIC, inflated
from corereg.io.images.nifti_geometry import check_spacing, header_affine, mm_affine, warn_of_doubtful_geometry
from corereg.io.images.sizes import check_compressed_size, check_memory, check_stored_size
from corereg.io.images.stored import StoredVolume
from corereg.lazy import nibabel

__all__ = ["NIFTI_SUFFIXES", "NiftiFile", "has_nifti_name", "open_nifti", "read_nifti", "volume_of_nibabel"]

NIFTI_SUFFIXES = (".nii", ".nii.gz", ".hdr", ".img", ".hdr.gz", ".img.gz")

SINGLE_FILE_MAGIC, PAIR_MAGIC = (b"n+1", b"n+2"), (b"ni1", b"ni2")

LARGEST_HEADER = 540
"""Bytes of a NIfTI-2 header; a NIfTI-1 header has 348."""

NO_EXTENSION_BYTES = 4
"""Bytes between the header of a single file and its first voxel, if the header does not say."""

LARGEST_OFFSET = 2**31
"""Where the voxels can begin: extensions hold kilobytes."""

MOST_AXES = 7


@dataclass(frozen=True, eq=False)
class NiftiFile:
    """A NIfTI file of any number of axes, of which only the header has been read.

    Args:
        header: as it is in the file, of nibabel's classes.
        shape: as declared; `read` gives an array of this shape.
        affine: (4, 4), voxel indices to RAS+ millimetres.
        usual_form: whether the affine is the form that the header prefers.
    """

    path: Path
    header: Any
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    affine: NDArray[np.float64]
    usual_form: bool

    @property
    def grid(self) -> Grid:
        """The grid of the first three axes.

        Raises:
            InputError: fewer axes, or an impossible geometry.
        """
        if len(self.shape) < 3:
            raise InputError(f"got {self.path} of shape {self.shape}, expected at least three axes; check the file")
        return plausible_grid(self.shape, self.affine, str(self.path))

    @property
    def step(self) -> float:
        """Distance between neighbouring values where integers are scaled, else 0."""
        slope, intercept = _scaling(self.header)
        return abs(slope) if self.dtype.kind in "iu" and (slope, intercept) != (1, 0) else 0.0

    def read(self) -> NDArray[Any]:
        """The voxels in native byte order: as stored, or float32 if the header scales them.

        Raises:
            InputError: not real numbers, fewer bytes than declared, a damaged gzip stream, or more than fits into the
                memory.
        """
        name = str(self.path)
        check_real(self.dtype, name)
        size = check_memory(self.shape, self.dtype.itemsize, name)
        path, start = _voxel_file(self.path), _voxel_offset(self.header, name)
        content = _first_bytes(path, start + size, self.path, warned=path == _header_file(self.path))
        check_stored_size(start + size, len(content), name)
        stored = np.frombuffer(content, self.dtype, count=math.prod(self.shape), offset=start)
        stored = stored.reshape(self.shape, order="F")
        slope, intercept = _scaling(self.header)
        if (slope, intercept) == (1, 0) or stored.dtype.kind not in "iuf":
            return stored.astype(self.dtype.newbyteorder("="))  # a copy, which can be written to
        scaled = np.empty(self.shape, np.float32, order="F")
        for last in range(self.shape[-1]):
            with np.errstate(over="ignore", invalid="ignore"):
                scaled[..., last] = stored[..., last] * np.float64(slope) + intercept
        return scaled


def has_nifti_name(path: Path) -> bool:
    """Whether the name is that of a NIfTI file, one of a pair included."""
    return path.name.lower().endswith(NIFTI_SUFFIXES)


def open_nifti(path: Path) -> NiftiFile:
    """Read the header of a NIfTI-1 or NIfTI-2 file, compressed or not, or of a pair of .hdr and .img.

    Raises:
        InputError: missing, not NIfTI, or a header that makes no sense.
    """
    name = str(path)
    header = _header(_first_bytes(_header_file(path), LARGEST_HEADER, path), path)
    axes = int(header["dim"][0])
    shape = tuple(int(n) for n in header["dim"][1 : 1 + axes])
    try:
        dtype = np.dtype(header.get_data_dtype())
    except Exception as error:  # nibabel's own, for a code that it does not know
        raise InputError(
            f"got {path}, a NIfTI file that is damaged ({one_line(error)}), expected a whole one; copy it again"
        ) from None
    if not 1 <= axes <= MOST_AXES or min(shape) < 1:
        raise InputError(
            f"got {name} of the dimensions {header['dim'].tolist()} in its header, expected 1 to 7 positive sizes; "
            "repair the header"
        )
    affine, usual = header_affine(header)
    return NiftiFile(path, header, shape, dtype, affine, usual)


def read_nifti(path: Path) -> StoredVolume:
    """Read one scalar volume.

    Raises:
        InputError: not a whole NIfTI file of one scalar volume with positive spacing.
    """
    file = open_nifti(path)
    check_spacing(file.header, str(path))
    shape = scalar_volume_shape(file.shape, file.dtype, str(path))
    warn_of_doubtful_geometry(file.header, shape, str(path))
    array = file.read().reshape(shape, order="F")
    return StoredVolume(array, file.affine, file.header if file.usual_form else None, file.step)


def volume_of_nibabel(image: Any, name: str) -> StoredVolume:
    """Read one scalar volume from a nibabel.SpatialImage.

    Raises:
        InputError: not one scalar volume with positive spacing.
    """
    shape = scalar_volume_shape(image.shape, np.dtype(image.get_data_dtype()), name)
    header = image.header if isinstance(image.header, nibabel().Nifti1Header) else None
    if header is not None:
        check_spacing(header, name)
        warn_of_doubtful_geometry(header, shape, name)
        header = header if header_affine(header)[1] else None
    array, step = _values_of_nibabel(image)
    return StoredVolume(array.reshape(shape, order="F"), mm_affine(image), header, step)


def _values_of_nibabel(image: Any) -> tuple[NDArray[Any], float]:
    """Integers stay as they are unless the header scales them; scaled values become float32. And their step."""
    from nibabel.arrayproxy import ArrayProxy

    data = image.dataobj
    if isinstance(data, ArrayProxy) and (data.slope, data.inter) != (1, 0):
        return np.asarray(data, dtype=np.float32), abs(float(data.slope)) if data.dtype.kind in "iu" else 0.0
    return np.asarray(data), 0.0


def _first_bytes(file: Path, size: int, asked: Path, *, warned: bool = False) -> bytes:
    """Up to this many bytes of a file, inflated if it is compressed.

    Args:
        warned: the file was opened before, so what is odd about it has been said.
    """
    try:
        with open(file, "rb") as stream:
            packed = stream.read(len(GZIP_MAGIC)) == GZIP_MAGIC
            there = file.stat().st_size
            if size > LARGEST_HEADER and not packed:
                check_stored_size(size, there, str(file))
            if there == 0:
                raise InputError(f"got {file}, which is empty (0 bytes), expected an image; copy or download it again")
            stream.seek(0)
            content = stream.read() if packed else stream.read(min(size, there))
    except (FileNotFoundError, IsADirectoryError):
        raise InputError(
            f"got {asked}, whose other file {file} is not there, expected both files of the pair; copy it too"
        ) from None
    if not packed and file.name.lower().endswith(".gz"):
        raise InputError(
            f"got {file}, which is not compressed by gzip, expected a .nii.gz image; rename it to what it is"
        )
    if not packed:
        return content
    if not (file.name.lower().endswith(".gz") or warned):
        warn(f"{file}: it is compressed by gzip, though its name does not end in .gz; rename it", stacklevel=2)
    if size > LARGEST_HEADER:
        check_compressed_size(size, len(content), str(file))
    try:
        return inflated(content, size)
    except (EOFError, zlib.error):
        raise InputError(
            f"got {file}, a gzip file that is cut short or damaged, expected a whole one; copy or download it again"
        ) from None


def _header(content: bytes, path: Path) -> Any:
    nib = nibabel()

    for header_class in (nib.Nifti1Header, nib.Nifti2Header):
        block = content[: header_class.sizeof_hdr]
        if len(block) == header_class.sizeof_hdr and header_class.may_contain_header(block):
            header = header_class(block, check=False)
            if header["magic"].item()[:3] in (*SINGLE_FILE_MAGIC, *PAIR_MAGIC):
                return header
    if nib.AnalyzeHeader.may_contain_header(content[: nib.AnalyzeHeader.sizeof_hdr]):
        raise InputError(
            f"got {path}, an Analyze image, which does not tell left from right, expected NIfTI; convert it"
        )
    raise InputError(f"got {path}, which is not a NIfTI image, expected one by its name; rename it to what it is")


def _is_pair(path: Path) -> bool:
    return path.name.lower().endswith((".hdr", ".img", ".hdr.gz", ".img.gz"))


def _header_file(path: Path) -> Path:
    return _partner(path, "hdr") if _is_pair(path) else path


def _voxel_file(path: Path) -> Path:
    return _partner(path, "img") if _is_pair(path) else path


def _partner(path: Path, extension: str) -> Path:
    """The header or the voxels of a pair, in the case of letters that the given name has."""
    name = path.name
    at = name.lower().rindex(".hdr" if ".hdr" in name.lower()[-7:] else ".img") + 1
    given = name[at : at + 3]
    return path.with_name(name[:at] + (extension.upper() if given.isupper() else extension) + name[at + 3 :])


def _voxel_offset(header: Any, name: str) -> int:
    offset = float(header["vox_offset"])
    if not 0 <= offset <= LARGEST_OFFSET:
        raise InputError(
            f"got {name} with its voxels at byte {offset:g}, expected a number from 0 to {LARGEST_OFFSET}; "
            "repair the header"
        )
    if header["magic"].item()[:3] not in SINGLE_FILE_MAGIC:
        return int(offset)
    return max(int(offset), int(header.sizeof_hdr)) if offset else int(header.sizeof_hdr) + NO_EXTENSION_BYTES


def _scaling(header: Any) -> tuple[float, float]:
    """Slope and intercept; a slope that is 0, NaN or infinite means neither, an intercept that is NaN means 0."""
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    if not math.isfinite(slope) or slope == 0:
        return 1.0, 0.0
    return slope, intercept if math.isfinite(intercept) else 0.0
