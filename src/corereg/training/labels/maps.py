"""The label maps that training learns from: which scans have one, and their classes on the cohort's grid.

A map's file lies where the data set lists it, or in a folder of maps named like their scans.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from corereg.data.layouts.listing import IMAGE_SUFFIXES, Scan, scan_name, visible
from corereg.data.pairs import Dataset
from corereg.errors import InputError
from corereg.io.images.companions import beside
from corereg.io.images.image import read_labels
from corereg.preprocessing.working_grid import resample_labels
from corereg.training.scans.volumes import Volumes

__all__ = ["LISTED", "LabelMaps", "check_labelled", "labels_on_grid", "read_label_maps", "with_label_folder"]

LISTED = "listed"
"""In place of a folder: the label maps that the data set lists."""

MOST_LABELS = 255
"""A class is stored in one byte."""


@dataclass(frozen=True, eq=False)
class LabelMaps:
    """The label maps of a cohort's training scans."""

    labels: tuple[int, ...]
    """All labels in the maps, in order; class n is labels[n - 1], class 0 the background."""
    classes: Mapping[int, NDArray[np.uint8]]
    """(I, J, K), by row of the cohort; unlabelled scans have none."""
    known: Mapping[int, NDArray[np.bool_]]
    """Whether each class occurs in the scan's map, by row; always True for the background."""
    alone: frozenset[int] = frozenset()
    """Rows whose image is the label map itself."""

    def fingerprint(self, images: str) -> str:
        """SHA-256 of the maps and of the images' own fingerprint."""
        found = hashlib.sha256(f"{images} {self.labels}".encode())
        for row in sorted(self.classes):
            found.update(self.classes[row].tobytes())
        return found.hexdigest()


def with_label_folder(dataset: Dataset, folder: Path) -> Dataset:
    """The data set with the label maps in a folder, each named like its scan or, with nnU-Net's names, its case.

    Validation scans keep the maps that they are listed with, if any.

    Raises:
        InputError: there is no such folder, or a map in it belongs to no scan.
    """
    if not folder.is_dir():
        raise InputError(
            f"got --labels {folder}, which is no folder, expected one with label maps named like their scans, or "
            f"`{LISTED}` for those that the data set lists; check the path"
        )
    files = {scan_name(file): file for file in visible(folder, "*") if file.name.lower().endswith(IMAGE_SUFFIXES)}
    scans = tuple(_with_map(scan, files) for scan in dataset.scans)
    used = {scan.labels for scan in scans}
    strays = [file for file in files.values() if file not in used]
    if strays:
        raise InputError(
            f"got the label map {strays[0]} without an image of that name in {dataset.name} ({len(strays)} of "
            f"{len(files)} maps have none), expected each map to be named like its scan, such as "
            f"{dataset.scans[0].name}; add the image, or remove or rename the map"
        )
    return replace(dataset, scans=scans)


def _with_map(scan: Scan, files: Mapping[str, Path]) -> Scan:
    found = files.get(scan.name) or files.get(scan.name.rpartition("_")[0])
    return replace(scan, labels=found) if found else scan


def check_labelled(dataset: Dataset, *, painted: bool) -> None:
    """Refuse a data set without a label map to learn from.

    Args:
        painted: whether every view is painted from a map, which then needs no image but itself.

    Raises:
        InputError: no training scan has a map, or a map stands in place of an image that is needed.
    """
    training, validating = (
        [dataset.scans[n] for n in sorted({scan for pair in pairs for scan in pair})]
        for pairs in (dataset.training, dataset.validation)
    )
    alone = [scan for scan in (validating if painted else training + validating) if scan.map_only]
    if alone:
        cure = "validate on scans, or not at all" if painted else "give the images, or set labels.painted=1"
        raise InputError(f"got the label map {alone[0].image} in place of an image, expected a scan; {cure}")
    if not any(scan.labels for scan in training):
        raise InputError(
            f"got --labels and {dataset.name}, none of whose {len(training)} training scans has a label map, expected "
            "at least one; add maps to the data set, give their folder, or train without --labels"
        )


def read_label_maps(dataset: Dataset, volumes: Volumes) -> LabelMaps:
    """The maps of all usable training scans that have one. Scans that only validate teach nothing.

    Raises:
        InputError: a map's grid is not its scan's, or its labels are not the data set's, or there are too many.
    """
    training = sorted({scan for pair in dataset.training for scan in pair if scan in volumes.rows})
    labelled = [scan for scan in training if dataset.scans[scan].labels]
    maps = {volumes.rows[scan]: _checked(dataset, volumes, scan) for scan in labelled}
    labels = tuple(sorted({int(label) for array in maps.values() for label in np.unique(array)} - {0}))
    if not 0 < len(labels) <= MOST_LABELS:
        raise InputError(
            f"got {len(labels)} labels in {len(maps)} usable label maps of {dataset.name}, expected 1 to "
            f"{MOST_LABELS}; correct the maps or the scans"
        )
    classes = {row: np.searchsorted((0, *labels), array).astype(np.uint8) for row, array in maps.items()}
    known = {row: np.isin(np.arange(1 + len(labels)), (0, *np.unique(array))) for row, array in classes.items()}
    alone = frozenset(volumes.rows[scan] for scan in labelled if dataset.scans[scan].map_only)
    return LabelMaps(labels, classes, known, alone)


def _checked(dataset: Dataset, volumes: Volumes, index: int) -> NDArray[np.int32]:
    """A training scan's label map on the cohort's grid, if it belongs to the scan and to the data set."""
    scan = dataset.scans[index]
    assert scan.labels is not None
    found = beside(read_labels(scan.labels), volumes.grids[index], what="the label map", of=scan.name)
    labels = {int(label) for label in np.unique(found.array)} - {0}
    listed = set(dataset.label_names) or {label for label in labels if label > 0}
    if not labels <= listed:
        raise InputError(
            f"got the label map {scan.labels} with the labels {sorted(labels - listed)}, expected those of "
            f"{dataset.name}: {sorted(dataset.label_names) or 'positive numbers'}; correct the map or the list"
        )
    return labels_on_grid(scan, volumes, index)


def labels_on_grid(scan: Scan, volumes: Volumes, index: int) -> NDArray[np.int32]:
    """The scan's label map on the cohort's grid.

    Args:
        index: the scan's index in the data set.
    """
    assert scan.labels is not None
    found = read_labels(scan.labels)
    values = torch.from_numpy(found.array.astype(np.int32))
    on_grid: Any = resample_labels(values, found.grid, volumes.grid, affine=volumes.affines[index])
    return np.asarray(on_grid.numpy())
