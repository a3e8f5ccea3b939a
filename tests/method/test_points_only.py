"""Registration without intensities: landmarks alone, masks alone, and what holds neither."""

from typing import Any

import numpy as np

from corereg import Transform, register
from corereg.evaluation.metrics import dice
from corereg.io.images.image import Image
from corereg.method.guidance.rigid import largest_deviation_mm
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


def test_rigid_structures_keep_their_shape_without_images() -> None:
    structure = Image((np.linalg.norm(voxels_mm(FIXED) - [5, 0, -4], axis=-1) < 14).astype(np.uint8), FIXED)
    points = np.random.default_rng(0).uniform(-45, 45, (60, 3))
    marks: Any = {"fixed_points": points, "moving_points": truth(points)}
    free, found = (
        register(scan(FIXED), scan(MOVING), **marks, **QUICK, rigid_labels=labels) for labels in (None, structure)
    )
    assert largest_deviation_mm(structure, free.transform) > 1.0
    assert found.metrics["rigid_deviation_mm"] < 0.2
    assert found.metrics["fold_percent"] == 0.0


def test_what_only_weighs_intensities_is_refused() -> None:
    points: Any = {"fixed_points": np.eye(3), "moving_points": np.eye(3), **QUICK}
    mask = np.ones(FIXED.shape, np.uint8)
    assert "fixed_mask" in refusal(register, scan(FIXED), scan(MOVING), fixed_mask=mask, **points)
    further: Any = {"fixed_channels": [scan(FIXED)], "moving_channels": [scan(MOVING)]}
    assert "moving_channels" in refusal(register, scan(FIXED), scan(MOVING), **further, **points)


def test_images_without_landmarks_are_refused() -> None:
    assert "without intensities" in refusal(register, scan(FIXED), scan(MOVING), **QUICK)
