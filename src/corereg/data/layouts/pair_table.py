"""A CSV of pairs: fixed,moving[,fixed_labels,moving_labels][,split], with paths relative to the CSV."""

import os
from pathlib import Path

from corereg.data.layouts.listing import Listing, Scan, read_table, unique_names
from corereg.errors import InputError

__all__ = ["list_pair_table"]

SIDES = ("fixed", "moving")
TRAINING, VALIDATION, TEST = "train", "val", "test"
"""Values of the column `split`; an empty cell or a missing column means training."""


def list_pair_table(path: Path) -> Listing:
    """Read the pairs. A scan may be in several pairs.

    Raises:
        InputError: the columns are others, a row lacks one of its two paths, its split is unknown, or a scan has two
            label maps.
    """
    rows = read_table(path)
    if rows and not set(SIDES) <= set(rows[0]):
        raise InputError(
            f"got {path} with the columns {', '.join(rows[0])}, expected fixed,moving[,fixed_labels,moving_labels]"
            "[,split] in its first line; put commas, semicolons or tabs between them"
        )
    labels: dict[Path, Path | None] = {}
    pairs: dict[str, list[tuple[Path, Path]]] = {TRAINING: [], VALIDATION: [], TEST: []}
    for number, row in enumerate(rows, start=1):
        split = row.get("split") or TRAINING
        if split not in pairs or not (row["fixed"] and row["moving"]):
            raise InputError(
                f"got pair {number} of {path} with fixed {row['fixed']!r}, moving {row['moving']!r} and split "
                f"{split!r}, expected two paths and {', '.join(pairs)}; correct it"
            )
        fixed, moving = (_located(path.parent, row[side]) for side in SIDES)
        for image, side in ((fixed, SIDES[0]), (moving, SIDES[1])):
            cell = row.get(f"{side}_labels")
            known, own = labels.get(image), _located(path.parent, cell) if cell else None
            if known and own and known != own:
                raise InputError(
                    f"got pair {number} of {path} with the label map {own} for {image}, which has {known} in another "
                    "row, expected one map for each scan; correct it"
                )
            labels[image] = known or own
        pairs[split].append((fixed, moving))
    index = {image: i for i, image in enumerate(labels)}
    training, validation, test = (tuple((index[f], index[m]) for f, m in listed) for listed in pairs.values())
    held_out = {scan for pair in (*validation, *test) for scan in pair}
    names = unique_names(list(labels))
    return Listing(
        name=path.stem,
        layout="csv",
        scans=tuple(Scan(name, image, labels[image]) for name, image in zip(names, labels, strict=True)),
        training=tuple(i for i in index.values() if i not in held_out),
        training_pairs=training,
        validation_pairs=validation,
        test_pairs=test,
        label_names={},
    )


def _located(folder: Path, cell: str) -> Path:
    return Path(os.path.normpath(folder / cell))
