"""One pair and its field -> numbers, by the challenge's formulas, and whether the field can be what it says it is.

Upstream: `cases`, `field_files`. Downstream: `evaluate`, `benchmark`.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from corereg.errors import InputError
from corereg.evaluation import metrics
from corereg.evaluation.cases import Case
from corereg.evaluation.field_files import GRID_TOLERANCE_MM, MILLIMETRES, VOXELS, FieldFile
from corereg.geometry.grid import Grid
from corereg.io.images import Image, read_image, read_labels

__all__ = ["LoadedCase", "Row", "score_pair", "suspicion"]

Row = dict[str, Any]
"""Names and numbers of one pair; `dice_per_label` and `hd95_mm_per_label` map a label to its score."""

CHECK_POINTS: Final = 300_000
"""Voxels at which a field is checked for a mistaken unit or axis order."""
CLEARLY_BETTER: Final = 0.1
"""Of Dice or of the correlation of intensities: what another reading must gain before it is believed."""

CLEARLY_WORSE: Final = 0.02
"""What a field must lose before it is tried on all other pairs, which takes a while."""


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


def score_pair(loaded: LoadedCase, field: FieldFile) -> Row:
    """All measures of a field that the pair has the data for.

    Returns: with labels dice, dice_before, hd95_vox, hd95_mm and both per label; with landmarks tre_mm and
        tre_before_mm; always sdlogj, fold_percent, ndv_percent and displacement_mm (mean).
    """
    fixed_grid, moving_grid = loaded.grids
    row: Row = {"fixed": loaded.case.fixed.name, "moving": loaded.case.moving.name}
    if loaded.labels is not None:
        row |= _overlap(loaded.labels, field.disp_vox)
    if loaded.case.landmarks is not None:
        fixed_points, moving_points = (_landmarks(path) for path in loaded.case.landmarks)
        for name, disp_vox in (("tre_mm", field.disp_vox), ("tre_before_mm", _still(*loaded.grids))):
            errors_mm = metrics.tre(disp_vox, fixed_points, moving_points, moving_grid.spacing)
            row[name] = float(errors_mm.mean())
    spacing = np.reshape(fixed_grid.spacing, (3, 1, 1, 1))
    return row | {
        "sdlogj": metrics.sdlogj(field.own_vox),
        "fold_percent": metrics.fold_percent(field.own_vox),
        "ndv_percent": metrics.ndv_percent(field.own_vox),
        "displacement_mm": float(np.sqrt(((field.own_vox * spacing) ** 2).sum(0)).mean()),
    }


def _overlap(labels: tuple[Image, Image], disp_vox: NDArray[Any]) -> Row:
    fixed, moving = labels[0].array, labels[1].array
    warped = metrics.warp_labels(moving, disp_vox, other_shape=True)
    after = metrics.dice(fixed, warped, moving)
    before = metrics.dice(
        fixed, metrics.warp_labels(moving, _still(labels[0].grid, labels[1].grid), other_shape=True), moving
    )
    hd95_vox = metrics.hd95(fixed, warped, moving)
    hd95_mm = metrics.hd95(fixed, warped, moving, spacing_mm=labels[0].grid.spacing)
    return {
        "dice": metrics.mean_over_labels(after),
        "dice_before": metrics.mean_over_labels(before),
        "hd95_vox": metrics.mean_over_labels(hd95_vox),
        "hd95_mm": metrics.mean_over_labels(hd95_mm),
        "dice_per_label": after,
        "hd95_mm_per_label": hd95_mm,
    }


def _still(fixed: Grid, moving: Grid) -> NDArray[Any]:
    """The displacement (3, I, J, K) that leaves everything where it is in the world."""
    if fixed.close_to(moving, GRID_TOLERANCE_MM):
        return np.zeros((3, *fixed.shape), np.float32)
    matrix = fixed.to_voxels_of(moving)
    index = np.indices(fixed.shape, np.float64)
    return np.asarray(np.einsum("ac,cijk->aijk", matrix[:3, :3], index) + matrix[:3, 3].reshape(3, 1, 1, 1) - index)


def _landmarks(path: Path) -> NDArray[np.float64]:
    """Learn2Reg: x, y, z in voxels of their image, one landmark a line, no header."""
    try:
        points = np.loadtxt(path, delimiter=",", ndmin=2)
    except ValueError as error:
        raise InputError(
            f"got {path}, which is no table of numbers ({error}), expected x,y,z per line; correct it"
        ) from None
    return np.asarray(points, np.float64)


def suspicion(loaded: LoadedCase, field: FieldFile, others: Iterable[Case] = ()) -> str | None:
    """Why a field is probably not what it is taken for, in words; None if nothing speaks against it.

    The field is read in other ways (in the other unit, with its axes reversed, with the signs of the other world,
    backwards) and for the `others` of equal shape. It is suspected if it then overlaps or correlates clearly
    better while it makes matters worse as it stands; if it is read in voxels instead of millimetres, in any case.
    """
    sample = _Sample.of(loaded)
    before, as_read = sample.score(_still(*loaded.grids)), sample.score(field.disp_vox)
    spacing = np.reshape(loaded.grids[0].spacing, (3, 1, 1, 1))
    worse = as_read < before
    readings = {"the axes in reverse order": lambda u: u[::-1], "LPS where RAS was meant": _other_world}
    readings["the direction from moving to fixed"] = lambda u: -u
    if field.unit == VOXELS:
        readings[MILLIMETRES] = lambda u: u / spacing
    elif field.unit == MILLIMETRES:
        readings[VOXELS] = lambda u: u * spacing
    scores = {name: sample.score(read(field.disp_vox)) for name, read in readings.items() if worse or name == VOXELS}
    best = max(scores, key=lambda name: scores[name], default=None)
    if best is not None and scores[best] > max(as_read, before) + CLEARLY_BETTER:
        return f"its numbers look like {best}: {_gain(sample, before, as_read)}, read so {scores[best]:.2f}"
    if as_read > before - CLEARLY_WORSE:
        return None
    for other in map(LoadedCase, others):
        if other.grids[0].shape != loaded.grids[0].shape or other.grids[1].shape != loaded.grids[1].shape:
            continue
        there = _Sample.of(other)
        gained = there.score(field.disp_vox) - there.score(_still(*other.grids))
        if gained > CLEARLY_BETTER:
            told = _gain(sample, before, as_read)
            return f"it looks like the field of {other.case.name}: {told}, there it gains {gained:.2f}"
    return None


def _gain(sample: "_Sample", before: float, after: float) -> str:
    return f"{sample.measure} {before:.2f} before and {after:.2f} after"


def _other_world(disp_vox: NDArray[Any]) -> NDArray[Any]:
    return np.asarray(disp_vox * np.reshape((-1, -1, 1), (3, 1, 1, 1)))


@dataclass(frozen=True)
class _Sample:
    """Every so many voxels of a pair, enough to tell a right field from a wrong one."""

    fixed: NDArray[Any]
    moving: NDArray[Any]
    picked: tuple[slice, ...]
    index: NDArray[np.float64]
    measure: str

    @staticmethod
    def of(loaded: LoadedCase) -> "_Sample":
        fixed, moving = (image.array for image in loaded.labels or loaded.images)
        step = max(1, round((fixed.size / CHECK_POINTS) ** (1 / 3)))
        picked = (slice(None, None, step),) * 3
        index = np.stack(np.meshgrid(*(np.arange(0, n, step) for n in fixed.shape), indexing="ij"), 0)
        measure = "correlation" if loaded.labels is None else "Dice"
        return _Sample(fixed[picked], moving, picked, index.astype(np.float64), measure)

    def score(self, disp_vox: NDArray[Any]) -> float:
        warped = metrics.warp_labels(
            self.moving,
            self.index + disp_vox[(slice(None), *self.picked)] - np.indices(self.fixed.shape),
            other_shape=True,
        )
        if self.measure == "Dice":
            score = metrics.mean_dice(self.fixed, warped, self.moving)
        else:
            values = [volume.reshape(-1).astype(np.float64) for volume in (self.fixed, warped)]
            score = float(np.asarray(np.corrcoef(values))[0, 1]) if all(value.std() > 0 for value in values) else 0.0
        return 0.0 if math.isnan(score) else score
