"""3D Slicer's markups (.mrk.json): control points in JSON, each markup with its coordinate system and unit."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from corereg.errors import InputError
from corereg.io.points.systems import SIGNS, SYSTEM_NAMES, agreed_system, coordinate_system, digits

__all__ = ["PointMarkups", "new_markups", "parse_markups"]

Coords = NDArray[np.float64]

POINT_MARKUPS = ("Fiducial", "Line", "Angle", "Curve", "ClosedCurve")
"""The markups of Slicer that are nothing but their control points."""

MARKUPS_SCHEMA = (
    "https://raw.githubusercontent.com/slicer/slicer/master/Modules/Loadable/Markups/Resources/Schema/"
    "markups-schema-v1.0.3.json#"
)


@dataclass(frozen=True)
class PointMarkups:
    """A .mrk.json. Each of its markups may have a coordinate system of its own."""

    document: dict[str, Any]
    system: str
    """Coordinate system of the markups that state none."""

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
            point["position"] = [float(digits(value)) for value in position * signs]
        return json.dumps(copy.document, indent=4, ensure_ascii=False) + "\n"

    def check_positions(self) -> None:
        """Check that every position is three finite numbers.

        Raises:
            ValueError: one is not.
        """
        for _, point in self._placed():
            position = np.array(point["position"], dtype=np.float64)
            if position.shape != (3,) or not np.isfinite(position).all():
                raise ValueError(f"{point['position']} is no position")

    def _placed(self) -> Iterator[tuple[Coords, dict[str, Any]]]:
        """The control points that have a position, with the signs that turn it to RAS."""
        for markup in self.document["markups"]:
            system = SYSTEM_NAMES[str(markup.setdefault("coordinateSystem", self.system)).upper()]
            for point in markup.get("controlPoints") or []:
                if point.get("positionStatus", "defined") == "defined":
                    yield SIGNS[system], point


def parse_markups(text: str, name: str, given: str | None) -> PointMarkups:
    """Read markups of points. `given` is the system of those that state none.

    Raises:
        InputError: no such file, no coordinate system, another unit than mm, or a position that is none.
    """
    try:
        document = json.loads(text)
        states = [
            (markup.get("type", "Fiducial"), markup.get("coordinateUnits", "mm"), markup.get("coordinateSystem"))
            for markup in document["markups"]
        ]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise InputError(f"got {name}, expected Slicer markups in JSON; save it again from Slicer") from None
    system = given
    for kind, unit, stated in states:
        if kind not in POINT_MARKUPS or unit != "mm":
            raise InputError(
                f"got {name} with a {kind} in {unit}, expected {', '.join(POINT_MARKUPS)} in mm; save the points alone"
            )
        cure = "add coordinateSystem to each of its markups"
        stated = None if stated is None else coordinate_system(stated, name)
        system = agreed_system(stated, given, name, cure)
    markups = PointMarkups(document, system or "LPS")
    try:
        markups.check_positions()
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError):
        raise InputError(
            f"got {name} with a position that is not three finite numbers, expected millimetres; repair it"
        ) from None
    return markups


def new_markups(labels: list[str], system: str) -> PointMarkups:
    """A file for points that come from elsewhere, in Slicer's newest form."""
    control = [{"id": str(n), "label": label, "position": []} for n, label in enumerate(labels, 1)]
    markup = {"type": "Fiducial", "coordinateSystem": system, "coordinateUnits": "mm", "controlPoints": control}
    return PointMarkups({"@schema": MARKUPS_SCHEMA, "markups": [markup]}, system)
