"""Thresholds of the verdict from pairs that are right: which values such pairs reach by chance, and how often.

Each rule's values are taken relative to their median and spread over the pairs. The largest of them over the rules
says how unusual a pair is, and its quantile becomes the threshold of all rules: among n + 1 exchangeable pairs, at most
the requested share lies above it (split conformal prediction). Upstream: measures of right pairs. Downstream:
`thresholds`.

Legend: P pairs, R rules.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta

from corereg.errors import InputError
from corereg.method.quality.quality import FAIL, WARN
from corereg.method.quality.thresholds import SHIPPED, Threshold, Thresholds
from corereg.method.quality.verdict import SEVERAL, quality_of, values_of

__all__ = ["Calibration", "calibrated", "check_count", "fewest_pairs"]

WARN_SHARE = 3.0
"""Right pairs that may be warned of for each that may fail: a warning only costs a look."""
LARGEST_WARN_SHARE = 0.5

LEAST_GAP = 0.25
"""Distance between the values that warn and fail, in spreads."""

ROUNDING = 1e-6
"""Added to thresholds, in spreads, so that a pair that lies on one is not beyond it."""

NORMAL_MAD = 1.4826
"""Standard deviation of a normal distribution for each unit of its median absolute deviation."""

CONFIDENCE = 0.95

Values = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Calibration:
    """Thresholds, and what to expect of them."""

    thresholds: Thresholds
    pairs: int
    false_alarms: float
    """The share of right pairs that may fail, as requested."""
    false_alarms_at_most: float
    """Upper 95 % confidence bound of the share that fails, given the number of pairs."""
    failed: int
    """How many of the pairs fail by these thresholds."""
    warned: int


def fewest_pairs(false_alarms: float) -> int:
    """How many right pairs a rate of false alarms needs: with fewer, even the largest value is exceeded more often."""
    return math.ceil(1 / false_alarms - 1e-9) - 1


def check_count(count: int, false_alarms: float) -> None:
    """Refuse a number of pairs that cannot show this rate of false alarms.

    Raises:
        InputError: there are too few pairs.
    """
    needed = fewest_pairs(false_alarms)
    if count < needed:
        raise InputError(
            f"got {count} right pairs, expected at least {needed} for {false_alarms:.1%} of false alarms; add pairs, "
            f"or raise --false-alarms to {1 / (count + 1):.2g}"
        )


def calibrated(rows: Sequence[Mapping[str, float]], false_alarms: float) -> Calibration:
    """Find the thresholds by which right pairs fail at this rate.

    Args:
        rows: the quality measures of each pair; NaN where something was not measured.
        false_alarms: above 0, below 1.

    Raises:
        InputError: there are too few pairs for this rate.
    """
    count = len(rows)
    check_count(count, false_alarms)
    values = np.array([[found[name] for name in SHIPPED] for found in map(values_of, rows)])
    known = np.isfinite(values)
    columns = [column[there] if there.any() else np.zeros(1) for column, there in zip(values.T, known.T, strict=True)]
    middle = np.array([np.median(column) for column in columns])
    gaps = np.array([each.fail - each.warn for each in SHIPPED.values()])
    deviations = [np.median(np.abs(column - m)) for column, m in zip(columns, middle, strict=True)]
    spread = np.maximum(NORMAL_MAD * np.array(deviations), gaps)
    unusual = np.sort(np.where(known, (values - middle) / spread, -np.inf), axis=1)[:, ::-1]
    warn, fail = _limits(unusual[:, 0], unusual[:, SEVERAL - 1], false_alarms)
    thresholds = {
        name: Threshold(float(middle[r] + warn * spread[r]), float(middle[r] + fail * spread[r]))
        for r, name in enumerate(SHIPPED)
        if known[:, r].any()
    }
    verdicts = [quality_of(measures, {**SHIPPED, **thresholds}).verdict for measures in rows]
    beyond = _beyond(count, false_alarms)
    bound = float(beta.ppf(CONFIDENCE, beyond + 1, count - beyond))
    return Calibration(thresholds, count, false_alarms, bound, verdicts.count(FAIL), verdicts.count(WARN))


def _limits(first: Values, several: Values, false_alarms: float) -> tuple[float, float]:
    """Where rules warn and fail, in spreads above the median: a pair fails by one rule, or by several that warn.

    Args:
        first: (P,), the largest value of each pair.
        several: (P,), the largest value that enough of its rules reach to fail together.
    """
    failing = _beyond(len(first), false_alarms)
    share = min(WARN_SHARE * false_alarms, max(LARGEST_WARN_SHARE, false_alarms))
    warned = _beyond(len(first), share)
    least_warn = _exceeded_by(first, warned)
    gap = max(_exceeded_by(first, failing) - least_warn, LEAST_GAP)
    fail = _exceeded_by(np.maximum(first, several + gap), failing)
    warn = max(fail - gap, least_warn)
    return warn, max(fail, warn + LEAST_GAP)


def _beyond(count: int, share: float) -> int:
    """How many of the pairs may lie above a threshold, so that a further one does with at most this probability."""
    return max(0, math.floor(share * (count + 1) + 1e-9) - 1)


def _exceeded_by(values: Values, number: int) -> float:
    """A value that this many of them exceed."""
    return float(np.sort(values)[::-1][number]) + ROUNDING
