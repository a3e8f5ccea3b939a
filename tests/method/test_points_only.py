"""Registration without intensities: landmarks alone, masks alone, and what holds neither."""

from typing import Any

import numpy as np
import pytest

from corereg import Transform, register
from corereg.evaluation.metrics import dice
from corereg.geometry.grid import Grid, Matrix, transform_points
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
        np.linalg.norm(there - truth(held_out), axis=1).mean()
        for there in (held_out, found.transform.apply_points(held_out))
    ]
    assert errors[1] < 0.12 * errors[0]
    assert found.metrics["tre_mm"] < 1.0
    assert found.metrics["fold_percent"] == 0.0
    assert found.alignment is not None
    assert found.alignment.start == "landmarks"
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


@pytest.mark.parametrize(
    "move",
    [motion(shift_mm=(100, -50, 30)), motion(degrees=(0, 0, 90)), motion(degrees=(9, 120, -40))],
    ids=["shift", "quarter turn", "any turn"],
)
@pytest.mark.parametrize("count", [4, 40])
def test_landmarks_of_a_rigid_motion_give_that_motion(move: Matrix, count: int) -> None:
    points = np.random.default_rng(1).uniform(-40, 40, (count, 3))
    moved = Image(scan(MOVING).array, Grid(MOVING.shape, move @ MOVING.affine))
    found = register(scan(FIXED), moved, fixed_points=points, moving_points=transform_points(move, points), **QUICK)
    corners = FIXED.corners_mm()
    missed = np.linalg.norm(found.transform.apply_points(corners) - transform_points(move, corners), axis=1)
    assert missed.max() < 1e-3
    assert found.metrics["fold_percent"] == 0.0


def test_one_wrong_landmark_does_not_turn_the_map() -> None:
    points = np.random.default_rng(2).uniform(-40, 40, (12, 3))
    move = motion(degrees=(5, 20, -10), shift_mm=(30, 5, -60))
    there = transform_points(move, points)
    there[3] += [60, -30, 10]
    moved = Image(scan(MOVING).array, Grid(MOVING.shape, move @ MOVING.affine))
    found = register(scan(FIXED), moved, fixed_points=points, moving_points=there, affine="rigid-only", **QUICK)
    missed = np.linalg.norm(found.transform.apply_points(points) - transform_points(move, points), axis=1)
    assert missed.max() < 1.5
    assert len(found.transform.parts) == 1


def test_affine_map_alone_is_that_of_the_landmarks() -> None:
    points = np.random.default_rng(3).uniform(-40, 40, (9, 3))
    move = motion(degrees=(5, -8, 3), scale=[1.1, 0.9, 1.05], shift_mm=(9, -6, 5))
    marks: Any = {"fixed_points": points, "moving_points": transform_points(move, points)}
    found = register(scan(FIXED), scan(MOVING), affine="affine-only", **marks, **QUICK)
    np.testing.assert_allclose(found.transform.apply_points(points), marks["moving_points"], atol=1e-6)
    assert len(found.transform.parts) == 1
    flat: Any = {side: each * [1, 1, 0] for side, each in marks.items()}
    assert "in a plane" in refusal(register, scan(FIXED), scan(MOVING), affine="affine-only", **flat, **QUICK)


def test_masks_that_lie_apart_are_brought_together() -> None:
    ball = np.linalg.norm(voxels_mm(FIXED), axis=-1) < 28
    far = Grid(FIXED.shape, motion(shift_mm=(300, 20, -90)) @ FIXED.affine)
    masks = Image(ball.astype(np.uint8), FIXED), Image(ball.astype(np.uint8), far)
    found = register(*masks, **QUICK)
    assert dice(ball.astype(int), found.transform.apply(masks[1], labels=True).array)[1] > 0.97
    assert "expected masks that meet" in refusal(register, *masks, affine="none", **QUICK)
    assert "no landmarks" in refusal(register, *masks, affine="rigid-only", **QUICK)


def test_landmarks_that_contradict_each_other_do_not_pass() -> None:
    points = np.random.default_rng(4).uniform(-20, 20, (20, 3))
    noise = np.random.default_rng(5).normal(0, 15, (20, 3))
    found = register(scan(FIXED), scan(MOVING), fixed_points=points, moving_points=points + noise, **QUICK)
    assert found.metrics["fold_percent"] > 1
    assert found.quality.verdict != "pass"
    assert "folds in" in found.quality.reasons[-1]


def test_what_only_weighs_intensities_is_refused() -> None:
    points: Any = {"fixed_points": np.eye(3), "moving_points": np.eye(3), **QUICK}
    mask = np.ones(FIXED.shape, np.uint8)
    assert "fixed_mask" in refusal(register, scan(FIXED), scan(MOVING), fixed_mask=mask, **points)
    further: Any = {"fixed_channels": [scan(FIXED)], "moving_channels": [scan(MOVING)]}
    assert "moving_channels" in refusal(register, scan(FIXED), scan(MOVING), **further, **points)


def test_images_without_landmarks_are_refused() -> None:
    assert "without intensities" in refusal(register, scan(FIXED), scan(MOVING), **QUICK)
