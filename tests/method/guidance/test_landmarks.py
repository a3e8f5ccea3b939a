"""Landmarks: they correct what the images mislead, a wrong pair is named, and without guiding they only measure."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from corereg import Transform, register
from corereg.io.points.points import Points, write_points
from corereg.method.config import GuidanceConfig
from corereg.method.guidance.landmarks import Landmarks, read_landmarks
from corereg.method.guidance.point_guide import point_guide
from corereg.method.guidance.scattered import fit_offsets, wrong_offsets
from helpers.pairs import FIXED, MOVING, pair
from helpers.refusals import refusal
from helpers.scenes import centred_grid, scan, voxels_mm, wave

QUICK: Any = {"spacing": 4.0, "affine": "none", "refine_steps": 20}

SHIFT_MM = np.array([9.0, -7.0, 6.0])


def places(count: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).uniform(-35, 35, (count, 3))


def smooth(points_mm: Any) -> Any:
    return wave(points_mm) - points_mm + 0.1 * points_mm


def test_offset_left_out_is_what_a_fit_without_it_misses() -> None:
    points = places(15)
    offsets = smooth(points)
    found = fit_offsets(points, offsets, bound_mm=1.0)
    for n in (0, 6, 14):
        others = np.arange(15) != n
        # A fit of its own, with the covariance of the whole one.
        alone = fit_offsets(points[others], offsets[others], bound_mm=1.0)
        assert_allclose(found.left_out_mm[n], offsets[n] - alone(points[n : n + 1])[0], atol=0.15)


def test_fit_is_close_between_its_points_and_follows_an_affine_trend() -> None:
    points, between = places(80), places(30, seed=1)
    assert_allclose(fit_offsets(points, smooth(points), bound_mm=0.5)(between), smooth(between), atol=2.0)
    far = 1.5 * between
    found = fit_offsets(points, 0.2 * points + 30, bound_mm=0.5, trend=True)(far)
    assert_allclose(found, 0.2 * far + 30, atol=3.0)


@pytest.mark.parametrize("count", [20, 300])
def test_wrong_offsets_are_found_among_noisy_ones(count: int) -> None:
    rng = np.random.default_rng(3)
    points = places(count)
    offsets = smooth(points) / 2 + rng.normal(0, 1 / np.sqrt(3), points.shape)
    offsets[[4, 11]] += np.array([[25.0, 0, 5], [-10, 24, 0]])
    assert np.flatnonzero(wrong_offsets(points, offsets, bound_mm=2.0)).tolist() == [4, 11]


@pytest.mark.parametrize("settings", [{}, {"parametrisation": "diffeomorphic", "fine": False}])
def test_landmarks_guide_what_the_images_do_not_show(settings: dict[str, Any]) -> None:
    """The images agree as they are, the landmarks around a place do not; two pairs are wrong."""
    fixed = places(20)
    near = np.exp(-((np.linalg.norm(fixed - [-20, 5, 0], axis=1) / 30) ** 2))
    moving = fixed + SHIFT_MM * near[:, None]
    moving[[2, 9]] += [[0, 30, 12], [28, 0, -14]]
    points: Any = {"fixed_points": fixed, "moving_points": moving}
    with pytest.warns(UserWarning, match="landmarks 3, 10 contradict"):
        found = register(scan(FIXED), scan(MOVING), **points, **QUICK, **settings)
    assert [pair.name for pair in found.landmarks if pair.wrong] == ["3", "10"]
    assert found.metrics["tre_mm"] < 2.0 < found.metrics["tre_before_mm"]
    assert 0 < found.metrics["tre_left_out_mm"] < 2.0
    assert found.metrics["fold_percent"] == 0.0
    there = found.transform.apply_points(fixed)
    assert_allclose([pair.after_mm for pair in found.landmarks], np.linalg.norm(there - moving, axis=1))
    back = found.inverse_transform.apply_points(there)
    assert np.linalg.norm(back - fixed, axis=1).mean() < 0.5


@pytest.mark.parametrize(("start_off", "refined_off", "expected"), [(0.4, 4.0, 1.2), (4.0, 0.4, 0.6)])
def test_refinement_counts_where_the_landmarks_agree_with_it(
    start_off: float, refined_off: float, expected: float
) -> None:
    """Fields that are wrong by known millimetres, in ripples that a correction at the landmarks does not undo."""
    grid = centred_grid((48, 44, 52), (3.0, 3.0, 3.0), "RAS")
    points = voxels_mm(grid)
    ripples = np.stack([np.sin(points[..., a] / 6) for a in (1, 2, 0)])

    def off(size_mm: float) -> torch.Tensor:
        return torch.as_tensor(size_mm / 3 * ripples[None], dtype=torch.float32)

    vox = np.random.default_rng(2).uniform(3, 15, (12, 3))
    landmarks = Landmarks(grid.to_world(vox), grid.to_world(vox), [str(n) for n in range(12)])
    guide = point_guide(landmarks, Transform((), fixed=grid), grid, None, GuidanceConfig())
    assert guide is not None
    settled = guide.judged(off(start_off)[..., ::2, ::2, ::2] / 2, 2).settled(off(start_off), off(refined_off))
    error = settled[0, :, 5:13, 5:13, 5:13].norm(dim=0).mean() * 3
    corrected = guide.corrected(off(max(start_off, refined_off)), 1)[0, :, 5:13, 5:13, 5:13]
    error_corrected = 3 * corrected.norm(dim=0).mean()
    assert error < expected < error_corrected / 2
    far = (settled - off(refined_off))[0, :, -3:, -3:, -3:].norm(dim=0).mean() * 3
    assert far < 1.0, "far from the landmarks the images count"


def test_landmarks_that_only_measure_change_nothing() -> None:
    fixed = places(6)
    points: Any = {"fixed_points": fixed, "moving_points": fixed + 20, "guide_points": False}
    measured = register(*pair(), **points, **QUICK)
    assert torch.equal(measured.refined.disp_vox, register(*pair(), **QUICK).refined.disp_vox)
    assert measured.metrics["tre_mm"] > 20
    assert "tre_left_out_mm" not in measured.metrics
    assert len(measured.summary()["landmarks"]) == 6


def test_points_in_another_order_match_by_name(tmp_path: Path) -> None:
    coords = places(4)
    write_points(tmp_path / "fixed.fcsv", Points(coords, ["a", "b", "c", "d"]))
    write_points(tmp_path / "moving.mrk.json", Points(coords[::-1] + 1, ["d", "c", "b", "a"]))
    found = read_landmarks(tmp_path / "fixed.fcsv", tmp_path / "moving.mrk.json", pair())
    assert found is not None
    assert_allclose(found.moving_mm, found.fixed_mm + 1, atol=1e-3)
    assert found.names == ["a", "b", "c", "d"]


def test_landmarks_that_cannot_match_are_refused() -> None:
    points = places(5)
    assert "5 fixed and 4 moving" in refusal(register, *pair(), fixed_points=points, moving_points=points[:4])
    assert "outside both" in refusal(register, *pair(), fixed_points=points + 500, moving_points=points + 500)
    assert "moving points alone" in refusal(register, *pair(), moving_points=points)
    assert "(N, 3)" in refusal(register, *pair(), fixed_points=points[0], moving_points=points[0])


def test_names_decide_even_in_another_case_and_never_partly() -> None:
    points = places(4)
    order = [2, 0, 3, 1]
    moved = Points(points[order] + 3.0, [" ABCD"[n + 1].lower() + " " for n in order])
    found = read_landmarks(Points(points, list("ABCD")), moved, pair())
    assert found is not None
    assert_allclose(found.moving_mm, points + 3.0)
    told_apart = read_landmarks(Points(points, list("AaBb")), Points(points[::-1] + 3.0, list("bBaA")), pair())
    assert told_apart is not None
    assert_allclose(told_apart.moving_mm, points + 3.0)
    for names in ("BADE", "BACC"):
        assert "the point" in refusal(read_landmarks, Points(points, list("ABCD")), Points(points, list(names)), pair())
    kept = read_landmarks(Points(points, list("ABCD")), Points(points, list("ABXY")), pair())
    assert kept is not None
    np.testing.assert_array_equal(kept.moving_mm, points)


@pytest.mark.parametrize("side", ["fixed_points", "moving_points"])
def test_landmarks_of_one_side_that_all_lie_elsewhere_are_refused(side: str) -> None:
    marks: Any = {"fixed_points": places(5), "moving_points": places(5)}
    marks[side] = marks[side] + 500
    message = refusal(register, *pair(), **marks)
    assert "all outside" in message
    assert side.partition("_")[0] in message


@pytest.mark.parametrize("sides", [(0, 1), (1, 0)])
def test_one_point_with_two_partners_far_apart_is_warned_of(sides: tuple[int, int]) -> None:
    points = np.array([[0.0, 0, 0], [10, 5, 0], [0, 0, 0.01]])
    near, far = points.copy(), points.copy()
    near[2], far[2] = (3, 4, 0), (9, 12, 0)
    images = [scan(FIXED), scan(MOVING)]
    assert read_landmarks(*[(points, near)[side] for side in sides], images) is not None
    with pytest.warns(UserWarning, match=r"the points 1 and 3 lie at one place .* 15\.0 mm apart"):
        read_landmarks(*[(points, far)[side] for side in sides], images)
