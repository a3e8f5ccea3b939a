"""The pairs of a data set as evaluation needs them: both scans with their labels and landmarks, and the field's name.

Upstream: `data.pairs`. Downstream: `score`, `evaluate`, `benchmark`.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from corereg.data.layouts.learn2reg import list_learn2reg
from corereg.data.pairs import Pairs, Scan, points_of_pair, read_dataset
from corereg.errors import InputError
from corereg.geometry.grid import HEADER_TOLERANCE_MM, Grid
from corereg.io.images.image import Image, read_image, read_labels

__all__ = ["PARTS", "Case", "Cases", "LoadedCase", "read_cases", "standing_still"]

PARTS = ("validation", "test")
TEST_PAIRS = "registration_test"
"""Learn2Reg: where the dataset JSON lists the test pairs."""
CASE_AND_MODALITY = re.compile(r"(?:^|_)(\d{4})_(\d{4})$")


@dataclass(frozen=True, slots=True)
class Case:
    """One pair to be scored."""

    fixed: Scan
    moving: Scan
    landmarks: tuple[Path, Path] | None = None
    """Files whose rows match, fixed first."""

    @property
    def name(self) -> str:
        """Both scans, fixed first."""
        return f"{self.fixed.name} <- {self.moving.name}"

    @property
    def labelled(self) -> bool:
        return self.fixed.labels is not None and self.moving.labels is not None

    @property
    def ids(self) -> tuple[str, str, str, str] | None:
        """Case and modality of fixed and moving, four digits each, where names end in them as the challenge's do."""
        found = [CASE_AND_MODALITY.search(scan.name) for scan in (self.fixed, self.moving)]
        if found[0] is None or found[1] is None:
            return None
        return found[0][1], found[0][2], found[1][1], found[1][2]

    def field_names(self) -> tuple[str, ...]:
        """Names, without ending, that its displacement field may have; Learn2Reg's long one first, then the short."""
        if self.ids is None:
            return (f"disp_{self.fixed.name}_{self.moving.name}",)
        return "_".join(("disp", *self.ids)), f"disp_{self.ids[0]}_{self.ids[2]}"


@dataclass(frozen=True, slots=True)
class Cases:
    """The pairs of one part of a data set."""

    name: str
    """Of the data set."""
    part: str
    """"validation", "test", or "training" where the data set is no more than a list of pairs."""
    cases: tuple[Case, ...]
    label_names: Mapping[int, str]

    @property
    def scored(self) -> bool:
        """Whether there is anything but regularity to measure."""
        return any(case.labelled or case.landmarks for case in self.cases)


def read_cases(dataset: Path, part: str | None = None) -> Cases:
    """Read the pairs of a data set of any layout.

    Args:
        part: "validation" or "test"; by default the test pairs if they have labels or landmarks, else the validation
            pairs.

    Raises:
        InputError: no data set, or one without such pairs.
    """
    if part is not None and part not in PARTS:
        raise InputError(f"got the part {part!r}, expected one of {', '.join(PARTS)}; choose one")
    test = None if part == "validation" else _test_cases(dataset)
    if test is not None and (part == "test" or test.scored):
        return test
    if part == "test":
        raise InputError(f"got {dataset} without test pairs, expected some in {TEST_PAIRS}; take the validation pairs")
    found = read_dataset(dataset)
    pairs, name = (found.validation, "validation") if found.validation else (found.training, "training")
    if name == "training" and found.layout != "csv":
        raise InputError(f"got {dataset} without validation pairs, expected some to evaluate; list them in a CSV")
    return Cases(found.name, name, _cases(found.scans, pairs), found.label_names)


def _test_cases(dataset: Path) -> Cases | None:
    """The test pairs of a Learn2Reg data set; None where there are none. No training ever sees them."""
    described = [dataset] if dataset.is_file() else sorted(dataset.glob("*_dataset.json"))
    if len(described) != 1 or described[0].suffix.lower() != ".json":
        return None
    try:
        content = json.loads(described[0].read_text("utf-8-sig"))
    except (ValueError, OSError):
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
    """The volumes of a pair, read when they are asked for and kept."""

    case: Case

    @cached_property
    def fixed_labels(self) -> Image | None:
        path = self.case.fixed.labels
        return None if path is None else read_labels(path)

    @cached_property
    def moving_labels(self) -> Image | None:
        path = self.case.moving.labels
        return None if path is None else read_labels(path)

    @property
    def labels(self) -> tuple[Image, Image] | None:
        """Those of the fixed and of the moving scan, if both are there."""
        fixed, moving = self.fixed_labels, self.moving_labels
        return None if fixed is None or moving is None else (fixed, moving)

    @cached_property
    def images(self) -> tuple[Image, Image]:
        return read_image(self.case.fixed.image), read_image(self.case.moving.image)

    @property
    def grids(self) -> tuple[Grid, Grid]:
        fixed, moving = self.labels or self.images
        return fixed.grid, moving.grid


def standing_still(fixed: Grid, moving: Grid) -> NDArray[Any]:
    """The displacement (3, I, J, K) that leaves everything where it is in the world."""
    if fixed.close_to(moving, HEADER_TOLERANCE_MM):
        return np.zeros((3, *fixed.shape), np.float32)
    matrix = fixed.to_voxels_of(moving)
    index = np.indices(fixed.shape, np.float64)
    return np.asarray(np.einsum("ac,cijk->aijk", matrix[:3, :3], index) + matrix[:3, 3].reshape(3, 1, 1, 1) - index)
