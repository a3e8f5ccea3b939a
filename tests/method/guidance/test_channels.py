"""Further images of both sides: what only they show counts, wherever their voxels lie."""

from functools import cache
from typing import Any

import numpy as np
import pytest

from corereg import Transform, register
from corereg.geometry.grid import Grid
from corereg.io.images.image import Image
from helpers.pairs import FIXED, MOVING
from helpers.refusals import refusal
from helpers.scenes import BODY_RADII_MM, centred_grid, in_body, scan, voxels_mm, wave

QUICK: Any = {"affine": "none", "spacing": 4.0, "refine_steps": 20, "regularisation": 1.0}


def outline(grid: Grid, into_patient: Any = lambda points_mm: points_mm) -> Image:
    """The patient without any organ."""
    depth = ((into_patient(voxels_mm(grid)) / BODY_RADII_MM) ** 2).sum(-1)
    return Image((-1000 + 1040 / (1 + np.exp(12 * depth - 12))).astype(np.float32), grid, name="the outline")


def error_mm(transform: Transform) -> float:
    points = voxels_mm(FIXED)
    points = points[in_body(points / 0.8)]
    return float(np.linalg.norm(wave(transform.apply_points(points)) - points, axis=1).mean())


@cache
def outlines() -> tuple[Image, Image]:
    return outline(FIXED), outline(MOVING, wave)


@pytest.mark.parametrize("similarity", ["features", "correlation"])
def test_what_only_a_further_channel_shows_counts(similarity: str) -> None:
    elsewhere = centred_grid((50, 44, 40), (2.8, 2.9, 3.2), "PIR", (1.0, 2.0, 0.0))
    channels: Any = {"fixed_channels": [scan(elsewhere)], "moving_channels": [scan(MOVING, wave)]}
    alone = register(*outlines(), similarity=similarity, **QUICK)
    both = register(*outlines(), **channels, similarity=similarity, **QUICK)
    assert error_mm(both.transform) < 0.85 * error_mm(alone.transform)
    assert both.metrics["fold_percent"] == 0.0
    assert both.fixed.name == "the outline"


def test_channels_that_cannot_be_used_are_refused() -> None:
    assert "1 further fixed and 0" in refusal(register, *outlines(), fixed_channels=[scan(FIXED)])
    away = scan(centred_grid((30, 28, 26), (3.0, 3.0, 3.0), centre_mm=(400.0, 0.0, 0.0)), lambda p: p - (400.0, 0, 0))
    assert "does not overlap" in refusal(register, *outlines(), fixed_channels=[away], moving_channels=[scan(MOVING)])
