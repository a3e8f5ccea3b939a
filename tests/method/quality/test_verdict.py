"""Verdicts: what speaks against a registration has a reason in words; what does not is a pass."""

import math
from typing import Any

import numpy as np
import pytest

from corereg import register
from corereg.data.phantom import make_breathing_pair
from corereg.geometry.grid import Grid
from corereg.io.images.image import Image
from corereg.method.quality.quality import Quality
from corereg.method.quality.verdict import doubt, quality_of, with_overlap
from helpers.qualities import RIGHT


@pytest.mark.parametrize(
    ("changes", "verdict", "words"),
    [
        ({}, "pass", ""),
        ({"similarity_above_chance": 0.1, "similarity_before": 0.04}, "fail", "hardly better than unrelated scans"),
        ({"orientation_turned_about_head_feet": 1.3}, "fail", "turned about head-feet by 180 degrees"),
        ({"orientation_mirrored_front_back": 1.3}, "fail", "mirrored front-back"),
        ({"orientation_mirrored_left_right": 1.3}, "fail", "mirrored left-right"),
        ({"orientation_turned_about_left_right": 0.98}, "warn", "turned about left-right"),
        ({"displacement_share": 0.25}, "fail", "by 12 mm on average, 25% of the scan's width"),
        ({"affine_rotation_degrees": 40.0}, "warn", "turns the moving image by 40 degrees"),
        ({"affine_rotation_degrees": 97.0}, "fail", "turns the moving image by 97 degrees"),
        ({"affine_rotation_degrees": 174.0}, "pass", ""),
        ({"affine_stretch_excess": 1.05}, "warn", "stretches the moving image more than patients differ"),
        ({"covered": 0.55}, "warn", "covers 55% of the fixed body"),
        ({"covered": 0.15}, "fail", "the size to cover 100%"),
        ({"covered": 0.05, "coverable": 0.06}, "pass", ""),
        ({"covered": 0.55, "displacement_share": 0.13}, "warn", "13%"),
        (
            {"covered": 0.55, "displacement_share": 0.13, "similarity_before": 0.0, "similarity_above_chance": 0.5},
            "fail",
            "13%",
        ),
        ({"similarity_before": math.nan, "similarity_above_chance": math.nan}, "warn", "how alike the images are"),
        (dict.fromkeys(RIGHT, math.nan), "pass", ""),
    ],
)
def test_each_value_beyond_its_threshold_has_its_words(changes: dict[str, float], verdict: str, words: str) -> None:
    found = quality_of({**RIGHT, **changes})
    assert found.verdict == verdict
    assert bool(found.reasons) == (verdict != "pass")
    assert words in " ".join(found.reasons)


def test_doubt_is_the_verdict_as_one_number() -> None:
    for similarity in (0.6, 0.1, 0.0, math.nan):
        measures = {**RIGHT, "similarity_before": 0.1, "similarity_above_chance": similarity}
        value = doubt(measures)
        assert quality_of(measures).verdict == ("fail" if value > 1 else "warn" if value > 0 else "pass")


def test_the_gravest_reason_comes_first_and_decides() -> None:
    found = quality_of({**RIGHT, "covered": 0.55, "similarity_before": 0.0, "similarity_above_chance": 0.05})
    assert found.verdict == "fail"
    assert ["unrelated" in reason for reason in found.reasons] == [True, False]


@pytest.mark.parametrize(
    ("metrics", "verdict"),
    [({"dice": 0.4, "dice_before": 0.6}, "fail"), ({"dice": 0.595, "dice_before": 0.6}, "warn"), ({}, "warn")],
)
def test_labels_that_overlap_less_than_before_make_a_failure(metrics: dict[str, Any], verdict: str) -> None:
    found = with_overlap(Quality("warn", ("much lies outside",), {}), metrics)
    assert found.verdict == verdict
    assert found.reasons[-1] == "much lies outside"


def test_a_scan_of_another_part_fails_and_one_of_a_few_slices_does_not() -> None:
    pair = make_breathing_pair(4, "abdomen", 5.0)
    fixed, (i, j, k) = Image(pair.fixed, pair.grid, name="breath"), pair.grid.shape
    here, away = np.eye(4), np.eye(4)
    here[2, 3], away[2, 3] = k // 2 - 4, round(0.9 * k)
    slab = np.ascontiguousarray(fixed.array[:, :, k // 2 - 4 : k // 2 + 4])
    few = Image(slab, Grid((i, j, 8), pair.grid.affine @ here))
    other = Image(pair.moving, Grid((i, j, k), pair.grid.affine @ away), name="another part")
    found = register(fixed, few, affine="none", refine_steps=2).quality
    assert found.measures["covered"] == pytest.approx(found.measures["coverable"], abs=0.05)
    assert "covers" not in " ".join(found.reasons)
    with pytest.warns(UserWarning, match="the moving scan covers .% of the fixed body, and has the size"):
        register(fixed, other, affine="none", refine_steps=2)


def test_registered_breathing_pair_passes_in_silence_and_noise_or_a_turned_scan_fails() -> None:
    pair = make_breathing_pair(4, "abdomen", 5.0)
    fixed = Image(pair.fixed, pair.grid, name="breath")
    right = register(fixed, Image(pair.moving, pair.grid), affine="none", refine_steps=5)
    assert (right.quality.verdict, right.quality.reasons, right.warnings) == ("pass", (), ())
    assert right.summary()["quality"]["measures"] == right.quality.measures
    noise = np.random.default_rng(3).normal(0, 300, pair.fixed.shape).astype(np.float32)
    with pytest.warns(UserWarning, match="of static onto breath looks wrong: .*unrelated scans"):
        wrong = register(fixed, Image(noise, pair.grid, name="static"), affine="none", modality="ct", refine_steps=5)
    assert wrong.quality.verdict == "fail"
    turned = np.ascontiguousarray(pair.moving[::-1, ::-1])
    with pytest.warns(UserWarning, match="looks wrong: turned about head-feet by 180 degrees"):
        register(fixed, Image(turned, pair.grid), affine="none", refine_steps=5)
