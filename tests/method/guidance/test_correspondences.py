"""Unmatched points: which belong together is found through a smooth motion, whatever their order, and never folds."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from corereg import register
from corereg.method.guidance.correspondences import corresponding_points
from helpers.motions import motion
from helpers.pairs import FIXED, MOVING
from helpers.refusals import refusal
from helpers.scenes import Positions, affine_map, scan, wave


def truth(points_mm: Positions) -> Positions:
    return affine_map(motion(degrees=(4, -6, 3), scale=1.1, shift_mm=(9, -6, 5)))(wave(points_mm))


def clouds(count: int, lost: float, seed: int = 0) -> tuple[Any, Any, set[tuple[int, int]]]:
    """Points and where they move, in another order and a share of either side lost; and the true pairs."""
    rng = np.random.default_rng(seed)
    points = rng.uniform(-40, 40, (count, 3))
    left, right = (rng.permutation(count)[: round((1 - lost) * count)] for _ in range(2))
    moved = truth(points) + rng.normal(0, 0.3, points.shape)
    pairs = {(n, right.tolist().index(at)) for n, at in enumerate(left.tolist()) if at in right}
    return points[left], moved[right], pairs


@pytest.mark.parametrize(("count", "lost"), [(12, 0.0), (60, 0.2), (200, 0.2)])
def test_true_pairs_are_found_in_any_order(count: int, lost: float) -> None:
    first, second, true = clouds(count, lost)
    found = {(int(n), int(m)) for n, m in corresponding_points(first, second, bound_mm=2.0)}
    assert len(found & true) >= 0.95 * len(true)
    assert len(found & true) >= 0.9 * len(found)


def test_clouds_alone_give_a_dense_transform() -> None:
    first, second, true = clouds(90, 0.2)
    points: Any = {"fixed_points": first, "moving_points": second, "unmatched_points": True}
    found = register(scan(FIXED), scan(MOVING), **points, points_only=True, spacing=4.0)
    held_out = np.random.default_rng(1).uniform(-30, 30, (30, 3))
    errors = [
        np.linalg.norm(t.apply_points(held_out) - truth(held_out), axis=1).mean()
        for t in (found.before, found.transform)
    ]
    assert errors[1] < 0.15 * errors[0]
    assert found.metrics["fold_percent"] == 0.0
    assert len(found.landmarks) >= 0.9 * len(true)
    first_right = {str(n + 1) for n, _ in true}
    assert len(first_right & {pair.name for pair in found.landmarks}) >= 0.9 * len(true), "named by their fixed point"


def test_clouds_of_noise_do_not_fold() -> None:
    rng = np.random.default_rng(5)
    points: Any = {"fixed_points": rng.uniform(-40, 40, (80, 3)), "moving_points": rng.uniform(-40, 40, (70, 3))}
    found = register(scan(FIXED), scan(MOVING), **points, unmatched_points=True, points_only=True, spacing=4.0)
    assert found.metrics["fold_percent"] == 0.0


def test_clouds_that_cannot_match_are_refused() -> None:
    first, second, _ = clouds(20, 0.1)
    settings: Any = {"unmatched_points": True}
    pair = scan(FIXED), scan(MOVING)
    assert "3 unmatched points" in refusal(register, *pair, fixed_points=first[:3], moving_points=second, **settings)
    assert "all outside" in refusal(register, *pair, fixed_points=first, moving_points=second + 900, **settings)
    assert "without points" in refusal(register, *pair, **settings)
    assert "--unmatched-points" in refusal(register, *pair, fixed_points=first[:5], moving_points=second)


def test_lungs_are_paired_in_any_order(data_dir: Path) -> None:
    """1.5 mm a voxel is assumed; a fifth of each side is lost."""
    points = 1.5 * np.loadtxt(data_dir / "lung_keypoints" / "correspondences" / "l2r_010.csv", delimiter=",")[::2]
    rng = np.random.default_rng(0)
    left, right = (rng.permutation(len(points))[: round(0.8 * len(points))] for _ in range(2))
    pairs = corresponding_points(points[left, :3], points[right, 3:], bound_mm=2.0)
    same = left[pairs[:, 0]] == right[pairs[:, 1]]
    assert same.mean() > 0.95
    assert same.sum() > 0.95 * len(np.intersect1d(left, right))
