"""The results of a batch of a BIDS folder once more, as a BIDS derivative data set of links: bids/sub-*/...

Names follow fMRIPrep: `_space-<fixed>_desc-registered_<suffix>` for images, `_from-<moving>_to-<fixed>_mode-image_xfm`
for transforms. Upstream: `rows`.
"""

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from corereg.data.layouts.bids import entities_of
from corereg.data.layouts.listing import scan_name
from corereg.errors import InputError
from corereg.io.json_files import save_json
from corereg.provenance import versions
from corereg.workflows.batch.pairs import Pair, Source
from corereg.workflows.batch.rows import OK, read_rows
from corereg.workflows.outputs import OUTPUTS, RESULT

__all__ = ["bids_names", "checked_names", "write_bids"]

FOLDER, DESCRIPTION = "bids", "dataset_description.json"
BIDS_VERSION = "1.9.0"


def checked_names(source: Source) -> Source:
    """The same pairs.

    Raises, as they are given:
        InputError: a moving image has no name of BIDS.
    """

    def pairs() -> Iterator[Pair]:
        for pair in source():
            if entities_of(scan_name(pair.moving)) is None:
                raise InputError(
                    f"got --bids-names and the moving image {pair.moving}, expected a name such as sub-01_ses-1_T1w; "
                    "rename it, or leave --bids-names out"
                )
            yield pair

    return pairs


def write_bids(directory: Path, rows: Path) -> None:
    """Link the outputs of all pairs that are done into bids/; an entry that is the same file stays."""
    root = directory / FOLDER
    for row in read_rows(rows):
        if row["status"] != OK:
            continue
        for source, place in bids_names(Path(row["fixed"]), Path(row["moving"])).items():
            made = directory / row["name"] / source
            if made.is_file():
                _link(made, root / place)
    if root.is_dir():
        save_json(
            root / DESCRIPTION,
            {
                "Name": directory.resolve().name,
                "BIDSVersion": BIDS_VERSION,
                "DatasetType": "derivative",
                "GeneratedBy": [{"Name": "corereg", "Version": versions("corereg")["corereg"]}],
            },
        )


def bids_names(fixed: Path, moving: Path) -> dict[str, Path]:
    """File of a pair's folder -> its path in the derivative data set."""
    name = scan_name(moving)
    known = entities_of(name)
    assert known is not None
    entities, suffix = known
    base = name.removesuffix(suffix)
    target = entities_of(scan_name(fixed))
    if target is None:
        here, there = suffix, re.sub("[^A-Za-z0-9]", "", scan_name(fixed))
    else:
        alone = target[0]["sub"] == entities.get("sub")
        here, there = (_label(*each, subject=not alone) for each in (known, target))
    place = Path(f"sub-{entities['sub']}")
    if "ses" in entities:
        place /= f"ses-{entities['ses']}"
    image, transforms = f"{base}space-{there}_", (f"from-{here}_to-{there}", f"from-{there}_to-{here}")
    names = {
        OUTPUTS["warped"]: f"{image}desc-registered_{suffix}.nii.gz",
        RESULT: f"{image}desc-registered_{suffix}.json",
        OUTPUTS["uncertainty"]: f"{image}desc-uncertainty_{suffix}.nii.gz",
        OUTPUTS["report"]: f"{image}desc-registered_{suffix}.html",
        OUTPUTS["warped_labels"]: f"{image}dseg.nii.gz",
        OUTPUTS["transform"]: f"{base}{transforms[0]}_mode-image_xfm.nii.gz",
        OUTPUTS["inverse_transform"]: f"{base}{transforms[1]}_mode-image_xfm.nii.gz",
        OUTPUTS["transform_h5"]: f"{base}{transforms[0]}_mode-image_xfm.h5",
    }
    return {source: place / moving.parent.name / made for source, made in names.items()}


def _label(entities: dict[str, str], suffix: str, *, subject: bool) -> str:
    """A scan in a word of letters and digits, which is all that such names may hold."""
    words = [f"sub{entities['sub']}"] if subject else []
    words += [f"ses{entities['ses']}"] if "ses" in entities else []
    return "".join((*words, suffix)).replace("+", "")


def _link(made: Path, place: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    with suppress(OSError):
        if os.path.samefile(made, place):
            return
    place.unlink(missing_ok=True)
    try:
        os.link(made, place)
    except OSError:  # a file system without hard links
        shutil.copyfile(made, place)
