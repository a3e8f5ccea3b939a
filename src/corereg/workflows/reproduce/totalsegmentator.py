"""Labels of RAD-ChestCT, which has none of its own: the 22 structures of the paper, from TotalSegmentator's output.

Names are the same in versions 1 and 2 of TotalSegmentator. Numbers are not, and in version 2 the chambers of the heart
come from a task of their own, `heartchambers_highres`. Source: TotalSegmentator, class_map (v1.5.7 and v2).
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from corereg.errors import InputError
from corereg.io.atomic import atomic_path
from corereg.io.images.companions import laid_on
from corereg.io.images.image import Image, read_labels, write_image
from corereg.io.places import ensure_output_folder
from corereg.progress import Step

__all__ = ["STRUCTURES", "merge_segmentations"]

LOBES = (
    "lung_upper_lobe_left",
    "lung_lower_lobe_left",
    "lung_upper_lobe_right",
    "lung_middle_lobe_right",
    "lung_lower_lobe_right",
)
VERTEBRAE = tuple(f"vertebrae_T{number}" for number in range(1, 13))
CHAMBERS = (
    "heart_myocardium",
    "heart_atrium_left",
    "heart_ventricle_left",
    "heart_atrium_right",
    "heart_ventricle_right",
)
STRUCTURES = {name: number for number, name in enumerate((*LOBES, *VERTEBRAE, *CHAMBERS), start=1)}
"""Name of each structure -> its number in the merged label map."""

TOTAL, HEART = "", "_heartchambers_highres"
"""What follows a scan's name in the files of the two tasks."""

NUMBERS: Mapping[int, Mapping[str, Mapping[str, int]]] = {
    1: {
        TOTAL: {name: 13 + n for n, name in enumerate(LOBES)}
        | {f"vertebrae_T{number}": 35 - number for number in range(1, 13)}
        | {name: 44 + n for n, name in enumerate(CHAMBERS)}
    },
    2: {
        TOTAL: {name: 10 + n for n, name in enumerate(LOBES)}
        | {f"vertebrae_T{number}": 44 - number for number in range(1, 13)},
        HEART: {name: 1 + n for n, name in enumerate(CHAMBERS)},
    },
}
"""Version -> task -> number of each structure in a label map written with `--ml`."""


def merge_segmentations(
    names: Collection[str],
    segmentations: Path,
    out: Path,
    *,
    version: int | None = None,
    progress: Callable[[str], None] | None = None,
) -> Path:
    """Write a label map of the paper's 22 structures for each scan, unless there is one already.

    Args:
        names: names of the scans.
        segmentations: TotalSegmentator's output: for each scan a folder <scan>/ with a mask per structure; or a label
            map <scan>.nii.gz written with `--ml`, for version 2 with <scan>_heartchambers_highres.nii.gz next to it.
        out: folder for <scan>.nii.gz.
        version: version of TotalSegmentator, 1 or 2, which label maps need and masks do not.
        progress: called with a line before each scan.

    Returns: `out`.

    Raises:
        InputError: a scan has no segmentation, or lacks structures; the version of a label map is not given.
    """
    if version is not None and version not in NUMBERS:
        raise InputError(f"got version {version} of TotalSegmentator, expected {' or '.join(map(str, NUMBERS))}")
    ensure_output_folder(out)
    for number, name in enumerate(names):
        target = out / f"{name}.nii.gz"
        if target.is_file():
            continue
        if progress:
            progress(Step(f"merging labels: {name}", number, len(names)))
        merged = _from_masks(name, segmentations / name) or _from_maps(name, segmentations, version)
        with atomic_path(target) as staged:
            write_image(staged, merged.array, merged)
    return out


def _from_masks(name: str, folder: Path) -> Image | None:
    """The structures of a folder with a mask each; None if there is no such folder."""
    if not folder.is_dir():
        return None
    files = {structure: folder / f"{structure}.nii.gz" for structure in STRUCTURES}
    missing = [structure for structure, file in files.items() if not file.is_file()]
    if missing:
        raise InputError(
            f"the segmentation {folder} lacks {missing[0]} ({len(missing)} of {len(files)} structures are missing); "
            "run TotalSegmentator's task total and, in version 2, heartchambers_highres into that folder"
        )
    masks = {structure: read_labels(file) for structure, file in files.items()}
    return _merged(name, {structure: (mask, mask.array > 0) for structure, mask in masks.items()})


def _from_maps(name: str, folder: Path, version: int | None) -> Image:
    if version is None or not (folder / f"{name}.nii.gz").is_file():
        raise InputError(
            f"there is no folder {folder / name} with a mask per structure, nor a label map {name}.nii.gz with the "
            "version of TotalSegmentator that wrote it; segment the scan, or give --totalsegmentator 1 or 2"
        )
    parts: dict[str, tuple[Image, NDArray[Any]]] = {}
    for task, numbers in NUMBERS[version].items():
        file = folder / f"{name}{task}.nii.gz"
        if not file.is_file():
            name_of_task = task.lstrip("_") or "total"
            raise InputError(
                f"the label map {file} is missing; version {version} writes it with the task {name_of_task}"
            )
        labels = read_labels(file)
        parts |= {structure: (labels, labels.array == number) for structure, number in numbers.items()}
    return _merged(name, parts)


def _merged(name: str, parts: Mapping[str, tuple[Image, NDArray[Any]]]) -> Image:
    first = next(iter(parts.values()))[0]
    merged = np.zeros(first.grid.shape, np.uint8)
    for structure, (image, mask) in parts.items():
        own = replace(image, array=mask)
        merged[laid_on(own, first.grid, what=f"the {structure}", of=first.name).array] = STRUCTURES[structure]
    return Image(merged, first.grid, name=name)
