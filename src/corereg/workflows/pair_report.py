"""The report of a registered pair: what of the result stands on the page, in which words.

Upstream: `register`. Downstream: `report.pair`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from corereg.geometry.displacement import Displacement
from corereg.geometry.grid import Grid
from corereg.geometry.resample import resample
from corereg.io.images.image import Image
from corereg.io.transforms.transform import Transform
from corereg.method.register import RegistrationResult
from corereg.method.wording import affine_words, modality_words
from corereg.report.pair import write_report

__all__ = ["write_pair_report"]

GUIDED = ("tre_left_out_mm", "rigid_deviation_mm")
"""Metrics of what guided the registration that the report shows, besides the overlap of guiding labels."""

UNCHANGED_VOLUME = 1.0
"""det J beyond the working grid, which covers the fixed one."""


def write_pair_report(
    path: Path,
    result: RegistrationResult,
    warped: Image,
    summary: Mapping[str, Any],
    command: str,
    overlays: Mapping[str, Any],
) -> None:
    """Write report.html.

    Args:
        warped: the moving image on the fixed grid.
        summary: the content of result.json.
        overlays: label maps and names, as `write_report` takes them.
    """
    grid = result.fixed.grid
    # Seconds and memory differ from run to run, and a report of the same run should not: they are in result.json.
    shown = {
        "metrics": _headline(summary["metrics"]),
        "landmarks": {pair.name: pair.words for pair in result.landmarks},
        "model": summary["model"],
        "settings": summary["configuration"],
        "quality": summary["quality"]["measures"],
        "result": {
            "modality": modality_words(result.intensities),
            "regularisation": summary["regularisation"],
            "affine": affine_words(result.alignment),
        },
        "versions": summary["versions"],
    }
    write_report(
        path,
        fixed=result.fixed.array,
        warped=warped.array,
        moving_before=result.before.apply(result.moving).array,
        grid=grid,
        summary=shown,
        command=command,
        verdict=(summary["quality"]["verdict"], (*summary["quality"]["reasons"], *result.warnings)),
        disp_mm=_last_of(result).total_mm(),
        det_j=_det_on(result.deformation, grid) if result.config.deforms else None,
        uncertainty_mm=result.uncertainty,
        title=f"{Path(result.moving.name).name} onto {Path(result.fixed.name).name}",
        **overlays,
    )


def _headline(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """What stands at the top of the page, the most telling first."""
    scores = ("dice", "dice_before", "tre_mm", "tre_before_mm", "sdlogj", "fold_percent")
    first = (*scores, "dice_unregistered", "tre_unregistered_mm")
    shown = {name: metrics[name] for name in first if name in metrics}
    guided = {name: value for name, value in metrics.items() if "guiding" in name or name in GUIDED}
    return (
        shown | guided | {name: round(value, 3) for name, value in metrics.items() if name.startswith("inverse_error")}
    )


def _last_of(result: RegistrationResult) -> Transform:
    """What the last kind of registration did: the result without what was there before it."""
    parts = result.transform.parts
    return Transform(parts[: len(parts) - len(result.before.parts)], fixed=result.fixed)


def _det_on(displacement: Displacement, grid: Grid) -> NDArray[np.float32]:
    """det J of the working grid read at the fixed grid's voxels: the working grid resolves all that the field has."""
    det = displacement.jacobian_determinant().numpy()
    return resample(det, displacement.grid, grid, (), interpolation="linear", outside=UNCHANGED_VOLUME)
