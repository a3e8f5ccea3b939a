"""How well the label maps of a registered pair overlap: numbers for result.json."""

from collections.abc import Collection

from corereg.evaluation.metrics import dice, mean_over_labels
from corereg.io.images.image import Image
from corereg.io.transforms.transform import Transform

__all__ = ["overlap"]


def overlap(
    fixed: Image, moving: Image, before: Image, after: Image, *, guiding: Collection[int | str] | None = None
) -> dict[str, float | dict[str, float]]:
    """Mean Dice without registration, before the last kind of it, and after; and that of each label after.

    Args:
        fixed, moving: label maps, each on its own grid.
        before, after: the moving labels on the fixed grid, by what precedes the last kind of registration, and by the
            result.
        guiding: the labels that guided the registration, if not all did; they and the others get means of their own.
    """
    unregistered = Transform((), fixed=fixed).apply(moving, labels=True)
    maps = {"dice": after, "dice_before": before, "dice_unregistered": unregistered}
    scores = {name: dice(fixed.array, there.array, moving.array) for name, there in maps.items()}
    found: dict[str, float | dict[str, float]] = {name: mean_over_labels(each) for name, each in scores.items()}
    if guiding is not None:
        for kind, picked in (("guiding", True), ("not_guiding", False)):
            for name, each in scores.items():
                chosen = {label: score for label, score in each.items() if (label in guiding) is picked}
                found[name.replace("dice", f"dice_{kind}")] = mean_over_labels(chosen)
    return found | {"dice_per_label": {str(label): score for label, score in scores["dice"].items()}}
