"""A CSV of pairs: fixed,moving[,fixed_labels,moving_labels][,split], with paths relative to the CSV."""

import os
from pathlib import Path

from corereg.data.layouts.listing import Listing, Scan, read_table, unique_names
from corereg.errors import InputError

__all__ = ["list_pair_table"]

SIDES = ("fixed", "moving")
TRAINING, VALIDATION = "train", "val"
"""Values of `split`; an empty cell, or no such column, means training."""


def list_pair_table(path: Path) -> Listing:
    """Read the pairs. A scan may be in several.

    Raises:
        InputError: other columns, or a row without its two paths or with another split.
    """
    rows = read_table(path)
    if rows and not set(SIDES) <= set(rows[0]):
        raise InputError(
            f"got {path} with the columns {', '.join(rows[0])}, expected fixed,moving[,fixed_labels,moving_labels]"
            "[,split] in its first line; put commas between them"
        )
    labels: dict[Path, Path | None] = {}
    pairs: dict[str, list[tuple[Path, Path]]] = {TRAINING: [], VALIDATION: []}
    for number, row in enumerate(rows, start=1):
        split = row.get("split") or TRAINING
        if split not in pairs or not (row["fixed"] and row["moving"]):
            raise InputError(
                f"got pair {number} of {path} with fixed {row['fixed']!r}, moving {row['moving']!r} and split "
                f"{split!r}, expected two paths and {TRAINING} or {VALIDATION}; correct it"
            )
        fixed, moving = (_located(path.parent, row[side]) for side in SIDES)
        for image, side in ((fixed, SIDES[0]), (moving, SIDES[1])):
            cell = row.get(f"{side}_labels")
            labels[image] = labels.get(image) or (_located(path.parent, cell) if cell else None)
        pairs[split].append((fixed, moving))
    index = {image: i for i, image in enumerate(labels)}
    training, validation = (tuple((index[f], index[m]) for f, m in listed) for listed in pairs.values())
    validated = {scan for pair in validation for scan in pair}
    names = unique_names(list(labels))
    return Listing(
        name=path.stem,
        layout="csv",
        scans=tuple(Scan(name, image, labels[image]) for name, image in zip(names, labels, strict=True)),
        training=tuple(i for i in index.values() if i not in validated),
        training_pairs=training,
        validation_pairs=validation,
        label_names={},
    )


def _located(folder: Path, cell: str) -> Path:
    return Path(os.path.normpath(folder / cell))
