"""What was done to a pair, in words: for the last line of the command, the report and the repr of a result."""

from collections.abc import Mapping, Sequence
from typing import Any

from corereg.geometry.grid import Grid
from corereg.method.affine.align import INITIAL, Alignment
from corereg.preprocessing.detection import Intensities

__all__ = ["affine_words", "grid_words", "metric_words", "modality_words"]


def modality_words(intensities: Sequence[Intensities]) -> str:
    """`CT`, or `CT (fixed); MR (moving)`."""
    words = [
        each.modality.upper()
        + (f", stored values {each.offset_hu:+g} HU" if each.offset_hu else "")
        + ("" if each.certain else " (doubtful)")
        for each in intensities
    ]
    return words[0] if words[0] == words[1] else f"{words[0]} (fixed); {words[1]} (moving)"


def affine_words(alignment: Alignment | None) -> str:
    """`off`, `not needed`, or what the alignment started from."""
    if alignment is None:
        return "off"
    start = f"the {INITIAL}" if alignment.start == INITIAL else alignment.start
    return f"started from {start}" if alignment.needed else "not needed"


def grid_words(grid: Grid) -> str:
    """`80 x 96 x 112 at 3 mm`."""
    spacing = sorted({round(mm, 2) for mm in grid.spacing})
    return f"{' x '.join(map(str, grid.shape))} at {' x '.join(f'{mm:g}' for mm in spacing)} mm"


def metric_words(metrics: Mapping[str, Any]) -> str:
    """Dice and the landmarks' error if they are known, SDlogJ, folds and the error of the inverse."""
    known = f"Dice {metrics['dice']:.3f} (before {metrics['dice_before']:.3f}), " if "dice" in metrics else ""
    if "tre_mm" in metrics:
        known += f"TRE {metrics['tre_mm']:.2f} mm (before {metrics['tre_before_mm']:.2f}), "
    return (
        f"{known}SDlogJ {metrics['sdlogj']:.3f}, folds {metrics['fold_percent']:.3f} %, "
        f"inverse error {metrics['inverse_error_mean_mm']:.2f} mm (mean)"
    )
