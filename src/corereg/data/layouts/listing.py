"""What every layout says of itself, and what the modules that read them share."""

import csv
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from corereg.errors import InputError

__all__ = ["IMAGE_SUFFIXES", "Listing", "Pairs", "Scan", "apart_from", "read_table", "scan_name", "unique_names"]

Pairs = tuple[tuple[int, int], ...]
"""(fixed, moving): indices of scans."""

IMAGE_SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd", ".npz")


@dataclass(frozen=True, slots=True)
class Scan:
    """Files of one scan; all but the image may be missing."""

    name: str
    image: Path
    """A file, or a folder with a DICOM series."""
    labels: Path | None = None
    patient: str | None = None
    """Scans of one patient have the same; None where the data set does not tell."""
    mask: Path | None = None
    points: Path | None = None
    """Landmarks or keypoints in voxels of the image; row i is the same place in every scan that has them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """A data set before its pairs are made."""

    name: str
    layout: str
    scans: tuple[Scan, ...]
    training: tuple[int, ...]
    """Scans that may be paired for training; no patient of them is validated or tested on."""
    validation: tuple[int, ...] = ()
    training_pairs: Pairs | None = None
    """None: to be made of the scans."""
    validation_pairs: Pairs | None = None
    pairing: str = "inter"
    """Which pairs the data are for: of different patients ("inter") or of the same ("intra")."""
    sides: tuple[frozenset[int], frozenset[int]] | None = None
    """Scans that may be fixed and that may be moving; None: all."""
    label_names: Mapping[int, str]
    """Without the background."""
    notes: tuple[str, ...] = ()
    """What was left out, a line each."""


def apart_from(held_out: Iterable[Scan], scans: Sequence[Scan], members: Collection[int]) -> tuple[int, ...]:
    """The members, indices of `scans`, that are not held out themselves nor of a patient that is."""
    held_out = list(held_out)
    images = {scan.image for scan in held_out}
    patients = {scan.patient for scan in held_out} - {None}
    return tuple(i for i in members if scans[i].image not in images and scans[i].patient not in patients)


def scan_name(image: Path) -> str:
    """The file's name without the suffix of an image."""
    suffixes = [suffix for suffix in IMAGE_SUFFIXES if image.name.lower().endswith(suffix)]
    return image.name[: len(image.name) - len(suffixes[0])] if suffixes else image.name


def unique_names(images: Sequence[Path]) -> list[str]:
    """The shortest of these that tell all images apart: file, folder and file, whole path."""
    for parts in (1, 2):
        names = ["_".join((*image.parts[:-1], scan_name(image))[-parts:]) for image in images]
        if len(set(names)) == len(images):
            return names
    return [str(image).strip(os.sep).replace(os.sep, "_") for image in images]


def read_table(path: Path) -> list[dict[str, str]]:
    """Rows of a CSV by their columns, without the spaces around cells and the mark that spreadsheets put in front.

    Raises:
        InputError: not to be read as a CSV.
    """
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            rows = [row for row in csv.reader(file) if any(row)]
    except (csv.Error, UnicodeDecodeError, OSError) as error:
        raise InputError(f"got the table {path} ({error}), expected a CSV in UTF-8; check it") from None
    columns, *rows = rows or [[]]
    cells = ([cell.strip() for cell in row] + [""] * len(columns) for row in rows)
    return [dict(zip((column.strip() for column in columns), row, strict=False)) for row in cells]
