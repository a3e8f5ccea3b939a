"""Registration without intensities: landmarks alone, masks alone, and what holds neither."""

from typing import Any

import numpy as np

from corereg import Transform, register
from corereg.evaluation.metrics import dice
from corereg.io.images.image import Image
from helpers.motions import motion
from helpers.pairs import FIXED, MOVING
from helpers.refusals import refusal
from helpers.scenes import Positions, affine_map, scan, voxels_mm, wave

QUICK: Any = {"points_only": True, "spacing": 4.0}


def truth(points_mm: Positions) -> Positions:
    return affine_map(motion(degrees=(4, -6, 3), scale=1.1, shift_mm=(9, -6, 5)))(wave(points_mm))


def test_landmarks_alone_give_a_dense_transform() -> None:
    points = np.random.default_rng(0).uniform(-45, 45, (90, 3))
    points[:, 2] *= 1.2
    known, held_out = points[:60], points[60:]
    found = register(scan(FIXED), scan(MOVING), fixed_points=known, moving_points=truth(known), **QUICK)
    errors = [
        np.linalg.norm(t.apply_points(held_out) - truth(held_out), axis=1).mean()
        for t in (found.before, found.transform)
    ]
    assert errors[1] < 0.12 * errors[0]
    assert found.metrics["tre_mm"] < 1.0
    assert found.metrics["fold_percent"] == 0.0
    assert found.config.affine == "none"
    assert found.model.name == "none"


def test_surfaces_of_two_masks_meet() -> None:
    fixed = np.linalg.norm(voxels_mm(FIXED) / [30.0, 26.0, 32.0], axis=-1) < 1
    moving = np.linalg.norm((voxels_mm(MOVING) - [5.0, -3.0, 4.0]) / [34.0, 24.0, 28.0], axis=-1) < 1
    masks = Image(fixed.astype(np.int16), FIXED), Image(moving.astype(np.int16), MOVING)
    found = register(*masks, **QUICK)
    before, after = (
        dice(fixed.astype(int), t.apply(masks[1], labels=True).array)[1]
        for t in (Transform((), fixed=FIXED), found.transform)
    )
    assert before < 0.88
    assert after > 0.93
    assert found.metrics["fold_percent"] == 0.0


def test_images_without_landmarks_are_refused() -> None:
    assert "without intensities" in refusal(register, scan(FIXED), scan(MOVING), **QUICK)
