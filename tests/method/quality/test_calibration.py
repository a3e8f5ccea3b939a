"""Thresholds from right pairs: few of such pairs fail by them, and wrong ones still do."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from corereg import InputError, register
from corereg.method.quality.calibration import calibrated, fewest_pairs
from corereg.method.quality.thresholds import SHIPPED, Threshold, read_thresholds, write_thresholds
from corereg.method.quality.verdict import quality_of
from helpers.pairs import pair
from helpers.qualities import RIGHT

SPREAD = {"similarity_before": 0.1, "similarity_above_chance": 0.1, "displacement_share": 0.05, "covered": 0.1}


def right_pairs(rng: np.random.Generator, count: int, **changes: float) -> list[dict[str, float]]:
    """Pairs of a cohort: its measures lie elsewhere than usual, and some vary with long tails."""
    usual = {**RIGHT, **changes}
    return [
        usual | {name: usual[name] + width * rng.standard_t(4) for name, width in SPREAD.items()} for _ in range(count)
    ]


@pytest.mark.parametrize(("count", "rate"), [(19, 0.05), (40, 0.2)])
def test_right_pairs_that_did_not_calibrate_fail_at_most_at_the_stated_rate(count: int, rate: float) -> None:
    rng = np.random.default_rng(count)
    shares = []
    for _ in range(100):
        found = calibrated(right_pairs(rng, count, covered=0.5, displacement_share=0.2), rate)
        assert found.failed <= rate * count
        fresh = right_pairs(rng, 20, covered=0.5, displacement_share=0.2)
        shares.append(np.mean([quality_of(each, {**SHIPPED, **found.thresholds}).verdict == "fail" for each in fresh]))
    assert np.mean(shares) == pytest.approx(rate, rel=0.25)


def test_wrong_pairs_still_fail_where_right_ones_are_unusual() -> None:
    rows = right_pairs(np.random.default_rng(1), 60, covered=0.12)
    assert {quality_of(each).verdict for each in rows} >= {"fail"}
    found = calibrated(rows, 0.05)
    thresholds = {**SHIPPED, **found.thresholds}
    assert found.failed <= 3
    turned = {**RIGHT, "covered": 0.12, "orientation_turned_about_head_feet": 1.3}
    assert quality_of({**RIGHT, "covered": 0.12}, thresholds).verdict == "pass"
    assert quality_of(turned, thresholds).verdict == "fail"


def test_rules_without_values_keep_the_thresholds_on_board() -> None:
    rows = [each | {"orientation_mirrored_left_right": math.nan} for each in right_pairs(np.random.default_rng(2), 30)]
    assert "left_right" not in calibrated(rows, 0.05).thresholds


def test_too_few_pairs_are_refused_with_the_rate_that_they_allow() -> None:
    rows = right_pairs(np.random.default_rng(3), 18)
    assert fewest_pairs(0.05) == 19
    with pytest.raises(InputError, match=r"got 18 right pairs, expected at least 19 .*raise --false-alarms to 0\.053"):
        calibrated(rows, 0.05)


def test_a_file_of_thresholds_changes_the_verdict_of_a_registration(tmp_path: Path) -> None:
    path = tmp_path / "thresholds.json"
    write_thresholds(path, {"displacement": Threshold(0.0001, 0.0002)}, {"pairs": 40})
    assert read_thresholds(str(path)) == {**SHIPPED, "displacement": (0.0001, 0.0002)}
    with pytest.warns(UserWarning, match="looks wrong: the deformation moves the body"):
        found = register(*pair(), affine="none", refine_steps=0, thresholds=path)
    assert found.quality.verdict == "fail"
    assert json.loads(path.read_text("utf-8"))["pairs"] == 40


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "No such file"),
        ("{", "expected a JSON file"),
        ([], "with `thresholds` for some of orientation"),
        ({"thresholds": {}}, "with `thresholds`"),
        ({"thresholds": {"shape": {"warn": 0, "fail": 1}}}, "with `thresholds`"),
        ({"thresholds": {"coverage": {"warn": 1, "fail": 1}}}, "coverage has .*a larger `fail`"),
        ({"thresholds": {"coverage": {"warn": True, "fail": 2}}}, "coverage has"),
        ({"thresholds": {"coverage": [0, 1]}}, "coverage has"),
    ],
)
def test_a_file_that_holds_no_thresholds_is_refused_before_anything_is_read(
    tmp_path: Path, content: Any, words: str
) -> None:
    path = tmp_path / "thresholds.json"
    if content is not None:
        path.write_text(content if isinstance(content, str) else json.dumps(content), "utf-8")
    with pytest.raises(InputError, match=words):
        register("missing.nii.gz", "missing.nii.gz", thresholds=path)
