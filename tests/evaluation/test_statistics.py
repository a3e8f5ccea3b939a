"""Statistics of scores."""

import math

import numpy as np
import pytest
from scipy import stats

from corereg.evaluation.measures import MEASURES, summaries
from corereg.evaluation.statistics import compare, holm, pair_warnings, summarise


class TestStatistics:
    def test_interval_holds_the_mean_and_is_the_same_every_time(self):
        scores = np.random.default_rng(1).normal(0.6, 0.1, 15)
        found = summarise([*scores, math.nan])
        assert (found.count, found.mean, found.sd) == (
            15,
            pytest.approx(scores.mean()),
            pytest.approx(scores.std(ddof=1)),
        )
        assert found == summarise(scores)
        normal = stats.t.interval(0.95, 14, scores.mean(), stats.sem(scores))
        assert (found.low, found.high) == pytest.approx(normal, abs=0.012)

    def test_few_or_no_scores(self):
        assert summarise([]).count == 0
        one = summarise([0.5])
        assert (one.mean, one.median) == (0.5, 0.5)
        assert math.isnan(one.sd)
        assert math.isnan(one.low)
        assert summarise([1.0, math.inf]).mean == math.inf

    def test_interval_of_few_scores_is_students(self):
        scores = [0.71, 0.74, 0.8, 0.78, 0.75]
        for count in range(2, 6):
            some = scores[:count]
            expected = stats.t.interval(0.95, count - 1, np.mean(some), stats.sem(some))
            found = summarise(some)
            assert (found.low, found.high) == pytest.approx(expected)

    @pytest.mark.parametrize("name", MEASURES)
    @pytest.mark.parametrize("shared", [True, False])
    @pytest.mark.parametrize("count", range(2, 9))
    def test_intervals_hold_only_what_a_measure_can_be(self, name, shared, count):
        most = MEASURES[name].most
        at_most = 1000 if math.isinf(most) else most
        for extreme in (0, at_most):
            scores = [0.98 * extreme + 0.02 * at_most * (place % 2) for place in range(count)]
            pairs = [("one" if shared else f"f{place}", f"m{place}") for place in range(count)]
            rows = [{"fixed": f, "moving": m, name: score} for (f, m), score in zip(pairs, scores, strict=True)]
            found = summaries(rows)[name]
            assert 0 <= found.low <= found.mean <= found.high <= most

    def test_comparison_is_wilcoxons_over_shared_pairs(self):
        rng = np.random.default_rng(2)
        first, second = rng.normal(0.6, 0.1, 12), rng.normal(0.55, 0.1, 12)
        found = compare([*first, 0.5, math.nan], [*second, math.nan, 0.5])
        assert (found.count, found.difference) == (12, pytest.approx((first - second).mean()))
        assert found.p == pytest.approx(stats.wilcoxon(first, second).pvalue)
        assert compare(first, first).p == 1

    def test_holms_correction_by_hand(self):
        found = holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": math.nan})
        assert [found[name] for name in "abc"] == pytest.approx([0.03, 0.06, 0.06])
        assert math.isnan(found["d"])

    def test_few_pairs_and_shared_scans_are_named(self):
        few = pair_warnings([("a", "b"), ("c", "d"), ("e", "f")])
        assert few == [
            "Only 3 pairs: the test cannot give p below 0.25, and the intervals are wide: Student's, which takes the "
            "scores for normal."
        ]
        assert stats.wilcoxon([1, 2, 3]).pvalue == 0.25
        assert pair_warnings([("a", "b")]) == ["Only 1 pair: it has no interval, and no test can tell methods apart."]
        assert "Student" not in " ".join(pair_warnings([("a", "b"), ("b", "a")]))
        (shared,) = pair_warnings([("a", "b"), ("c", "a"), *((f"f{n}", f"m{n}") for n in range(6))])
        assert shared.startswith("2 of 8 pairs share a scan with another pair (15 scans in all)")
        assert pair_warnings([(f"f{n}", f"m{n}") for n in range(6)]) == []
