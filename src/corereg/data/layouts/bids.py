"""BIDS: sub-<id>[/ses-<id>]/anat/sub-<id>[_ses-<id>][_<key>-<value> ...]_<suffix>.nii.gz. Each subject is a patient.

Scans of a subject are paired from session to session: with the same suffix and entities, the earlier session is fixed.
"""

import json
import re
from collections import defaultdict
from itertools import combinations
from pathlib import Path

from corereg.data.layouts.listing import Listing, Scan, scan_name, visible
from corereg.errors import InputError

__all__ = ["entities_of", "is_bids", "list_bids"]

DESCRIPTION = "dataset_description.json"
DATA_TYPES = ("anat", "ct")
"""Folders of single volumes."""
NO_IMAGES = re.compile(r"(?i).*mask|dseg|probseg|angio|scout")
"""Suffixes of what is no scan to register."""
NAME = re.compile(r"(?P<entities>(?:[a-z]+-[A-Za-z0-9+]+_)+)(?P<suffix>[A-Za-z0-9]+)")


def is_bids(folder: Path) -> bool:
    """Whether a folder is laid out in this way. Its description is often missing."""
    return any(entry.is_dir() for entry in visible(folder, "sub-*"))


def entities_of(name: str) -> tuple[dict[str, str], str] | None:
    """Entities and suffix of a scan's name: sub-01_ses-2_T1w has sub 01, ses 2 and T1w. None if it is no such name."""
    found = NAME.fullmatch(name)
    if found is None:
        return None
    pairs = (entity.split("-", 1) for entity in found["entities"].rstrip("_").split("_"))
    return dict(pairs), found["suffix"]


def list_bids(folder: Path) -> Listing:
    """List the anatomical volumes of a folder.

    Raises:
        InputError: it holds none.
    """
    scans: list[Scan] = []
    sessions: dict[object, list[tuple[str, int]]] = defaultdict(list)
    left_out = 0
    for subject in visible(folder, "sub-*"):
        for image in sorted(file for kind in DATA_TYPES for file in subject.glob(f"**/{kind}/sub-*.nii*")):
            known = entities_of(scan_name(image))
            if known is None or NO_IMAGES.fullmatch(known[1]):
                left_out += 1
                continue
            entities, suffix = known
            session = entities.pop("ses", "")
            sessions[tuple(entities.items()), suffix].append((session, len(scans)))
            scans.append(Scan(scan_name(image), image, patient=subject.name))
    if not scans:
        raise InputError(
            f"got the BIDS folder {folder} without scans in {' or '.join(DATA_TYPES)}, expected names such as "
            "sub-01/ses-1/anat/sub-01_ses-1_T1w.nii.gz; check the path"
        )
    pairs = tuple(
        (fixed, moving) for found in sessions.values() for (_, fixed), (_, moving) in combinations(sorted(found), 2)
    )
    return Listing(
        name=_name(folder),
        layout="bids",
        scans=tuple(scans),
        training=tuple(range(len(scans))),
        training_pairs=pairs or None,
        label_names={},
        notes=(f"{left_out} masks and files of other names are left out",) if left_out else (),
    )


def _name(folder: Path) -> str:
    try:
        return str(json.loads((folder / DESCRIPTION).read_text("utf-8-sig"))["Name"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return folder.resolve().name
