"""The values at which the rules of the verdict warn and fail: those on board, or a file's made by `corereg calibrate`.

Upstream: `calibration`. Downstream: `verdict`.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from corereg.errors import InputError
from corereg.io.json_files import save_json

__all__ = ["SHIPPED", "Threshold", "Thresholds", "read_thresholds", "write_thresholds"]


class Threshold(NamedTuple):
    """The values above which a rule warns and fails."""

    warn: float
    fail: float


Thresholds = Mapping[str, Threshold]
"""The name of a rule -> its threshold."""

SHIPPED: Thresholds = {
    "orientation": Threshold(0.97, 1.03),
    "left_right": Threshold(1.05, 1.15),
    "agreement": Threshold(-0.6, -0.5),
    "displacement": Threshold(0.12, 0.2),
    "rotation": Threshold(30.0, 60.0),
    "coverage": Threshold(0.4, 0.8),
    "stretch": Threshold(1.0, 1.5),
}
"""Calibrated on right and wrong pairs of eleven cohorts: benchmarks/verdict.md."""

FIELD = "thresholds"


def read_thresholds(path: str | None) -> Thresholds:
    """Read the thresholds of a file; None stands for those on board, which also serve where the file has none.

    Raises:
        InputError: it is not a file of thresholds.
    """
    if path is None:
        return SHIPPED
    expected = f"got the thresholds {path}, expected a JSON file written by `corereg calibrate`"
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{expected} ({' '.join(str(error).split())})") from None
    found = content.get(FIELD) if isinstance(content, dict) else None
    if not isinstance(found, dict) or not found or found.keys() - SHIPPED.keys():
        raise InputError(f"{expected}, with `{FIELD}` for some of {', '.join(SHIPPED)}; make it again")
    return {**SHIPPED, **{name: _threshold(value, f"{expected}; {name}") for name, value in found.items()}}


def write_thresholds(path: Path, thresholds: Thresholds, about: Mapping[str, Any]) -> None:
    """Write a file of thresholds.

    Args:
        about: further entries, which say how they came about.
    """
    save_json(path, {**about, FIELD: {name: each._asdict() for name, each in thresholds.items()}})


def _threshold(value: Any, place: str) -> Threshold:
    limits = [value.get(name) for name in Threshold._fields] if isinstance(value, dict) else []
    numbers = [limit for limit in limits if isinstance(limit, int | float) and not isinstance(limit, bool)]
    if len(numbers) < 2 or not all(map(math.isfinite, numbers)) or not numbers[0] < numbers[1]:
        raise InputError(f"{place} has {str(value)[:80]}, where `warn` and a larger `fail` are needed; make it again")
    return Threshold(*map(float, numbers))
