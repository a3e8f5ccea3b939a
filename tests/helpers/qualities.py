"""Measures of right pairs, and a method for batches that gives them in place of a registration."""

from pathlib import Path
from typing import Any

from corereg.workflows.batch.pairs import Pair
from helpers.batches import stub

__all__ = ["MEASURED", "RIGHT", "measured"]

MEASURED = "helpers.qualities:measured"

OTHER_ORIENTATIONS = (
    *("mirrored_front_back", "mirrored_head_feet", "mirrored_in_all_axes"),
    *("turned_about_head_feet", "turned_about_front_back", "turned_about_left_right"),
)

RIGHT = {
    **{f"orientation_{words}": 0.7 for words in OTHER_ORIENTATIONS},
    "orientation_mirrored_left_right": 1.0,
    "similarity_above_chance": 0.6,
    "similarity_before": 0.3,
    "displacement_mean_mm": 12.0,
    "displacement_share": 0.05,
    "covered": 1.0,
    "coverable": 1.0,
    "affine_rotation_degrees": 5.0,
    "affine_stretch_excess": 0.8,
}
"""Measures of a right pair."""


def measured(pair: Pair, folder: Path, **options: Any) -> dict[str, Any]:
    """The row of `stub` with the measures of a right pair; its name holds the displacement in thousandths."""
    row = stub(pair, folder, **options)
    return row | RIGHT | {"displacement_share": int(pair.name.split("-")[1]) / 1000}
