"""Finds displacement fields that are probably misread: wrong unit, axis order, world or direction, or another pair's.

Upstream: `cases`, `field_files`. Downstream: `evaluate`.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from corereg.evaluation import metrics
from corereg.evaluation.cases import Case, LoadedCase, standing_still
from corereg.evaluation.field_files import MILLIMETRES, VOXELS, FieldFile

__all__ = ["CHECK_POINTS", "CLEARLY_BETTER", "CLEARLY_WORSE", "diagnose_field"]

CHECK_POINTS: Final = 300_000
"""About how many voxels of the fixed grid a field is checked at."""

CLEARLY_BETTER: Final = 0.1
"""Gain in Dice, or in the correlation of intensities, that another reading needs before it is reported."""

CLEARLY_WORSE: Final = 0.02
"""Loss in Dice or correlation above which a field is also tried on all other pairs, which takes a while."""


def diagnose_field(loaded: LoadedCase, field: FieldFile, others: Iterable[Case] = ()) -> str | None:
    """Explain why a field is probably misread; None if it looks right.

    If the field makes the overlap or correlation of the pair worse, it is tried in other readings (the other unit,
    axes in reverse order, LPS for RAS, the opposite direction) and on the `others` of equal shape. A reading that is
    clearly better is reported. Voxels for millimetres are tried even if the field makes the pair better.
    """
    sample = _Sample.from_pair(loaded)
    before, as_read = sample.score(standing_still(*loaded.grids)), sample.score(field.disp_vox)
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
        change = _change(sample, before, as_read)
        return f"its numbers look like {best}: {change}, but {scores[best]:.2f} if read that way"
    if as_read > before - CLEARLY_WORSE:
        return None
    for other in map(LoadedCase, others):
        if other.grids[0].shape != loaded.grids[0].shape or other.grids[1].shape != loaded.grids[1].shape:
            continue
        there = _Sample.from_pair(other)
        gained = there.score(field.disp_vox) - there.score(standing_still(*other.grids))
        if gained > CLEARLY_BETTER:
            change = _change(sample, before, as_read)
            return f"it looks like the field of {other.case.name}: {change} here, but a gain of {gained:.2f} there"
    return None


def _change(sample: "_Sample", before: float, after: float) -> str:
    return f"{sample.measure} {before:.2f} before and {after:.2f} after"


def _other_world(disp_vox: NDArray[Any]) -> NDArray[Any]:
    """The same numbers with the first two signs swapped, as between LPS and RAS."""
    return np.asarray(disp_vox * np.reshape((-1, -1, 1), (3, 1, 1, 1)))


@dataclass(frozen=True)
class _Sample:
    """Evenly spaced voxels of a pair, enough to tell a right field from a wrong one."""

    fixed: NDArray[Any]
    moving: NDArray[Any]
    picked: tuple[slice, ...]
    index: NDArray[np.float64]
    measure: str

    @staticmethod
    def from_pair(loaded: LoadedCase) -> "_Sample":
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
