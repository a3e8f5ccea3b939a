"""Labels that two maps number differently: matched by the names of their structures, or told."""

import warnings
from dataclasses import replace

import numpy as np

from corereg.io.images.image import Image

__all__ = ["numbered_like", "warn_of_other_numbers"]

SHOWN_LABELS = 5
"""Labels that a message names."""


def numbered_like(labels: Image, other: Image) -> Image:
    """The labels with the numbers that another map gives to structures of the same name; others get new numbers.

    Upper and lower case are alike. Maps without names stay as they are.
    """
    if not labels.label_names or not other.label_names:
        return labels
    known = {name.strip().casefold(): number for number, name in other.label_names.items()}
    free = iter(range(max(other.label_names) + 1, max(other.label_names) + len(labels.label_names) + 1))
    numbers = {}
    for number, name in labels.label_names.items():
        known_number = known.get(name.strip().casefold())
        numbers[number] = next(free) if known_number is None else known_number
    array = np.zeros_like(labels.array, dtype=np.int32)
    for number, new in numbers.items():
        array[labels.array == number] = new
    names = {new: labels.label_names[number] for number, new in numbers.items()}
    return replace(labels, array=array, label_names=names)


def warn_of_other_numbers(fixed: Image, moving: Image) -> None:
    """Warn if no label is in both maps."""
    there, here = (np.setdiff1d(labels.array, 0) for labels in (fixed, moving))
    if not np.isin(there, here).any():
        shown = [", ".join(map(str, each[:SHOWN_LABELS])) or "none" for each in (there, here)]
        warnings.warn(
            f"the label maps share no label (fixed: {shown[0]}; moving: {shown[1]}), so {fixed.name} and {moving.name} "
            "cannot be compared; give the same structure the same number in both",
            stacklevel=2,
        )
