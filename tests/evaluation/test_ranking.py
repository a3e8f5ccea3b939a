"""The challenge's ranking."""

import math

import numpy as np
import pytest

from corereg.evaluation.ranking import ranking_scores


def rows(dice: np.ndarray, sdlogj: np.ndarray) -> list[dict[str, object]]:
    return [
        {"fixed": f"f{n}", "moving": "m", "dice": float(d), "sdlogj": float(s)}
        for n, (d, s) in enumerate(zip(dice, sdlogj, strict=True))
    ]


def test_ranking_by_hand() -> None:
    """A beats B and C by Dice, which tie; by SDlogJ, where less is better, C beats B and B beats A."""
    rng = np.random.default_rng(0)
    base, alternating = rng.normal(0.5, 0.1, 12), np.resize([1e-3, -1e-3], 12)
    methods = {
        "a": rows(base + 0.1, np.full(12, 0.3) + 0.01 * base),
        "b": rows(base, np.full(12, 0.2) + 0.01 * base),
        "c": rows(base + alternating, np.full(12, 0.1) + 0.01 * base),
    }
    expected = {"a": (1.0, 0.1), "b": (0.325, 0.55), "c": (0.325, 1.0)}
    assert ranking_scores(methods) == {
        name: pytest.approx(math.sqrt(first * second)) for name, (first, second) in expected.items()
    }


def test_a_measure_that_a_method_lacks_does_not_count() -> None:
    first, second = (rows(np.linspace(0.1, 0.9, 9) + shift, np.linspace(0.1, 0.2, 9)) for shift in (0.05, 0.0))
    lacking = [{**row, "dice": None} for row in second]
    assert ranking_scores({"first": first, "second": lacking}) == {"first": 0.55, "second": 0.55}
    assert ranking_scores({"first": first, "second": second}) == {
        "first": pytest.approx(math.sqrt(1.0 * 0.55)), "second": pytest.approx(math.sqrt(0.1 * 0.55))
    }  # fmt: skip
    assert ranking_scores({"alone": first}) == {}
