"""The description that every layout gives of itself, and helpers of the modules that read layouts."""

import csv
import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from corereg.errors import InputError

__all__ = [
    "IMAGE_SUFFIXES",
    "Listing",
    "Pairs",
    "Scan",
    "apart_from",
    "read_table",
    "scan_name",
    "stream_table",
    "unique_names",
    "visible",
]

Pairs = tuple[tuple[int, int], ...]
"""Pairs (fixed, moving) as indices of scans."""

SEPARATORS = {",": "comma", ";": "semicolon", "\t": "tab"}
"""What may separate the cells of a CSV, in words. Spreadsheets write semicolons in countries with a decimal comma."""

STATED_SEPARATOR = re.compile(r"sep=(.)\s*$", re.IGNORECASE)
"""A first line that names the separator, as Excel writes it."""

IMAGE_SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd", ".npz")


@dataclass(frozen=True, slots=True)
class Scan:
    """The files of one scan; only the image is required."""

    name: str
    image: Path
    """A file, or a folder with a DICOM series."""
    labels: Path | None = None
    patient: str | None = None
    """Identifier shared by all scans of a patient; None if the data set does not say."""
    mask: Path | None = None
    points: Path | None = None
    """Landmarks or keypoints in voxels of the image; row i marks the same place in every scan that has points."""

    @property
    def map_only(self) -> bool:
        """Whether the image is the label map itself, from which training paints scans."""
        return self.labels is not None and self.image.resolve() == self.labels.resolve()


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """A data set before its pairs are generated."""

    name: str
    layout: str
    scans: tuple[Scan, ...]
    training: tuple[int, ...]
    """Scans that may be paired for training; none of their patients is validated or tested on."""
    validation: tuple[int, ...] = ()
    test: tuple[int, ...] = ()
    training_pairs: Pairs | None = None
    """Listed pairs; None if they are to be generated from the scans."""
    validation_pairs: Pairs | None = None
    test_pairs: Pairs | None = None
    pairing: str = "inter"
    """Which pairs the data are meant for: of different patients ("inter") or of the same patient ("intra")."""
    sides: tuple[frozenset[int], frozenset[int]] | None = None
    """Scans that may be fixed and scans that may be moving; None if all may be both."""
    label_names: Mapping[int, str]
    """Names of the labels, without the background."""
    notes: tuple[str, ...] = ()
    """What was left out, one line each."""


def apart_from(held_out: Iterable[Scan], scans: Sequence[Scan], members: Collection[int]) -> tuple[int, ...]:
    """The members (indices of `scans`) that are not held out, and whose patients are not either."""
    held_out = list(held_out)
    images = {scan.image for scan in held_out}
    patients = {scan.patient for scan in held_out} - {None}
    return tuple(i for i in members if scans[i].image not in images and scans[i].patient not in patients)


def visible(folder: Path, pattern: str) -> list[Path]:
    """Entries of a folder in order, without hidden ones, such as the notes `._*` that macOS keeps on other disks."""
    return sorted(entry for entry in folder.glob(pattern) if not entry.name.startswith("."))


def scan_name(image: Path) -> str:
    """The file's name without its image suffix."""
    suffixes = [suffix for suffix in IMAGE_SUFFIXES if image.name.lower().endswith(suffix)]
    return image.name[: len(image.name) - len(suffixes[0])] if suffixes else image.name


def unique_names(images: Sequence[Path]) -> list[str]:
    """The shortest names that tell all images apart: file, folder and file, or the whole path."""
    for parts in (1, 2):
        names = ["_".join((*image.parts[:-1], scan_name(image))[-parts:]) for image in images]
        if len(set(names)) == len(images):
            return names
    return [str(image).strip(os.sep).replace(os.sep, "_") for image in images]


def read_table(path: Path) -> list[dict[str, str]]:
    """All rows of a CSV, see `stream_table`."""
    return list(stream_table(path))


def stream_table(path: Path) -> Iterator[dict[str, str]]:
    """Rows of a CSV by column, one at a time. Spaces around cells, a byte order mark and columns without a name are
    dropped.

    The cells are separated by what separates the names in the first line: commas, semicolons or tabs.

    Raises:
        InputError: the file cannot be read as a CSV, a row is longer than the first line, or a name occurs twice.
    """
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            header = _line_with_text(file)
            separator = max(SEPARATORS, key=header.count)  # of equally many, the first: the comma
            if stated := STATED_SEPARATOR.match(header):
                separator, header = stated[1], _line_with_text(file)
            table = csv.reader(chain([header], file), delimiter=separator, skipinitialspace=True)
            rows = (row for row in table if any(cell.strip() for cell in row))
            columns = [column.strip() for column in next(rows, [])]
            twice = sorted({column for column in columns if column and columns.count(column) > 1})
            if twice:
                raise InputError(f"got {path} with several columns {twice[0]!r}, expected each once; rename the others")
            for number, row in enumerate(rows, start=1):
                if any(cell.strip() for cell in row[len(columns) :]):
                    raise InputError(
                        f"got row {number} of the table {path} with {len(row)} cells, expected the {len(columns)} of "
                        f"its header; put cells that hold a {SEPARATORS.get(separator, separator)} into double quotes"
                    )
                cells = zip(columns, [*map(str.strip, row), *[""] * len(columns)], strict=False)
                yield {column: cell for column, cell in cells if column}
    except (csv.Error, UnicodeDecodeError, OSError) as error:
        raise InputError(f"the table {path} cannot be read ({error}), expected a CSV in UTF-8; check it") from None


def _line_with_text(file: Iterable[str]) -> str:
    return next((line for line in file if line.strip()), "")
