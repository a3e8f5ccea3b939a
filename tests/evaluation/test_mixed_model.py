"""The mixed model for pairs that share scans."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from corereg.evaluation.mixed_model import Estimate, estimate, share_scans
from corereg.evaluation.statistics import compare, summarise

Pairs = list[tuple[str, str]]


def crossed(fixed: int, moving: int) -> Pairs:
    """Every fixed scan with every moving scan."""
    return [(f"f{i}", f"m{j}") for i in range(fixed) for j in range(moving)]


def chosen(scores: np.ndarray, pairs: Pairs) -> Estimate:
    found = estimate(scores, pairs)
    assert found is not None
    return found


def with_effects(pairs: Pairs, rng: np.random.Generator, sd: float) -> np.ndarray:
    """Scores with a mean of zero: one effect for each scan, and noise of unit deviation."""
    effects = {scan: rng.normal(0, sd) for scan in sorted({scan for pair in pairs for scan in pair})}
    return np.array([effects[fixed] + effects[moving] + rng.normal() for fixed, moving in pairs])


def test_balanced_crossed_pairs_have_the_error_of_the_analysis_of_variance() -> None:
    """Mean squares in closed form: the error is sqrt((MS_fixed + MS_moving - MS_rest) / N)."""
    rng = np.random.default_rng(3)
    table = rng.normal(0, 1.5, (4, 1)) + rng.normal(0, 1, (1, 7)) + rng.normal(0, 0.5, (4, 7)) + 0.4
    by_fixed, by_moving = table.mean(1), table.mean(0)
    rest = table - by_fixed[:, None] - by_moving + table.mean()
    squares = 7 * by_fixed.var(ddof=1), 4 * by_moving.var(ddof=1), (rest**2).sum() / (3 * 6)
    variance = (squares[0] + squares[1] - squares[2]) / table.size
    freedom = (squares[0] + squares[1] - squares[2]) ** 2 / sum(
        square**2 / count for square, count in zip(squares, (3, 6, 18), strict=True)
    )
    found = chosen(table.ravel(), crossed(4, 7))
    assert found.mean == pytest.approx(table.mean())
    assert found.error == pytest.approx(math.sqrt(variance), rel=1e-4)
    assert found.freedom == pytest.approx(freedom, rel=1e-3)


def test_pairs_without_a_shared_scan_have_the_error_of_students_test() -> None:
    scores = np.random.default_rng(4).normal(0.1, 0.2, 9)
    found = chosen(scores, [(f"f{place}", f"m{place}") for place in range(9)])
    student = stats.ttest_1samp(scores, 0)
    assert found.p == pytest.approx(student.pvalue)
    assert found.interval(0.95) == pytest.approx(tuple(student.confidence_interval(0.95)))


def test_one_fixed_scan_for_all_pairs_leaves_students_test() -> None:
    scores = np.random.default_rng(5).normal(0.1, 0.2, 9)
    assert chosen(scores, crossed(1, 9)).p == pytest.approx(stats.ttest_1samp(scores, 0).pvalue)


def test_unbalanced_pairs_have_the_error_that_statsmodels_finds() -> None:
    """Fixed and moving scans with gaps: variances by MixedLM, and from them the error of the plain mean."""
    models = pytest.importorskip("statsmodels.regression.mixed_linear_model", reason="statsmodels is not installed")
    rng = np.random.default_rng(6)
    pairs = [pair for place, pair in enumerate(crossed(5, 8)) if place % 7 != 3]
    scores = with_effects(pairs, rng, 1.2)
    codes = [np.unique([pair[role] for pair in pairs], return_inverse=True)[1] for role in (0, 1)]
    indicators = [np.eye(code.max() + 1)[code] for code in codes]
    names = ([[f"{role}{column}" for column in range(each.shape[1])] for role, each in enumerate(indicators)],)
    effects = models.VCSpec(["fixed", "moving"], [[names[0][0]], [names[0][1]]], [[indicators[0]], [indicators[1]]])
    ones = np.ones(len(pairs))
    fitted = models.MixedLM(scores, ones[:, None], groups=ones, exog_vc=effects).fit(reml=True)
    total = fitted.scale * np.eye(len(pairs))
    for variance, each in zip(fitted.vcomp, indicators, strict=True):
        total += variance * each @ each.T
    assert chosen(scores, pairs).error == pytest.approx(math.sqrt(total.sum()) / len(pairs), rel=1e-3)


def test_equal_methods_are_rarely_called_different_however_much_scans_differ() -> None:
    """Ten scans, every pair once: in 400 draws, p was below 0.05 in 9 %, that of Wilcoxon's test in 47 %."""
    rng = np.random.default_rng(7)
    pairs = [(f"s{i}", f"s{j}") for i, j in itertools.combinations(range(10), 2)]
    drawn = [with_effects(pairs, rng, 1.0) for _ in range(40)]
    assert np.mean([chosen(scores, pairs).p < 0.05 for scores in drawn]) <= 0.2
    assert np.mean([stats.wilcoxon(scores).pvalue < 0.05 for scores in drawn]) >= 0.25


def test_scores_that_follow_from_the_scans_alone_have_a_finite_error() -> None:
    pairs = crossed(3, 4)
    found = chosen(np.array([float(place // 4) - 0.5 * (place % 4) for place in range(12)]), pairs)
    assert found.error > 0
    assert 1 <= found.freedom < 12


def test_equal_or_single_scores_have_no_estimate() -> None:
    assert estimate(np.full(6, 0.3), crossed(2, 3)) is None
    assert estimate(np.array([0.3]), crossed(1, 1)) is None


def test_shared_scans_widen_the_interval_and_raise_p_and_pairs_of_their_own_do_not() -> None:
    pairs = crossed(4, 6)
    rng = np.random.default_rng(8)
    first = with_effects(pairs, rng, 1.5) + 1.0
    second = np.zeros(len(first))
    assert share_scans(pairs)
    plain, mixed = summarise(first), summarise(first, pairs)
    assert (mixed.mean, mixed.sd, mixed.median) == (plain.mean, plain.sd, plain.median)
    assert mixed.high - mixed.low > 1.5 * (plain.high - plain.low)
    assert compare(first + 3, second, pairs).p > 10 * compare(first + 3, second).p
    own = [(f"f{place}", f"m{place}") for place in range(len(first))]
    assert not share_scans(own)
    assert summarise(first, own) == plain
    assert compare(first, second, own) == compare(first, second)


def test_unknown_scores_leave_their_pair_out() -> None:
    pairs = crossed(3, 5)
    scores = with_effects(pairs, np.random.default_rng(9), 1.0)
    kept = [place for place in range(15) if place not in (2, 7)]
    gaps = scores.copy()
    gaps[[2, 7]] = math.nan
    assert summarise(gaps, pairs) == summarise(scores[kept], [pairs[place] for place in kept])
