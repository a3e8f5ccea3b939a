"""The Learn2Reg challenge's layout: <Task>_dataset.json next to imagesTr, labelsTr, masksTr, keypointsTr and so on."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from corereg.data.layouts.listing import Listing, Scan, apart_from, scan_name
from corereg.errors import InputError

__all__ = ["FORMS", "NAME", "list_learn2reg", "points_of_pair"]

NAME = re.compile(r".*_(?P<case>\d{4})_(?P<modality>\d{4})")
"""<Task>_<case>_<modality>; all scans of a case are of one patient."""

FORMS = {"nifti": ".nii.gz", "npz": ".npz"}
"""Forms of the fields of a submission, and their suffixes: at full size, or at half (tasks of 2020 and 2021)."""

POINT_FOLDERS = ("landmarks", "keypoints")
"""Folders of points in order of preference: points set by people come before points found by a program."""


def list_learn2reg(path: Path, content: Mapping[str, Any]) -> Listing:
    """Read a dataset JSON. Its `training` also lists the validation scans; these and their patients do not train.

    Listed labels, masks, points and test pairs that do not exist are left out.

    Raises:
        InputError: an entry has an unexpected form.
    """
    root = path.parent
    entries = _entries(path, content, "training", ("image",))
    listed, validated, tested = (
        [(root / entry["fixed"], root / entry["moving"]) for entry in _entries(path, content, key, ("fixed", "moving"))]
        for key in ("training_paired_images", _validation_key(content), "registration_test")
    )
    # Test scans are often not released.
    present = [pair for pair in tested if all(image.exists() for image in pair)]
    images = {root / entry["image"]: entry for entry in entries}
    for pair in (*listed, *validated, *present):
        for image in pair:
            images.setdefault(image, {})
    scans = tuple(_scan(image, entry, root) for image, entry in images.items())
    index = {image: i for i, image in enumerate(images)}
    held_out = (_scan(image, {}, root) for pair in (*validated, *tested) for image in pair)
    training = apart_from(held_out, scans, range(len(scans)))
    pairings = content.get("pairings", "unpaired")
    pairs = [(index[fixed], index[moving]) for fixed, moving in listed if pairings != "unpaired"]
    return Listing(
        name=str(content.get("name", path.stem)),
        layout="learn2reg",
        scans=scans,
        training=training,
        training_pairs=tuple(pair for pair in pairs if set(pair) <= set(training)) if pairs else None,
        validation_pairs=tuple((index[fixed], index[moving]) for fixed, moving in validated),
        test_pairs=tuple((index[fixed], index[moving]) for fixed, moving in present),
        pairing="intra" if pairings == "paired" else "inter",
        sides=_sides(content.get("registration_direction"), scans),
        label_names=_label_names(content.get("labels")),
        notes=(f"{absent} listed test pairs have no files here",) if (absent := len(tested) - len(present)) else (),
    )


def points_of_pair(fixed: Scan, moving: Scan) -> tuple[Path, Path] | None:
    """Files of points whose rows match, or None. Pairs of two modalities may have their own: `keypoints01Tr` is for 1
    onto 0.

    The challenge writes the modalities in such a folder's name with one digit each (in the data) or four (in its
    evaluation), in either order.
    """
    kinds = [NAME.fullmatch(scan.name) for scan in (fixed, moving)]
    if all(kinds):
        first, second = (kind["modality"] for kind in kinds if kind)
        for a, b in ((first, second), (second, first)):
            for modalities in (f"{int(a)}{int(b)}", a + b):
                folders = [f"{kind}{modalities}" for kind in POINT_FOLDERS]
                own = [_counterpart(scan.image, folders, ".csv") for scan in (fixed, moving)]
                if own[0] and own[1]:
                    return own[0], own[1]
    return (fixed.points, moving.points) if fixed.points and moving.points else None


def _validation_key(content: Mapping[str, Any]) -> str:
    """LUMIR lists its validation pairs under `validation`, where the files of other challenges list scans."""
    entries = content.get("validation")
    pairs = isinstance(entries, list) and all(isinstance(entry, dict) and "fixed" in entry for entry in entries)
    return "validation" if pairs and "registration_val" not in content else "registration_val"


def _entries(path: Path, content: Mapping[str, Any], key: str, fields: Sequence[str]) -> list[dict[str, Any]]:
    entries = content.get(key) or []
    for entry in entries if isinstance(entries, list) else [entries]:
        if not isinstance(entry, dict) or not all(isinstance(entry.get(field), str) for field in fields):
            raise InputError(
                f"got {path} with the entry {json.dumps(entry)[:80]} in `{key}`, expected objects with "
                f"{' and '.join(f'`{field}`' for field in fields)}; correct it"
            )
    return list(entries)


def _scan(image: Path, entry: Mapping[str, Any], root: Path) -> Scan:
    name = scan_name(image)
    kind = NAME.fullmatch(name)
    labels, mask = (
        _listed(root, entry.get(key)) or _counterpart(image, [folder])
        for key, folder in (("label", "labels"), ("mask", "masks"))
    )
    # Released JSONs give the names of point files the suffix of images.
    points = _listed(root, entry.get("keypoints"), ".csv") or _counterpart(image, POINT_FOLDERS, ".csv")
    return Scan(name, image, labels, kind["case"] if kind else None, mask, points)


def _listed(root: Path, place: object, suffix: str | None = None) -> Path | None:
    if not isinstance(place, str):
        return None
    file = root / place
    file = file if suffix is None else file.with_name(scan_name(file).removesuffix(suffix) + suffix)
    return file if file.is_file() else None


def _counterpart(image: Path, folders: Sequence[str], suffix: str | None = None) -> Path | None:
    """The first existing file of the same name in labelsTr and so on, in place of imagesTr."""
    split = image.parent.name.removeprefix("images")
    name = image.name if suffix is None else scan_name(image) + suffix
    files = (image.parent.parent / (folder + split) / name for folder in folders)
    return next((file for file in files if file.is_file()), None)


def _sides(direction: Any, scans: Sequence[Scan]) -> tuple[frozenset[int], frozenset[int]] | None:
    """Scans that may be fixed and that may be moving, by the modality in their names, if the two sides differ in it."""
    if not isinstance(direction, dict) or direction.get("fixed") == direction.get("moving"):
        return None
    kinds = [NAME.fullmatch(scan.name) for scan in scans]
    modalities = [int(kind["modality"]) if kind else None for kind in kinds]
    fixed, moving = (
        frozenset(i for i, modality in enumerate(modalities) if modality == direction.get(side))
        for side in ("fixed", "moving")
    )
    return fixed, moving


def _label_names(labels: Any) -> dict[int, str]:
    """Names of the labels of all modalities; older JSONs list them without a modality."""
    if not isinstance(labels, dict):
        return {}
    tables = [table for table in labels.values() if isinstance(table, dict)] or [labels]
    named = {number: name for table in tables for number, name in table.items() if str(number).isdigit()}
    return {int(number): str(name) for number, name in named.items() if int(number) > 0}
