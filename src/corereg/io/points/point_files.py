"""The formats of points: tables (.csv, .fcsv) and 3D Slicer's markups (.mrk.json).

A file is kept as it was read, and gives its text again with other positions: its coordinate system, labels and further
columns stay. Positions are RAS+ millimetres outside of the text.
"""

import csv
import io
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from corereg.errors import InputError

__all__ = ["DIGITS", "PARSERS", "SIGNS", "PointFile", "coordinate_system", "new_point_file"]

Coords = NDArray[np.float64]
Row = list[str]

SIGNS: dict[str, Coords] = {"RAS": np.array([1.0, 1.0, 1.0]), "LPS": np.array([-1.0, -1.0, 1.0])}
"""To RAS, and back."""

SYSTEM_NAMES = {"RAS": "RAS", "0": "RAS", "LPS": "LPS", "1": "LPS"}
"""Slicer wrote numbers before it wrote names."""

SYSTEM_LINE = re.compile(r"#\s*CoordinateSystem\s*=\s*(\S*)", re.IGNORECASE)
COLUMNS_LINE = re.compile(r"#\s*columns\s*=\s*(\S+)", re.IGNORECASE)

FCSV_COLUMNS = "id,x,y,z,ow,ox,oy,oz,vis,sel,lock,label,desc,associatedNodeID"
FCSV_STATE = ["0", "0", "0", "1", "1", "1", "0"]
"""No rotation (ow to oz), visible, selected, not locked."""

CSV_CURE = (
    "put the line `# CoordinateSystem = RAS` (or LPS) first, or name the columns x_ras,y_ras,z_ras (or x_lps,...), "
    "or give coordinates='ras' (or 'lps')"
)

POINT_MARKUPS = ("Fiducial", "Line", "Angle", "Curve", "ClosedCurve")
"""The markups of Slicer that are nothing but their control points."""

MARKUPS_SCHEMA = (
    "https://raw.githubusercontent.com/slicer/slicer/master/Modules/Loadable/Markups/Resources/Schema/"
    "markups-schema-v1.0.3.json#"
)

DIGITS = ".12g"
"""A nanometre at a metre: more would only show rounding errors."""


@dataclass(frozen=True)
class PointTable:
    """A .csv or .fcsv: the lines before the first point, one row for each point, and which columns are what."""

    head: tuple[str, ...]
    rows: tuple[Row, ...]
    xyz: tuple[int, int, int]
    label: int | None
    system: str

    def coords_mm(self) -> Coords:
        """(N, 3), RAS+ millimetres."""
        coords = [[float(row[column]) for column in self.xyz] for row in self.rows]
        return np.array(coords, dtype=np.float64).reshape(-1, 3) * SIGNS[self.system]

    def labels(self) -> list[str] | None:
        """(N), where the file has labels."""
        if self.label is None:
            return None
        return [row[self.label] if self.label < len(row) else "" for row in self.rows]

    def text(self, coords_mm: Coords) -> str:
        """The file, with (N, 3) RAS+ millimetres for its positions."""
        lines = list(self.head)
        for row, position in zip(self.rows, coords_mm * SIGNS[self.system], strict=True):
            moved = list(row)
            for column, value in zip(self.xyz, position, strict=True):
                moved[column] = _digits(value)
            lines.append(_line(moved))
        return "\n".join(lines) + "\n"


@dataclass(frozen=True)
class PointMarkups:
    """A .mrk.json. Each of its markups may have a coordinate system of its own."""

    document: dict[str, Any]
    system: str
    """Of the markups that state none."""

    def coords_mm(self) -> Coords:
        """(N, 3), RAS+ millimetres, of the control points of all markups."""
        coords = [np.array(point["position"], dtype=np.float64) * signs for signs, point in self._placed()]
        return np.array(coords).reshape(-1, 3)

    def labels(self) -> list[str]:
        """(N), empty where a point has none."""
        return [str(point.get("label", "")) for _, point in self._placed()]

    def text(self, coords_mm: Coords) -> str:
        """The file, with (N, 3) RAS+ millimetres for its positions."""
        copy = PointMarkups(json.loads(json.dumps(self.document)), self.system)
        for (signs, point), position in zip(copy._placed(), coords_mm, strict=True):
            point["position"] = [float(_digits(value)) for value in position * signs]
        return json.dumps(copy.document, indent=4, ensure_ascii=False) + "\n"

    def _placed(self) -> Iterator[tuple[Coords, dict[str, Any]]]:
        """The control points that have a position, with the signs that turn it to RAS."""
        for markup in self.document["markups"]:
            system = SYSTEM_NAMES[str(markup.setdefault("coordinateSystem", self.system)).upper()]
            for point in markup.get("controlPoints") or []:
                if point.get("positionStatus", "defined") == "defined":
                    yield SIGNS[system], point


PointFile = PointTable | PointMarkups


def parse_csv(text: str, name: str, given: str | None) -> PointTable:
    """Columns x, y, z, or x_ras, ... or x_lps, ..., or three bare columns where the system is known."""
    head, rows = _split(text)
    stated, names, xyz = _stated_system(head, name), ["x", "y", "z"], ("x", "y", "z")
    if rows and not _numeric(rows[0][:3]):
        head = (*head, _line(rows[0]))
        names = [column.strip().lower() for column in rows.pop(0)]
        for system in SIGNS:
            x, y, z = (f"{axis}_{system.lower()}" for axis in "xyz")
            if {x, y, z} <= set(names):
                stated, xyz = _agreed(system, stated, name, CSV_CURE), (x, y, z)
    return _table(head, rows, names, xyz, _agreed(stated, given, name, CSV_CURE), name)


def parse_fcsv(text: str, name: str, given: str | None) -> PointTable:
    """Slicer's older format: a table with its columns and coordinate system in comments."""
    head, rows = _split(text)
    cure = "put the line `# CoordinateSystem = LPS` (or RAS) first, or give coordinates='lps' (or 'ras')"
    system = _agreed(_stated_system(head, name), given, name, cure)
    names = next((match[1] for line in head if (match := COLUMNS_LINE.match(line))), FCSV_COLUMNS)
    return _table(head, rows, names.lower().split(","), ("x", "y", "z"), system, name)


def parse_markups(text: str, name: str, given: str | None) -> PointMarkups:
    """Slicer's format: markups, each with its coordinate system, unit and control points."""
    try:
        document = json.loads(text)
        states = [
            (markup.get("type", "Fiducial"), markup.get("coordinateUnits", "mm"), markup.get("coordinateSystem"))
            for markup in document["markups"]
        ]
    except (ValueError, KeyError, TypeError, AttributeError):
        raise InputError(f"got {name}, expected Slicer markups in JSON; save it again from Slicer") from None
    system = given
    for kind, unit, stated in states:
        if kind not in POINT_MARKUPS or unit != "mm":
            raise InputError(
                f"got {name} with a {kind} in {unit}, expected {', '.join(POINT_MARKUPS)} in mm; save the points alone"
            )
        cure = "add coordinateSystem to each of its markups, or give coordinates='lps' (or 'ras')"
        system = _agreed(stated and coordinate_system(stated, name), given, name, cure)
    markups = PointMarkups(document, system or "LPS")
    try:
        markups.coords_mm()
    except (ValueError, KeyError, TypeError, AttributeError):
        raise InputError(
            f"got {name} with a position that is not three numbers, expected millimetres; repair it"
        ) from None
    return markups


PARSERS: dict[str, Callable[[str, str, str | None], PointFile]] = {
    ".csv": parse_csv,
    ".fcsv": parse_fcsv,
    ".mrk.json": parse_markups,
}
"""By the ends of file names. They take the text, the name for messages, and the system for a file that states none."""


def new_point_file(suffix: str, labels: Sequence[str], system: str | None) -> PointFile:
    """A file for points that come from elsewhere. Without a system it is what each format's readers expect."""
    if suffix == ".csv":
        system = system or "RAS"
        rows: list[Row] = [[label, "", "", ""] for label in labels]
        return PointTable((f"# CoordinateSystem = {system}", "label,x,y,z"), tuple(rows), (1, 2, 3), 0, system)
    system = system or "LPS"
    if suffix == ".fcsv":
        head = (
            "# Markups fiducial file version = 4.11",
            f"# CoordinateSystem = {system}",
            f"# columns = {FCSV_COLUMNS}",
        )
        rows = [[str(n), "", "", "", *FCSV_STATE, label, "", ""] for n, label in enumerate(labels, 1)]
        names = FCSV_COLUMNS.split(",")
        return PointTable(head, tuple(rows), (1, 2, 3), names.index("label"), system)
    control = [{"id": str(n), "label": label, "position": []} for n, label in enumerate(labels, 1)]
    markup = {"type": "Fiducial", "coordinateSystem": system, "coordinateUnits": "mm", "controlPoints": control}
    return PointMarkups({"@schema": MARKUPS_SCHEMA, "markups": [markup]}, system)


def coordinate_system(value: object, of: str) -> str:
    """RAS or LPS from what a file or a caller calls it.

    Raises:
        InputError: neither.
    """
    name = SYSTEM_NAMES.get(str(value).upper())
    if name is None:
        raise InputError(
            f"got the coordinate system {value!r} for {of}, expected RAS or LPS; export it in one of these"
        )
    return name


def _agreed(stated: str | None, given: str | None, name: str, cure: str) -> str:
    if stated and given and stated != given:
        raise InputError(f"got {name}, which says {stated}, and {given} beside it, expected one of them; leave one out")
    system = stated or given
    if system is None:
        raise InputError(f"got {name}, which does not say its coordinate system, expected RAS or LPS; {cure}")
    return system


def _split(text: str) -> tuple[tuple[str, ...], list[Row]]:
    """The comment lines, and the rows of the others."""
    lines = [line for line in text.splitlines() if line.strip()]
    head = tuple(line for line in lines if line.startswith("#"))
    return head, list(csv.reader(line for line in lines if not line.startswith("#")))


def _stated_system(head: Sequence[str], name: str) -> str | None:
    stated = next((match[1] for line in head if (match := SYSTEM_LINE.match(line))), None)
    return None if stated is None else coordinate_system(stated, name)


def _numeric(cells: Row) -> bool:
    try:
        return all(np.isfinite(float(cell)) for cell in cells)
    except ValueError:
        return False


def _table(
    head: tuple[str, ...], rows: list[Row], names: Row, wanted: tuple[str, str, str], system: str, name: str
) -> PointTable:
    if not set(wanted) <= set(names):
        raise InputError(f"got {name} with the columns {','.join(names)}, expected {','.join(wanted)} too; rename them")
    x, y, z = (names.index(column) for column in wanted)
    for row in rows:
        if len(row) <= max(x, y, z) or not _numeric([row[x], row[y], row[z]]):
            raise InputError(
                f"got {name} with the line {_line(row)!r}, expected finite numbers for {','.join(wanted)} and "
                "commas between them; repair that line"
            )
    label = next((names.index(column) for column in ("label", "name") if column in names), None)
    return PointTable(head, tuple(rows), (x, y, z), label, system)


def _digits(value: float) -> str:
    return f"{value + 0.0:{DIGITS}}"  # adding 0 turns -0 into 0


def _line(row: Row) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(row)
    return text.getvalue()
