"""From measures to a verdict: thresholds, each with its reason in words.

Calibrated on right and wrong pairs of eleven cohorts: benchmarks/verdict.md. Upstream: `measures`. Downstream:
`register`.
"""

import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from corereg.method.quality.judged import Judged
from corereg.method.quality.measures import ORIENTATIONS, UNKNOWN, measure
from corereg.method.quality.quality import FAIL, PASS, WARN, Quality, Verdict

__all__ = ["doubt", "judge", "quality_of", "warn_if_failed", "with_overlap"]

Measures = Mapping[str, float]

LEFT_RIGHT = "orientation_mirrored_left_right"
OTHER_ORIENTATIONS = [
    name for name in (f"orientation_{words}" for words in ORIENTATIONS.values()) if name != LEFT_RIGHT
]

SEVERAL = 3
"""This many rules that warn decide together."""

WORSE_DICE = 0.02
"""Fall of the mean Dice that counts as a failure."""


class _Rule(NamedTuple):
    """A value that speaks against a registration: above `warn` a little, above `fail` decisively."""

    value: Callable[[Measures], float]
    """NaN says nothing."""
    warn: float
    fail: float
    reason: Callable[[Measures], str]

    def doubt(self, measures: Measures) -> float:
        """Above 0 where it warns, above 1 where it decides."""
        return (self.value(measures) - self.warn) / (self.fail - self.warn)


def _agreement(measures: Measures) -> float:
    """How alike the images are. Before the deformation a likeness counts twice, since a strong one can bend unrelated
    images until they agree."""
    return 2 * measures["similarity_before"] + measures["similarity_above_chance"]


def _best_orientation(measures: Measures) -> str:
    return max(OTHER_ORIENTATIONS, key=lambda name: measures[name])


def _orientation_words(name: str, measures: Measures) -> str:
    words = name.removeprefix("orientation_").replace("_", " ").replace("left right", "left-right")
    words = words.replace("front back", "front-back").replace("head feet", "head-feet")
    how = f"{words} by 180 degrees" if "turned" in words else words
    return f"{how}, the moving image would match {measures[name]:.2f} times as well"


RULES = (
    _Rule(
        lambda m: m[_best_orientation(m)],
        warn=0.97,
        fail=1.03,
        reason=lambda m: _orientation_words(_best_orientation(m), m),
    ),
    _Rule(
        lambda m: m[LEFT_RIGHT],
        warn=1.05,
        fail=1.15,
        reason=lambda m: _orientation_words(LEFT_RIGHT, m),
    ),
    _Rule(
        lambda m: -_agreement(m),
        warn=-0.6,
        fail=-0.5,
        reason=lambda m: (
            "the images agree hardly better than unrelated scans (similarity "
            f"{m['similarity_before']:.2f} after the affine part, {m['similarity_above_chance']:.2f} at the end)"
        ),
    ),
    _Rule(
        lambda m: m["displacement_share"],
        warn=0.12,
        fail=0.2,
        reason=lambda m: (
            f"the deformation moves the body by {m['displacement_mean_mm']:.0f} mm on average, "
            f"{m['displacement_share']:.0%} of the scan's width"
        ),
    ),
    _Rule(
        lambda m: 1 - m["covered"],
        warn=0.4,
        fail=0.8,
        reason=lambda m: f"{1 - m['covered']:.0%} of the fixed body lies outside the moving scan",
    ),
)


def judge(judged: Judged) -> Quality:
    """Pass a verdict on a registration."""
    return quality_of(measure(judged))


def doubt(measures: Measures) -> float:
    """One number for all rules: above 0 the verdict is "warn", above 1 "fail"."""
    known = sorted((value for rule in RULES if not math.isnan(value := rule.doubt(measures))), reverse=True)
    if not known:
        return UNKNOWN
    several = known[SEVERAL - 1] if len(known) >= SEVERAL else UNKNOWN
    return max(known[0], 1 + several) if several > 0 else known[0]


def quality_of(measures: Measures) -> Quality:
    """The verdict that measures lead to."""
    found = sorted((rule for rule in RULES if rule.doubt(measures) > 0), key=lambda rule: -rule.doubt(measures))
    total = doubt(measures)
    verdict: Verdict = FAIL if total > 1 else WARN if total > 0 else PASS
    return Quality(verdict, tuple(rule.reason(measures) for rule in found), measures)


def with_overlap(quality: Quality, metrics: Mapping[str, Any]) -> Quality:
    """The verdict with what label maps say, if the metrics hold `dice` and `dice_before`."""
    before, after = metrics.get("dice_before", UNKNOWN), metrics.get("dice", UNKNOWN)
    if not after < before - WORSE_DICE:
        return quality
    reason = f"the labels overlap less than before the deformable registration: Dice {after:.3f}, {before:.3f} before"
    return replace(quality, verdict=FAIL, reasons=(reason, *quality.reasons))


def warn_if_failed(quality: Quality, fixed: str, moving: str) -> None:
    """Warn if the verdict is "fail".

    Args:
        fixed, moving: names of the images.
    """
    if quality.verdict == FAIL:
        reasons = "; ".join(quality.reasons)
        warnings.warn(f"the registration of {moving} onto {fixed} looks wrong: {reasons}", stacklevel=3)
