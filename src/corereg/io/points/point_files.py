"""The formats of points, by the ends of file names. Positions are RAS+ millimetres outside of the text."""

from collections.abc import Callable, Sequence

from corereg.io.points.markups import PointMarkups, new_markups, parse_markups
from corereg.io.points.tables import PointTable, new_csv, new_fcsv, parse_csv, parse_fcsv

__all__ = ["PARSERS", "PointFile", "new_point_file"]

PointFile = PointTable | PointMarkups

PARSERS: dict[str, Callable[[str, str, str | None], PointFile]] = {
    ".csv": parse_csv,
    ".fcsv": parse_fcsv,
    ".mrk.json": parse_markups,
}
"""They take the text, the name for messages, and the system for a file that states none."""


def new_point_file(suffix: str, labels: Sequence[str], system: str | None) -> PointFile:
    """A file for points that come from elsewhere. Without a system it is the one that each format's readers expect."""
    if suffix == ".csv":
        return new_csv(labels, system or "RAS")
    if suffix == ".fcsv":
        return new_fcsv(labels, system or "LPS")
    return new_markups(list(labels), system or "LPS")
