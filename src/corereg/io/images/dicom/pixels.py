"""The pixels of slices, rescaled each by its own slope and intercept (to Hounsfield units for CT).

pydicom decodes what is stored plainly; GDCM decodes what is compressed, from a copy that holds nothing but the pixels.
"""

import tempfile
import warnings
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from corereg.errors import InputError
from corereg.io.images.checks import one_line
from corereg.io.images.dicom.headers import Frame
from corereg.io.images.sizes import check_memory
from corereg.lazy import pydicom, simpleitk

__all__ = ["read_pixels"]

SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"

PIXEL_TAGS = (
    *("SamplesPerPixel", "PhotometricInterpretation", "Rows", "Columns", "NumberOfFrames"),
    *("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "PixelData"),
)

INTEGERS = (np.int16, np.int32)


def read_pixels(frames: Sequence[Frame], name: str) -> tuple[NDArray[Any], list[bool]]:
    """(I, J, M) of the M frames that can be read, in their order, and which of all frames these are.

    Integers remain integers if all slopes and intercepts are.

    Raises:
        InputError: no frame can be read, or they do not fit into the memory.
    """
    columns, rows = frames[0].size
    check_memory((columns, rows, len(frames)), np.dtype(np.float32).itemsize, name)
    of_file: dict[Path, list[int]] = defaultdict(list)
    for position, frame in enumerate(frames):
        of_file[frame.file].append(position)
    slices: dict[int, NDArray[Any]] = {}
    cause = ""
    for file, positions in of_file.items():
        try:
            stored = _stored_frames(file, (rows, columns))
        except Exception as error:  # pydicom and GDCM raise whatever a damaged file leads them to
            cause = one_line(error)
            continue
        slices |= {at: stored[frames[at].index] for at in positions if frames[at].index < len(stored)}
    if not slices:
        raise InputError(
            f"got {name}, whose pixels cannot be read ({cause}), expected an image series; export it again"
        )
    there = [at in slices for at in range(len(frames))]
    scalings = [(frame.slope, frame.intercept) for frame, read in zip(frames, there, strict=True) if read]
    return _rescaled(np.stack([slices[at] for at in sorted(slices)]), scalings).T, there


def _stored_frames(file: Path, size: tuple[int, int]) -> NDArray[Any]:
    """(N, rows, columns), as stored."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data = pydicom().dcmread(file, force=True)
        if "TransferSyntaxUID" not in data.file_meta:
            implicit = pydicom().uid.ImplicitVRLittleEndian
            explicit = pydicom().uid.ExplicitVRLittleEndian
            data.file_meta.TransferSyntaxUID = implicit if data.original_encoding[0] else explicit
        compressed = data.file_meta.TransferSyntaxUID.is_compressed
        pixels = _decoded_by_gdcm(data) if compressed else data.pixel_array
    if pixels.shape[-2:] != size or pixels.ndim > 3:
        raise ValueError(f"its pixels are of shape {pixels.shape}")
    return np.asarray(pixels).reshape(-1, *size)


def _decoded_by_gdcm(data: Any) -> NDArray[Any]:
    """Stored values. Without the other tags GDCM has nothing to rescale, to sort or to misread."""
    bare = pydicom().Dataset()
    for tag in PIXEL_TAGS:
        if tag in data:
            bare[tag] = data[tag]
    bare.SOPClassUID, bare.SOPInstanceUID = SECONDARY_CAPTURE, pydicom().uid.generate_uid()
    bare.file_meta = pydicom().dataset.FileMetaDataset()
    bare.file_meta.TransferSyntaxUID = data.file_meta.TransferSyntaxUID
    with tempfile.TemporaryDirectory(prefix="corereg-") as folder:
        file = Path(folder) / "pixels.dcm"
        bare.save_as(file, enforce_file_format=True)
        reader = simpleitk().ImageFileReader()
        reader.SetImageIO("GDCMImageIO")
        reader.SetFileName(str(file))
        return np.asarray(simpleitk().GetArrayFromImage(reader.Execute()))


def _rescaled(stored: NDArray[Any], scalings: Sequence[tuple[float, float]]) -> NDArray[Any]:
    """(M, rows, columns), each slice by its own slope and intercept."""
    if set(scalings) == {(1.0, 0.0)}:
        return stored
    ends = [slope * float(end) + base for slope, base in set(scalings) for end in (stored.min(), stored.max())]
    whole = stored.dtype.kind != "f" and all(slope.is_integer() and base.is_integer() for slope, base in scalings)
    dtype = next((dtype for dtype in INTEGERS if whole and _holds(dtype, ends)), np.float32)
    rescaled = np.empty(stored.shape, dtype)
    for index, (slope, base) in enumerate(scalings):
        rescaled[index] = stored[index] * np.float64(slope) + base
    return rescaled


def _holds(dtype: type[np.integer[Any]], ends: Sequence[float]) -> bool:
    return np.iinfo(dtype).min <= min(ends) and max(ends) <= np.iinfo(dtype).max
