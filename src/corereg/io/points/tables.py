"""Tables of points: .csv of any origin, and Slicer's older .fcsv.

A table is kept as it was read, and gives its text again with other positions: its delimiter, coordinate system, labels
and further columns stay.
"""

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from corereg.errors import InputError
from corereg.io.points.systems import SIGNS, agreed_system, coordinate_system, digits

__all__ = ["PointTable", "new_csv", "new_fcsv", "parse_csv", "parse_fcsv", "parse_numbers"]

Coords = NDArray[np.float64]
Row = list[str]

DELIMITERS = (";", "\t", ",")
"""Spreadsheets write a semicolon where the decimal point is a comma."""

DECIMAL_COMMA = re.compile(r"[-+]?\d+,\d+([eE][-+]?\d+)?")

SYSTEM_LINE = re.compile(r"#\s*CoordinateSystem\s*=\s*([^\s,;]*)", re.IGNORECASE)
COLUMNS_LINE = re.compile(r"#\s*columns\s*=\s*(\S+)", re.IGNORECASE)

NAMED_COLUMNS = {
    ("x_ras", "y_ras", "z_ras"): "RAS",
    ("x_lps", "y_lps", "z_lps"): "LPS",
    ("r", "a", "s"): "RAS",
    ("l", "p", "s"): "LPS",
}
"""Columns whose names tell the coordinate system; the short ones are those of Slicer's tables."""

PLAIN_COLUMNS = ("x", "y", "z")

PLACED_COLUMN = "defined"
"""In Slicer's tables: 0 for a point that has not been placed yet."""

FCSV_COLUMNS = "id,x,y,z,ow,ox,oy,oz,vis,sel,lock,label,desc,associatedNodeID"
FCSV_STATE = ["0", "0", "0", "1", "1", "1", "0"]
"""No rotation (ow to oz), visible, selected, not locked."""

CSV_CURE = (
    "put the line `# CoordinateSystem = RAS` (or LPS) first, or name the columns x_ras,y_ras,z_ras (or x_lps,...)"
)

FCSV_CURE = "put the line `# CoordinateSystem = LPS` (or RAS) first"


@dataclass(frozen=True)
class PointTable:
    """The lines before the first point, one row for each point, and which columns are what."""

    head: tuple[str, ...]
    rows: tuple[Row, ...]
    xyz: tuple[int, int, int]
    label: int | None
    system: str
    delimiter: str = ","
    placed: int | None = None
    """The column that is 0 for rows without a position."""

    def coords_mm(self) -> Coords:
        """(N, 3), RAS+ millimetres."""
        coords = [[_number(row[column], self.delimiter) for column in self.xyz] for row in self._placed()]
        return np.array(coords, dtype=np.float64).reshape(-1, 3) * SIGNS[self.system]

    def labels(self) -> list[str] | None:
        """(N), if the file has labels."""
        if self.label is None:
            return None
        return [row[self.label] if self.label < len(row) else "" for row in self._placed()]

    def text(self, coords_mm: Coords) -> str:
        """The file, with (N, 3) RAS+ millimetres for its positions."""
        positions = iter(coords_mm * SIGNS[self.system])
        lines = list(self.head)
        for row in self.rows:
            moved = list(row)
            if self._is_placed(row):
                for column, value in zip(self.xyz, next(positions), strict=True):
                    comma = bool(DECIMAL_COMMA.fullmatch(row[column].strip()))
                    moved[column] = digits(value).replace(".", ",") if comma else digits(value)
            lines.append(_line(moved, self.delimiter))
        return "\n".join(lines) + "\n"

    def _is_placed(self, row: Row) -> bool:
        return self.placed is None or self.placed >= len(row) or row[self.placed].strip() != "0"

    def _placed(self) -> list[Row]:
        return [row for row in self.rows if self._is_placed(row)]


def parse_csv(text: str, name: str, given: str | None) -> PointTable:
    """Read columns x, y, z, or columns named after their system, or three bare columns if the system is known.

    Raises:
        InputError: other columns, no coordinate system, or a line without a position.
    """
    lines = [line for line in text.splitlines() if line.strip(" ,;\t")]
    start = next((n for n, line in enumerate(lines) if not line.lstrip('" ').startswith("#")), len(lines))
    delimiter = _delimiter(lines[start]) if start < len(lines) else ","
    rows = _rows(lines[start:], delimiter, name)
    head, names = tuple(lines[:start]), list(PLAIN_COLUMNS)
    stated, xyz = _stated_system(head, name), PLAIN_COLUMNS
    if rows and not _numeric(rows[0][:3], delimiter):
        head = (*head, _line(rows[0], delimiter))
        names = [column.strip().lower() for column in rows.pop(0)]
        for columns, system in NAMED_COLUMNS.items():
            if set(columns) <= set(names):
                stated, xyz = agreed_system(system, stated, name, CSV_CURE), columns
    points: list[Row] = []
    comments: list[Row] = []
    for row in rows:
        (comments if _is_comment(row, names, xyz, delimiter) else points).append(row)
    stated = stated or _stated_system([row[0] for row in comments], name)
    head = (*head, *(_line(row, delimiter) for row in comments))
    return _table(head, points, names, xyz, agreed_system(stated, given, name, CSV_CURE), name, delimiter)


def parse_fcsv(text: str, name: str, given: str | None) -> PointTable:
    """Read Slicer's older format: a table with its columns and coordinate system in comments.

    Raises:
        InputError: as for `parse_csv`.
    """
    lines = [line for line in text.splitlines() if line.strip()]
    head = tuple(line for line in lines if line.startswith("#"))
    system = agreed_system(_stated_system(head, name), given, name, FCSV_CURE)
    names = next((match[1] for line in head if (match := COLUMNS_LINE.match(line))), FCSV_COLUMNS)
    rows = _rows([line for line in lines if not line.startswith("#")], ",", name)
    return _table(head, rows, names.lower().split(","), PLAIN_COLUMNS, system, name, ",")


def parse_numbers(text: str) -> Coords:
    """Read a table of bare numbers. Commas are decimal points where semicolons or tabs separate the cells.

    Returns: (N, M); (0, 1) if there are no numbers.

    Raises:
        ValueError: a cell is not a number, or some lines have more cells than others.
    """
    lines = [line for line in (line.split("#")[0] for line in text.splitlines()) if line.strip()]
    if not lines:
        return np.empty((0, 1))
    delimiter = _delimiter(lines[0])
    return np.array(
        [[_number(cell, delimiter) for cell in line.split(delimiter)] for line in lines], dtype=np.float64
    ).reshape(len(lines), -1)


def new_csv(labels: Sequence[str], system: str) -> PointTable:
    """A .csv for points that come from elsewhere."""
    rows: list[Row] = [[label, "", "", ""] for label in labels]
    return PointTable((f"# CoordinateSystem = {system}", "label,x,y,z"), tuple(rows), (1, 2, 3), 0, system)


def new_fcsv(labels: Sequence[str], system: str) -> PointTable:
    """A .fcsv for points that come from elsewhere."""
    head = ("# Markups fiducial file version = 4.11", f"# CoordinateSystem = {system}", f"# columns = {FCSV_COLUMNS}")
    rows = [[str(n), "", "", "", *FCSV_STATE, label, "", ""] for n, label in enumerate(labels, 1)]
    return PointTable(head, tuple(rows), (1, 2, 3), FCSV_COLUMNS.split(",").index("label"), system)


def _delimiter(line: str) -> str:
    """The one that a line is divided by; a comma inside of a number does not count."""
    return next((delimiter for delimiter in DELIMITERS if delimiter in line), ",")


def _rows(lines: Sequence[str], delimiter: str, name: str) -> list[Row]:
    try:
        rows = list(csv.reader(lines, delimiter=delimiter))
    except csv.Error as error:
        raise InputError(
            f"got {name}, which is no table ({error}), expected lines of points; export it again"
        ) from None
    return [row for row in rows if any(cell.strip() for cell in row)]


def _is_comment(row: Row, names: Row, xyz: Sequence[str], delimiter: str) -> bool:
    """Whether a row that begins with # is a comment, and not a point with a label such as #1."""
    if not row[0].lstrip().startswith("#"):
        return False
    cells = [row[names.index(column)] for column in xyz if column in names and names.index(column) < len(row)]
    return len(cells) < len(xyz) or not _numeric(cells, delimiter)


def _stated_system(head: Sequence[str], name: str) -> str | None:
    lines = [match[1] for line in head if (match := SYSTEM_LINE.match(line.strip('" ')))]
    stated = {coordinate_system(line, name) for line in lines}
    if len(stated) > 1:
        raise InputError(f"got {name} with the coordinate systems {' and '.join(lines)}, expected one; correct it")
    return next(iter(stated), None)


def _number(cell: str, delimiter: str) -> float:
    comma = delimiter != "," and DECIMAL_COMMA.fullmatch(cell.strip())
    return float(cell.replace(",", ".") if comma else cell)


def _numeric(cells: Row, delimiter: str) -> bool:
    try:
        return all(np.isfinite(_number(cell, delimiter)) for cell in cells)
    except ValueError:
        return False


def _table(
    head: tuple[str, ...], rows: list[Row], names: Row, xyz: Sequence[str], system: str, name: str, delimiter: str
) -> PointTable:
    if not set(xyz) <= set(names):
        raise InputError(f"got {name} with the columns {','.join(names)}, expected {','.join(xyz)} too; rename them")
    if any(names.count(column) > 1 for column in xyz):
        raise InputError(
            f"got {name} with the columns {','.join(names)}, expected one each of {','.join(xyz)}; correct it"
        )
    x, y, z = (names.index(column) for column in xyz)
    label = next((names.index(column) for column in ("label", "name") if column in names), None)
    placed = names.index(PLACED_COLUMN) if PLACED_COLUMN in names else None
    table = PointTable(head, tuple(rows), (x, y, z), label, system, delimiter, placed)
    for row in table._placed():
        longer = any(_numeric([cell], delimiter) for cell in row[len(names) :])
        if longer or len(row) <= max(x, y, z) or not _numeric([row[x], row[y], row[z]], delimiter):
            raise InputError(
                f"got {name} with the line {_line(row, delimiter)!r}, expected finite numbers for {','.join(xyz)}, "
                "no further ones, and one delimiter between all cells (comma, semicolon or tab, but no comma within a "
                "number then); repair that line"
            )
    return table


def _line(row: Row, delimiter: str) -> str:
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter, lineterminator="").writerow(row)
    return text.getvalue()
