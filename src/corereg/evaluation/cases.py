"""The pairs of a data set to evaluate: both scans with their labels and landmarks, and the file names of their field.

Upstream: `data.pairs`. Downstream: `score`, `evaluate`, `benchmark.run`.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from warnings import warn

import numpy as np
from numpy.typing import NDArray

from corereg.data.layouts.learn2reg import list_learn2reg
from corereg.data.pairs import Pairs, Scan, points_of_pair, read_dataset
from corereg.errors import InputError
from corereg.geometry.grid import HEADER_TOLERANCE_MM, Grid
from corereg.geometry.positions import moving_offsets_vox
from corereg.io.images.checks import described
from corereg.io.images.companions import turned
from corereg.io.images.image import Image, read_image, read_labels
from corereg.io.images.reference import as_reference

__all__ = ["SPLITS", "Case", "Cases", "LoadedCase", "read_cases", "standing_still"]

SPLITS = ("validation", "test")
TEST_PAIRS = "registration_test"
"""Learn2Reg: key of the test pairs in the dataset JSON."""
CASE_AND_MODALITY = re.compile(r"(?:^|_)(\d{4})_(\d{4})$")


@dataclass(frozen=True, slots=True)
class Case:
    """One pair of scans to score."""

    fixed: Scan
    moving: Scan
    landmarks: tuple[Path, Path] | None = None
    """Landmark files, fixed first; row n of one matches row n of the other."""

    @property
    def name(self) -> str:
        """Names of both scans, fixed first."""
        return f"{self.fixed.name} <- {self.moving.name}"

    @property
    def labelled(self) -> bool:
        return self.fixed.labels is not None and self.moving.labels is not None

    @property
    def ids(self) -> tuple[str, str, str, str] | None:
        """Case and modality of fixed and moving, four digits each; None unless both names end in them (Learn2Reg)."""
        found = [CASE_AND_MODALITY.search(scan.name) for scan in (self.fixed, self.moving)]
        if found[0] is None or found[1] is None:
            return None
        return found[0][1], found[0][2], found[1][1], found[1][2]

    def field_names(self) -> tuple[str, ...]:
        """Accepted names of the displacement field, without suffix; Learn2Reg's long form first, then the short one."""
        if self.ids is None:
            return (f"disp_{self.fixed.name}_{self.moving.name}",)
        return "_".join(("disp", *self.ids)), f"disp_{self.ids[0]}_{self.ids[2]}"


@dataclass(frozen=True, slots=True)
class Cases:
    """The pairs in one split of a data set."""

    name: str
    """Name of the data set."""
    split: str
    """"validation" or "test"; "training" for a plain list of pairs, which has no splits."""
    cases: tuple[Case, ...]
    label_names: Mapping[int, str]

    @property
    def scored(self) -> bool:
        """Whether any pair has labels or landmarks, so that accuracy can be measured."""
        return any(case.labelled or case.landmarks for case in self.cases)


def read_cases(dataset: Path, split: str | None = None) -> Cases:
    """Read the pairs of a data set in any supported layout.

    Args:
        split: "validation" or "test"; by default the test pairs if they have labels or landmarks, else the validation
            pairs.

    Raises:
        InputError: `dataset` cannot be read, or has no such pairs.
    """
    if split is not None and split not in SPLITS:
        raise InputError(f"got pairs {split!r}, expected {' or '.join(SPLITS)}; choose one")
    test = None if split == "validation" else _test_cases(dataset)
    if test is not None and (split == "test" or test.scored):
        return test
    found = read_dataset(dataset)
    if found.test and split != "validation":
        test = Cases(found.name, "test", _cases(found.scans, found.test), found.label_names)
        if split == "test" or test.scored:
            return test
    if split == "test":
        raise InputError(
            f"{dataset} is without test pairs; list some under {TEST_PAIRS!r}, or evaluate the validation pairs"
        )
    pairs, name = (found.validation, "validation") if found.validation else (found.training, "training")
    if name == "training" and found.layout != "csv":
        raise InputError(f"{dataset} has no validation pairs to evaluate; list the pairs in a CSV file and pass that")
    return Cases(found.name, name, _cases(found.scans, pairs), found.label_names)


def _test_cases(dataset: Path) -> Cases | None:
    """The test pairs of a Learn2Reg data set, or None if it lists none. Training never reads them."""
    described = [dataset] if dataset.is_file() else sorted(dataset.glob("*_dataset.json"))
    if len(described) != 1 or described[0].suffix.lower() != ".json":
        return None
    try:
        content = json.loads(described[0].read_text("utf-8-sig"))
    except (ValueError, OSError, RecursionError):  # reported by `read_dataset`
        return None
    if not isinstance(content, dict) or not content.get(TEST_PAIRS):
        return None
    listing = list_learn2reg(described[0], content | {"registration_val": content[TEST_PAIRS]})
    return Cases(listing.name, "test", _cases(listing.scans, listing.validation_pairs or ()), listing.label_names)


def _cases(scans: tuple[Scan, ...], pairs: Pairs) -> tuple[Case, ...]:
    sides = ((scans[fixed], scans[moving]) for fixed, moving in pairs)
    return tuple(Case(fixed, moving, points_of_pair(fixed, moving)) for fixed, moving in sides)


@dataclass(frozen=True)
class LoadedCase:
    """The volumes of a pair, read on first use and kept."""

    case: Case

    @cached_property
    def fixed_labels(self) -> Image | None:
        return _labels_of(self.case.fixed)

    @cached_property
    def moving_labels(self) -> Image | None:
        return _labels_of(self.case.moving)

    @property
    def labels(self) -> tuple[Image, Image] | None:
        """Label maps of the fixed and the moving scan; None unless both exist."""
        fixed, moving = self.fixed_labels, self.moving_labels
        return None if fixed is None or moving is None else (fixed, moving)

    @cached_property
    def fixed_mask(self) -> NDArray[np.bool_] | None:
        """Where the fixed scan counts, along the axes of its image."""
        mask = _map_of(self.case.fixed, self.case.fixed.mask, "mask")
        return None if mask is None else mask.array > 0

    @cached_property
    def images(self) -> tuple[Image, Image]:
        return read_image(self.case.fixed.image), read_image(self.case.moving.image)

    @property
    def grids(self) -> tuple[Grid, Grid]:
        fixed, moving = self.labels or self.images
        return fixed.grid, moving.grid


def _labels_of(scan: Scan) -> Image | None:
    return _map_of(scan, scan.labels, "label map")


def _map_of(scan: Scan, path: Path | None, what: str) -> Image | None:
    """A scan's label map or mask along the axes of its image, in whose voxels displacements are.

    It is never resampled, because the challenge's measures count the voxels that were labelled.
    """
    if path is None:
        return None
    labels = read_labels(path)
    if scan.map_only or not scan.image.exists():
        return labels
    like = as_reference(scan.image)
    grid = like if isinstance(like, Grid) else like.grid
    labels = turned(labels, grid)
    if labels.grid.shape != grid.shape:
        warn(
            f"the {what} {labels.name} lies on a grid of its own, {labels.grid}, its image on {grid}; nothing is "
            f"resampled for these measures: give fields of that grid, or resample the {what}",
            stacklevel=2,
        )
    elif not labels.grid.close_to(grid, HEADER_TOLERANCE_MM):
        warn(
            f"the {what} {labels.name} lies at {described(labels.grid)}, its image at {described(grid)}; its voxels "
            "are scored as if they were the image's, as the challenge does: check its header",
            stacklevel=2,
        )
    return labels


def standing_still(fixed: Grid, moving: Grid) -> NDArray[Any]:
    """The displacement (3, I, J, K), in voxels, that leaves every point where it is in the world."""
    if fixed.close_to(moving, HEADER_TOLERANCE_MM):
        return np.zeros((3, *fixed.shape), np.float32)
    return moving_offsets_vox(np.zeros((3, *fixed.shape)), fixed, moving)
