"""Which of the series in a folder is read: images before results, then the one with the most slices."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from warnings import warn

import numpy as np

from corereg.errors import InputError
from corereg.io.images.dicom.headers import DicomFile, Frame, is_dicom, read_header

__all__ = ["Stack", "choose_stack"]

SAME_PIXELS = 0.5
"""Corners of slices on one grid lie within this share of a pixel, however their headers were rounded."""

PARALLEL = 0.99
"""Cosine between the normals of slices, above which a series that was split is reported."""

SHOWN_SERIES = 6
"""How many series a message lists."""


@dataclass(frozen=True, eq=False)
class Stack:
    """Slices of one series, size and orientation, in no order."""

    series: str
    modality: str
    description: str
    rank: int
    frames: tuple[Frame, ...]

    def __str__(self) -> str:
        columns, rows = self.frames[0].size
        kind = ", ".join(part for part in (self.modality, self.description) if part)
        return f"{self.series} ({kind}, {len(self.frames)} slices of {columns} x {rows})"


def choose_stack(folder: Path, series: str | None) -> tuple[Stack, tuple[str, ...]]:
    """The slices to read from a folder and its subfolders, and remarks on what was not chosen.

    Raises:
        InputError: no such series, no image series, or several that are equally good.
    """
    files, damaged = _headers(folder)
    if damaged:
        warn(
            f"{folder}: damaged DICOM files were left out: {len(damaged)}, the first of them {damaged[0]}", stacklevel=2
        )
    stacks = _stacks(files)
    others = _others(files)
    if not stacks:
        found = f"; there are {_listed(others)}" if others else ""
        raise InputError(
            f"got the folder {folder} without a DICOM image in it, expected a series with positions{found}; "
            "check the path"
        )
    chosen = [stack for stack in stacks if series in (None, stack.series)]
    if not chosen:
        refused = next((other for other in others if series and other.startswith(series)), None)
        raise InputError(
            f"got the series {refused or series}, which is {'no image' if refused else 'not'} in {folder}, expected "
            f"one of {_listed([str(stack) for stack in stacks])}; choose from these"
        )
    best = chosen[0]
    equal = [stack for stack in chosen if _order(stack) == _order(best)]
    if len(equal) > 1:
        one = len({stack.series for stack in equal}) == 1
        cure = (
            "export one orientation alone"
            if one
            else "choose one by its UID (--fixed-series, --moving-series or series=)"
        )
        raise InputError(
            f"got the folder {folder} with {len(equal)} equally large {'stacks' if one else 'series'}: "
            f"{_listed([str(stack) for stack in equal])}, expected a single largest one; {cure}"
        )
    parallel = sum(len(stack.frames) for stack in stacks if stack is not best and _is_part_of(best, stack))
    if parallel:
        warn(
            f"{folder}: {parallel} slices were left out, whose size or pixel spacing differs from that of the "
            f"{len(best.frames)} slices of the series {best.series} that were read",
            stacklevel=2,
        )
    passed_over = [str(stack) for stack in stacks if stack is not best] + others
    remarks = (f"{folder}: read the series {best}, not {_listed(passed_over)}",) if passed_over else ()
    return best, remarks


def _headers(folder: Path) -> tuple[list[DicomFile], list[str]]:
    """The files, each instance once, and the names of damaged ones."""
    files: dict[tuple[object, ...], DicomFile] = {}
    damaged = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        if path.name == "DICOMDIR" or path.name.startswith("._"):  # macOS puts its notes into files of such names
            continue
        header = read_header(path)
        if header is not None:
            # The same slice may lie there twice, and careless exports give all slices one UID.
            places = tuple((*frame.origin, *frame.axes.flat, *frame.size) for frame in header.frames)
            files.setdefault((header.series, header.instance, places), header)
        elif is_dicom(path):
            damaged.append(path.name)
    return list(files.values()), damaged


def _stacks(files: Sequence[DicomFile]) -> list[Stack]:
    """The best first."""
    of_series: dict[str, list[DicomFile]] = defaultdict(list)
    for file in files:
        if file.frames:
            of_series[file.series].append(file)
    stacks = []
    for series, members in of_series.items():
        groups: list[list[Frame]] = []
        for frame in (frame for file in members for frame in file.frames):
            home = next((group for group in groups if _fit_together(group[0], frame)), None)
            groups.append([frame]) if home is None else home.append(frame)
        first = members[0]
        rank = max(file.rank for file in members)
        stacks += [Stack(series, first.modality, first.description, rank, tuple(group)) for group in groups]
    return sorted(stacks, key=_order)


def _order(stack: Stack) -> tuple[int, int]:
    return stack.rank, -len(stack.frames)


def _fit_together(one: Frame, other: Frame) -> bool:
    if one.size != other.size:
        return False
    apart = np.abs((one.axes - other.axes) * one.size).max()
    return bool(apart <= SAME_PIXELS * np.linalg.norm(one.axes, axis=0).min())


def _is_part_of(best: Stack, other: Stack) -> bool:
    """Whether slices may belong to the same volume: a localiser in the series lies across the others."""
    normals = [np.cross(*stack.frames[0].axes.T) for stack in (best, other)]
    one, two = (normal / np.linalg.norm(normal) for normal in normals)
    return best.series == other.series and bool(abs(one @ two) > PARALLEL)


def _others(files: Sequence[DicomFile]) -> list[str]:
    """Series without a usable frame, a text each."""
    found: dict[tuple[str, str, str], int] = defaultdict(int)
    for file in files:
        if not file.frames:
            found[file.series, file.modality, file.problem] += 1
    return [
        f"{series} ({', '.join(part for part in (modality, problem) if part)})"
        for series, modality, problem in sorted(found)
    ]


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN_SERIES} more" if len(names) > SHOWN_SERIES else ""
    return "; ".join(names[:SHOWN_SERIES]) + more
