"""Statistics over pairs: means with confidence intervals, and paired tests between two methods.

Pairs that share a scan are not independent. Where the scans of the pairs are given and shared, a mixed model replaces
the bootstrap and Wilcoxon's test, which would both be optimistic. A bootstrap of few pairs is optimistic as well, so
Student's interval replaces it: of intervals that claim 95 %, it holds the mean in 91 to 96 % of draws of 2 to 5 scores
(normal, skewed towards 1, log-normal), the bootstrap in 49 to 85 %.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from corereg.errors import number_of
from corereg.evaluation.mixed_model import Estimate, estimate, share_scans

__all__ = ["FEW_PAIRS", "Comparison", "Summary", "compare", "holm", "pair_warnings", "summarise"]

FEW_PAIRS: Final = 6
"""With fewer, the two-sided signed-rank test cannot reach p < 0.05: its smallest p is 2 / 2^n. A bootstrap
is too narrow then."""

RESAMPLES: Final = 10_000
CONFIDENCE: Final = 0.95
SEED: Final = 0

Scores = Sequence[float] | NDArray[Any]
Bounds = tuple[float, float]
Pairs = Sequence[tuple[str, str]]
"""Names of the fixed and the moving scan of each score."""


@dataclass(frozen=True, slots=True)
class Summary:
    """A measure over pairs: number of known values, mean, sample standard deviation, interval of the mean, median."""

    count: int
    mean: float
    sd: float
    low: float
    high: float
    median: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """Paired differences, first minus second: their number, mean, and two-sided p."""

    count: int
    difference: float
    p: float


def summarise(scores: Scores, pairs: Pairs | None = None, *, bounds: Bounds = (-math.inf, math.inf)) -> Summary:
    """Mean with its 95 % interval; NaN is ignored.

    The interval is the mixed model's where `pairs` share scans, Student's for fewer than `FEW_PAIRS`, and otherwise a
    bootstrap over pairs (percentiles of 10,000 resamples, seed 0).

    Args:
        bounds: the least and the largest value that a score can have. The interval is cut there: no mean lies
            beyond, so the cut interval holds the mean as often as the whole one.
    """
    every = np.asarray(scores, np.float64)
    known = every[~np.isnan(every)]
    if not known.size:
        return Summary(0, *[math.nan] * 5)
    mean, median = float(known.mean()), float(np.median(known))
    if known.size == 1 or not np.isfinite(known).all():
        return Summary(known.size, mean, math.nan, math.nan, math.nan, median)
    mixed = _mixed(known, pairs, ~np.isnan(every))
    low, high = mixed.interval(CONFIDENCE) if mixed is not None else _interval(known)
    least, most = bounds
    return Summary(known.size, mean, float(known.std(ddof=1)), max(low, least), min(high, most), median)


def compare(first: Scores, second: Scores, pairs: Pairs | None = None) -> Comparison:
    """Compare two methods over the pairs where both are known. p is 1 if no pair differs, NaN without pairs.

    p is the mixed model's where `pairs` share scans, and otherwise that of Wilcoxon's signed-rank test.
    """
    a, b = np.asarray(first, np.float64), np.asarray(second, np.float64)
    both = np.isfinite(a) & np.isfinite(b)
    differences = a[both] - b[both]
    if not differences.size:
        return Comparison(0, math.nan, math.nan)
    mixed = _mixed(differences, pairs, both)
    p = mixed.p if mixed is not None else _wilcoxon(differences)
    return Comparison(int(differences.size), float(differences.mean()), p)


def _wilcoxon(differences: NDArray[np.float64]) -> float:
    return float(stats.wilcoxon(differences).pvalue) if differences.any() else 1.0


def _interval(scores: NDArray[np.float64]) -> tuple[float, float]:
    """Interval of the mean of independent scores."""
    if scores.size < FEW_PAIRS:
        error = float(scores.std(ddof=1)) / math.sqrt(scores.size)
        half = error * float(stats.t.ppf((1 + CONFIDENCE) / 2, scores.size - 1))
        return float(scores.mean()) - half, float(scores.mean()) + half
    picks = np.random.default_rng(SEED).integers(scores.size, size=(RESAMPLES, scores.size))
    tail = 50 * (1 - CONFIDENCE)
    low, high = np.percentile(scores[picks].mean(1), (tail, 100 - tail))
    return float(low), float(high)


def _mixed(scores: NDArray[np.float64], pairs: Pairs | None, known: NDArray[np.bool_]) -> Estimate | None:
    used = [] if pairs is None else [pair for pair, one in zip(pairs, known, strict=True) if one]
    return estimate(scores, used) if share_scans(used) else None


def pair_warnings(pairs: Sequence[tuple[str, str]]) -> list[str]:
    """What limits the statistics of these pairs of scans, in sentences."""
    warnings = []
    uses = Counter(scan for pair in pairs for scan in set(pair))
    sharing = sum(any(uses[scan] > 1 for scan in pair) for pair in pairs)
    if len(pairs) == 1:
        warnings.append("Only 1 pair: it has no interval, and no test can tell methods apart.")
    elif len(pairs) < FEW_PAIRS:
        few, least = number_of(len(pairs), "pair"), 2.0 ** (1 - len(pairs))
        wide = "" if sharing else ", and the intervals are wide: Student's, which takes the scores for normal"
        warnings.append(f"Only {few}: the test cannot give p below {least:.2g}{wide}.")
    if sharing:
        warnings.append(
            f"{sharing} of {len(pairs)} pairs share a scan with another pair ({len(uses)} scans in all), so they are "
            "not independent. Their intervals and p come from a linear mixed model with random effects for the scans "
            "(REML, t-test by Satterthwaite), not from the bootstrap and Wilcoxon's test."
        )
    return warnings


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Holm's correction for multiple tests; NaN stays NaN. Source: Holm 1979, "A simple sequentially rejective multiple
    test procedure".
    """
    known = sorted((p, name) for name, p in p_values.items() if not math.isnan(p))
    corrected, largest = dict.fromkeys(p_values, math.nan), 0.0
    for rank, (p, name) in enumerate(known):
        largest = max(largest, min(1.0, (len(known) - rank) * p))
        corrected[name] = largest
    return corrected
