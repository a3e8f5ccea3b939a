"""Score the displacement field of one pair by the formulas of the Learn2Reg challenge.

Upstream: `cases`, `field_files`. Downstream: `evaluate`, `benchmark.run`.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from corereg.evaluation import metrics
from corereg.evaluation.cases import LoadedCase, standing_still
from corereg.evaluation.field_files import FieldFile
from corereg.io.images.image import Image
from corereg.io.images.label_names import warn_of_other_numbers
from corereg.io.points.points import read_voxel_table

__all__ = ["Row", "score_pair"]

Row = dict[str, Any]
"""Names and measures of one pair; `dice_per_label` and `hd95_mm_per_label` map a label to its score."""


def score_pair(loaded: LoadedCase, field: FieldFile) -> Row:
    """Every measure that the data of the pair allow.

    Returns: always sdlogj, fold_percent, ndv_percent and displacement_mm (mean); with a mask of the fixed scan also
        sdlogj_masked, as the challenge has it where it masks its evaluation; with labels also dice, dice_before,
        hd95_vox, hd95_mm, dice_per_label and hd95_mm_per_label; with landmarks also tre_mm and tre_before_mm.
    """
    fixed_grid, moving_grid = loaded.grids
    row: Row = {"fixed": loaded.case.fixed.name, "moving": loaded.case.moving.name}
    if loaded.labels is not None:
        row |= _overlap(loaded.labels, field.disp_vox)
        if math.isnan(row["dice"]):
            warn_of_other_numbers(*loaded.labels)
    if loaded.case.landmarks is not None:
        fixed_points, moving_points = (read_voxel_table(path) for path in loaded.case.landmarks)
        for name, disp_vox in (("tre_mm", field.disp_vox), ("tre_before_mm", standing_still(*loaded.grids))):
            errors_mm = metrics.tre(disp_vox, fixed_points, moving_points, moving_grid.spacing)
            row[name] = float(errors_mm.mean())
    if loaded.fixed_mask is not None and loaded.fixed_mask.shape == field.own_vox.shape[1:]:
        row["sdlogj_masked"] = metrics.sdlogj(field.own_vox, loaded.fixed_mask)
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
        fixed, metrics.warp_labels(moving, standing_still(labels[0].grid, labels[1].grid), other_shape=True), moving
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
