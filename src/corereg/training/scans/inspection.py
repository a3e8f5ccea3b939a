"""What each scan of a cohort is: its content hash, grid and modality, or why it cannot be used. Findings stay on disk.

A scan is opened once. After that its files are hashed again only if their size or modification time has changed.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from corereg.data.pairs import Scan
from corereg.errors import InputError
from corereg.geometry.grid import Grid
from corereg.io.images.image import read_image
from corereg.io.json_files import load_json, save_json
from corereg.preprocessing.detection import Intensities, judge_intensities
from corereg.progress import Step
from corereg.provenance import hash_files

__all__ = ["Finding", "inspect_scans", "looks_like_labels"]

INDEX = "scans.json"
INDEX_VERSION = 2
"""Increment when the inspection rules change."""

TWO_FILE_SUFFIXES = (".mhd", ".nhdr")
"""Suffixes of headers whose voxels lie in another file that begins with the same name."""

LABEL_SHARE = 0.75
"""Share of equal neighbours above which whole numbers are taken for labels. It was at least 0.91 in 82 label maps (7 to
59 structures, 1 to 3 mm) and at most 0.41 in 91 CT and MR images rounded to 8 bits. The number of distinct values does
not help: a widely used T1 image (Colin 27) has 127 of them, and a whole-body label map has as many."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What the inspection of one scan found."""

    sha256: str = ""
    """Hash of the content of its files."""
    grid: Grid | None = None
    intensities: Intensities = field(default_factory=lambda: Intensities("mr"))
    """CT or MR, by its header or its values."""
    problem: str | None = None
    """Why it cannot be used, in one line; None for a usable scan, which then has a grid."""


def inspect_scans(scans: Sequence[Scan], folder: Path, progress: Callable[[str], None]) -> list[Finding]:
    """Inspect scans one at a time; findings of an earlier inspection are reused.

    Args:
        folder: existing folder that keeps the findings.
        progress: called with a line before a scan is opened.
    """
    index = load_json(folder / INDEX)
    if index.get("version") != INDEX_VERSION:
        index = {"version": INDEX_VERSION, "hashes": {}, "contents": {}}
    hashes, contents = index["hashes"], index["contents"]
    findings, changed = [], False
    for number, scan in enumerate(scans, start=1):
        key = str(scan.image.resolve())
        try:
            stamp = _stamp(scan.image)
            if hashes.get(key, [None])[0] != stamp:
                hashes[key], changed = [stamp, hash_files(_files(scan.image))], True
        except OSError as error:
            problem = f"{scan.name} cannot be read ({error}), expected an image; check the file"
            findings.append(Finding(problem=problem))
            continue
        sha256 = hashes[key][1]
        if sha256 not in contents:
            progress(Step(f"reading scan {number} of {len(scans)}: {scan.name}", number - 1, len(scans)))
            contents[sha256] = _inspect(scan)
            save_json(folder / INDEX, index)
            changed = False
        findings.append(_finding(sha256, **contents[sha256], map_only=scan.map_only))
    if changed:
        save_json(folder / INDEX, index)
    return findings


def _finding(
    sha256: str,
    shape: list[int],
    affine: list[list[float]],
    intensities: dict[str, Any],
    problem: str | None,
    *,
    map_only: bool,
) -> Finding:
    if problem is not None and not (shape and map_only):
        return Finding(sha256, problem=problem)
    i, j, k = shape
    found = Finding(sha256, Grid((i, j, k), np.array(affine)))
    # The numbers of labels are no intensities.
    return found if map_only else replace(found, intensities=Intensities(**intensities))


def _inspect(scan: Scan) -> dict[str, Any]:
    """The arguments of `_finding` as JSON values."""
    try:
        image = read_image(scan.image)
    except InputError as error:
        # Findings belong to the content, wherever it lies: the message names the scan, not its path.
        text = str(error).replace(str(scan.image), scan.name)
        return {"shape": [], "affine": [], "intensities": {}, "problem": text}
    problem = None
    if looks_like_labels(image.array):
        problem = f"{scan.name} looks like a label map, expected an image; give the image that it belongs to"
    return {
        "shape": list(image.grid.shape),
        "affine": image.grid.affine.tolist(),
        "intensities": asdict(judge_intensities(image.array, image.modality)),
        "problem": problem,
    }


def looks_like_labels(array: NDArray[Any]) -> bool:
    """Whether voxels are non-negative whole numbers that mostly equal their neighbours.

    Args:
        array: (I, J, K). Neighbours lie along the first axis, and both must exceed the smallest value.
    """
    background = array.min()
    if background < 0 or (array.dtype.kind == "f" and (array != np.rint(array)).any()):
        return False
    inside = array != background
    inside = inside[:-1] & inside[1:]
    equal = (array[:-1] == array[1:]) & inside
    return int(np.count_nonzero(equal)) > LABEL_SHARE * int(np.count_nonzero(inside))


def _files(image: Path) -> list[Path]:
    if image.is_dir():
        return sorted(file for file in image.rglob("*") if file.is_file())
    if image.suffix.lower() in TWO_FILE_SUFFIXES:
        return sorted(file for file in image.parent.iterdir() if file.name.startswith(f"{image.stem}."))
    return [image]


def _stamp(image: Path) -> str:
    states = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in _files(image)]
    return hashlib.sha256(json.dumps(states).encode()).hexdigest()
