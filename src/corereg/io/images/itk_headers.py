"""MetaImage and NRRD headers, checked before ITK's parsers see them.

Those parsers trust a header: a `%` in the name of its data file is a format string, other names lead anywhere on the
disk, and sizes are allocated as declared.
"""

import math
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath

from corereg.errors import InputError
from corereg.io.images.compression import GZIP_MAGIC
from corereg.io.images.sizes import check_compressed_size, check_memory, check_stored_size

__all__ = ["check_itk_header"]

LONGEST_HEADER = 2**20
"""Bytes in which a header must end."""

LONGEST_LINE = 2**15
"""Characters; MetaIO's own limit for a value."""

MOST_AXES = 5

LARGEST_NUMBER = 1e30
"""Largest spacing, origin and direction: far beyond any patient, and far below where products overflow."""

META_BYTES = {"CHAR": 1, "UCHAR": 1, "SHORT": 2, "USHORT": 2, "INT": 4, "UINT": 4, "LONG": 4, "ULONG": 4}
META_BYTES |= {"LONG_LONG": 8, "ULONG_LONG": 8, "FLOAT": 4, "DOUBLE": 8}

META_NUMBERS = (
    *("ElementSpacing", "ElementSize", "Offset", "Position", "Origin", "CenterOfRotation"),
    *("TransformMatrix", "Rotation", "Orientation"),
)
"""Keys that hold nothing but numbers."""

META_KEY = re.compile(r"[^=:\x00-\x1f\x7f-\x9f]+")
"""ITK adds the keys of the file that an image came from, such as `dim[0]` of NIfTI and `0008|0060` of DICOM."""

LOCAL, LIST = "LOCAL", "LIST"

NRRD_BYTES = {
    1: {"signed char", "int8", "int8_t", "uchar", "unsigned char", "uint8", "uint8_t"},
    2: {"short", "short int", "signed short", "signed short int", "int16", "int16_t", "ushort", "unsigned short"}
    | {"unsigned short int", "uint16", "uint16_t"},
    4: {"int", "signed int", "int32", "int32_t", "uint", "unsigned int", "uint32", "uint32_t", "float"},
    8: {"longlong", "long long", "long long int", "signed long long", "signed long long int", "int64", "int64_t"}
    | {"ulonglong", "unsigned long long", "unsigned long long int", "uint64", "uint64_t", "double"},
}

NRRD_RAW, NRRD_TEXT, NRRD_GZIP = ("raw",), ("txt", "text", "ascii", "hex"), ("gz", "gzip")
NRRD_OTHER = ("bz2", "bzip2")

NRRD_DATA_FILE = ("data file", "datafile")

NRRD_NUMBERS = (
    "spacings",
    "space directions",
    "space origin",
    "thicknesses",
    "axis mins",
    "axis maxs",
    "measurement frame",
)

NRRD_FIELDS = {
    *("content", "number", "type", "block size", "blocksize", "dimension", "space", "space dimension", "sizes"),
    *("spacings", "thicknesses", "axis mins", "axismins", "axis maxs", "axismaxs", "space directions", "centers"),
    *("centerings", "kinds", "labels", "units", "min", "max", "old min", "oldmin", "old max", "oldmax", "endian"),
    *("encoding", "line skip", "lineskip", "byte skip", "byteskip", "keyvalue", "sample units", "sampleunits"),
    *("space units", "space origin", "measurement frame", "data file", "datafile"),
}

PLANE = 2
"""Axes of an image that is refused anyway, wherever it lies."""

NRRD_SPACES = {"left-posterior-superior", "lps", "right-anterior-superior", "ras", "left-anterior-superior", "las"}
NRRD_SPACES |= {"lpst", "rast", "last", *(f"{space}-time" for space in NRRD_SPACES)}
"""Spaces that say where the patient lies."""

NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")


@dataclass(frozen=True)
class _Declared:
    """What a header says about the data."""

    shape: tuple[int, ...]
    itemsize: int
    packed: str
    """raw, gzip, or text for anything whose length says little."""
    files: tuple[str, ...]
    """Data files, by the names in the header; none if the data follow it."""
    end: int
    """Where the header ends, in bytes."""


def check_itk_header(path: Path) -> None:
    """Check the header of a .mha, .mhd, .nrrd or .nhdr, and warn of a NRRD that does not say where the patient lies.

    Raises:
        InputError: not such a header, a data file that is elsewhere, sizes that the file or the memory cannot hold, or
            a NRRD in other units than mm.
    """
    with open(path, "rb") as file:
        content = file.read(LONGEST_HEADER)
    if content.startswith(GZIP_MAGIC):
        raise InputError(
            f"got {path}, which is compressed by gzip as a whole, expected a plain {path.suffix} image; "
            "rename it to end in .gz and unpack it with gunzip"
        )
    meta = path.suffix.lower() in (".mha", ".mhd")
    declared = _meta(content, path) if meta else _nrrd(content, path)
    size = check_memory(declared.shape, declared.itemsize, str(path))
    for name in declared.files:
        _check_data_name(name, path)
    there = _stored_bytes(declared, path)
    if declared.packed == "raw":
        check_stored_size(size, there, str(path))
    elif declared.packed == "gzip":
        check_compressed_size(size, there, str(path))
    else:
        check_compressed_size(math.prod(declared.shape), there, str(path))


def _meta(content: bytes, path: Path) -> _Declared:
    fields: dict[str, str] = {}
    end, after = 0, ""
    for line, end in _lines(content, path):
        key, equals, value = (part.strip() for part in line.partition("="))
        # MetaIO takes a colon for an equals sign, and the first of two keys: such lines could mean two things.
        if not equals or not META_KEY.fullmatch(key) or key in fields:
            raise _unreadable(path, f"the line {line[:60]!r} is no `key = value` of its own")
        fields[key] = value
        if key == "ElementDataFile":
            after = content[end:].decode("latin-1")
            break
    else:
        raise _unreadable(path, "its header does not name the data (ElementDataFile)")
    _check_numbers(path, [fields[key] for key in META_NUMBERS if key in fields])
    shape = _integers(fields.get("DimSize", ""), path, "DimSize")
    if _integers(fields.get("NDims", ""), path, "NDims") != (len(shape),):
        raise _unreadable(path, "NDims and DimSize disagree")
    channels = _integers(fields.get("ElementNumberOfChannels", "1"), path, "ElementNumberOfChannels")
    kind = fields.get("ElementType", "").removeprefix("MET_").removesuffix("_ARRAY")
    if kind not in META_BYTES or len(channels) != 1:
        raise _unreadable(path, f"the type {fields.get('ElementType')} of {channels} channels is not known")
    binary = fields.get("BinaryData", "True").lower() not in ("false", "f", "0")
    packed = fields.get("CompressedData", "False").lower() in ("true", "t", "1")
    return _Declared(
        shape=(*shape, channels[0]),
        itemsize=META_BYTES[kind],
        packed="gzip" if packed else "raw" if binary else "text",
        files=_meta_files(fields["ElementDataFile"], after, path),
        end=end,
    )


def _meta_files(value: str, after: str, path: Path) -> tuple[str, ...]:
    if value.upper() == LOCAL:
        return ()
    if value.upper().split()[:1] == [LIST]:
        return tuple(line.strip() for line in after.splitlines() if line.strip())
    if not value:
        raise _unreadable(path, "its ElementDataFile is empty")
    return (value,)


def _nrrd(content: bytes, path: Path) -> _Declared:
    fields, files, end = _nrrd_fields(content, path)
    _check_numbers(path, [fields[key] for key in NRRD_NUMBERS if key in fields])
    shape = _integers(fields.get("sizes", ""), path, "sizes")
    if _integers(fields.get("dimension", ""), path, "dimension") != (len(shape),):
        raise _unreadable(path, "dimension and sizes disagree")
    itemsize = next((size for size, names in NRRD_BYTES.items() if fields.get("type", "").lower() in names), 0)
    encoding = fields.get("encoding", "").lower()
    if not itemsize or encoding not in (*NRRD_RAW, *NRRD_TEXT, *NRRD_GZIP, *NRRD_OTHER):
        raise _unreadable(path, f"the type {fields.get('type')} in the encoding {encoding} is not known")
    for key in ("line skip", "lineskip", "byte skip", "byteskip"):
        if key in fields and not re.fullmatch(r"-1|\d{1,9}", fields[key]):
            raise _unreadable(path, f"its {key} is {fields[key]}")
    if len(shape) > PLANE:
        _check_place(fields, path)
    packed = "raw" if encoding in NRRD_RAW else "gzip" if encoding in NRRD_GZIP else "text"
    return _Declared(shape, itemsize, packed, files, end)


def _check_place(fields: Mapping[str, str], path: Path) -> None:
    units = [unit for unit in re.findall(r'"([^"]*)"', fields.get("space units", "")) if unit]
    foreign = [unit for unit in units if unit.lower() not in ("mm", "millimeter", "millimetre")]
    if foreign:
        raise InputError(
            f"got {path}, whose space units are {foreign[0]!r}, expected mm; convert its directions and its origin"
        )
    space = fields.get("space", "").lower()
    if space not in NRRD_SPACES or "space directions" not in fields:
        warnings.warn(
            f"{path}: its header names no patient space with directions ({space or 'no space'}), so its place in the "
            "world is a guess (left, posterior and superior along the axes), as in ITK; write it again in RAS or LPS",
            stacklevel=2,
        )


def _nrrd_fields(content: bytes, path: Path) -> tuple[dict[str, str], tuple[str, ...], int]:
    """The fields of a header, the data files that it names, and where it ends."""
    lines = _lines(content, path)
    fields: dict[str, str] = {}
    line, end = next(lines, ("", 0))
    if not line.startswith("NRRD000"):
        raise _unreadable(path, "it is no NRRD file")
    for line, end in lines:
        if not line:
            break
        if line.startswith("#"):
            continue
        key, colon, value = line.partition(": ")
        key, value = key.lower(), value.strip()
        if ":=" in line and not (colon and key in NRRD_FIELDS):
            continue  # a key and its value, for people
        if not colon or key not in NRRD_FIELDS or key in fields:
            raise _unreadable(path, f"the line {line[:60]!r} is no `field: value` of its own")
        fields[key] = value
        if key in NRRD_DATA_FILE and value.upper().split()[:1] == [LIST]:
            names = content[end:].decode("latin-1").splitlines()
            return fields, tuple(name.strip() for name in names if name.strip()), end
    return fields, tuple(fields[key] for key in NRRD_DATA_FILE if key in fields), end


def _lines(content: bytes, path: Path) -> Iterator[tuple[str, int]]:
    """Lines of a header without their ends, and the byte at which each ends."""
    start = 0
    while start < len(content):
        at = content.find(b"\n", start)
        end = len(content) if at < 0 else at + 1
        if end - start > LONGEST_LINE:
            raise _unreadable(path, "its header has a line without an end")
        line = content[start:end].decode("latin-1").rstrip("\r\n")
        if line and not line.strip():
            raise _unreadable(path, "its header has a line of nothing but spaces")
        yield line, end
        start = end


def _check_data_name(name: str, path: Path) -> None:
    parts = (*PurePosixPath(name).parts, *PureWindowsPath(name).parts)
    away = PurePosixPath(name).is_absolute() or PureWindowsPath(name).anchor or ".." in parts
    if away or "%" in name or not name.isprintable():
        raise InputError(
            f"got {path}, whose header names the data file {name!r}, expected a plain name of a file in the header's "
            "folder or below it; write the image again as one file"
        )


def _stored_bytes(declared: _Declared, path: Path) -> int:
    try:
        if not declared.files:
            return path.stat().st_size - declared.end
        return sum((path.parent / name).stat().st_size for name in declared.files)
    except OSError:
        raise InputError(
            f"got {path}, whose data file {declared.files[0]} is not there, expected both files; copy it too"
        ) from None


def _integers(text: str, path: Path, key: str) -> tuple[int, ...]:
    parts = text.split()
    if not 1 <= len(parts) <= MOST_AXES or not all(re.fullmatch(r"\d{1,12}", part) for part in parts):
        raise _unreadable(path, f"its {key} is {text[:60]!r}")
    return tuple(int(part) for part in parts)


def _check_numbers(path: Path, values: Sequence[str]) -> None:
    for value in values:
        for number in NUMBER.findall(value):
            if not abs(float(number)) < LARGEST_NUMBER:
                raise _unreadable(path, f"its geometry has the number {number}")


def _unreadable(path: Path, why: str) -> InputError:
    return InputError(f"got {path}, which cannot be read ({why}), expected a whole image; copy or export it again")
