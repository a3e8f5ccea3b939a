"""How well the label maps of a registered pair overlap: numbers for result.json."""

from collections.abc import Collection
from typing import Any

from numpy.typing import NDArray

from corereg.evaluation.metrics import dice, mean_over_labels

__all__ = ["overlap"]

Labels = NDArray[Any]


def overlap(
    fixed: Labels, before: Labels, after: Labels, moving: Labels, *, guiding: Collection[int | str] | None = None
) -> dict[str, float | dict[str, float]]:
    """Mean Dice before and after, and that of each label.

    Args:
        fixed, before, after: on the fixed grid.
        moving: the moving label map on its own grid.
        guiding: the labels that guided the registration, if not all did; they and the others get means of their own.
    """
    scores = {"dice": dice(fixed, after, moving), "dice_before": dice(fixed, before, moving)}
    found: dict[str, float | dict[str, float]] = {name: mean_over_labels(each) for name, each in scores.items()}
    if guiding is not None:
        for kind, picked in (("guiding", True), ("not_guiding", False)):
            for name, each in scores.items():
                chosen = {label: score for label, score in each.items() if (label in guiding) is picked}
                found[name.replace("dice", f"dice_{kind}")] = mean_over_labels(chosen)
    return found | {"dice_per_label": {str(label): score for label, score in scores["dice"].items()}}
