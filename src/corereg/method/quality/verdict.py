"""From measures to a verdict: rules, each with its reason in words.

Upstream: `measures`, `thresholds`. Downstream: `register`.
"""

import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from corereg.method.quality.judged import Judged
from corereg.method.quality.measures import ORIENTATIONS, UNKNOWN, measure
from corereg.method.quality.quality import FAIL, PASS, WARN, Quality, Verdict
from corereg.method.quality.thresholds import SHIPPED, Threshold, Thresholds

__all__ = ["NEEDED", "SEVERAL", "doubt", "judge", "quality_of", "values_of", "warn_if_failed", "with_overlap"]

Measures = Mapping[str, float]

LEFT_RIGHT = "orientation_mirrored_left_right"
OTHER_ORIENTATIONS = [
    name for name in (f"orientation_{words}" for words in ORIENTATIONS.values()) if name != LEFT_RIGHT
]

BEFORE = 3
"""Weight of the likeness before the deformation, relative to that after it."""

SEVERAL = 3
"""This many rules that warn decide together."""

HALF_TURN = 180.0
"""Degrees by which a wrong header may turn a scan; a rotation that undoes this is not held against the result."""

UNSEEN = 0.5
"""Doubt of a registration of which too little is seen to compare: it warns."""

WORSE_DICE = 0.02
"""Fall of the mean Dice that counts as a failure."""


class _Rule(NamedTuple):
    """A value that speaks against a registration: the larger, the more."""

    value: Callable[[Measures], float]
    """NaN says nothing."""
    reason: Callable[[Measures], str]

    def doubt(self, measures: Measures, threshold: Threshold) -> float:
        """Above 0 where it warns, above 1 where it decides."""
        return (self.value(measures) - threshold.warn) / (threshold.fail - threshold.warn)


def _agreement(measures: Measures) -> float:
    """How alike the images are. Before the deformation a likeness counts several times, since a strong one can bend
    unrelated images until they agree."""
    return BEFORE * measures["similarity_before"] + measures["similarity_above_chance"]


def _best_orientation(measures: Measures) -> str:
    return max(OTHER_ORIENTATIONS, key=lambda name: measures[name])


def _orientation_words(name: str, measures: Measures) -> str:
    words = name.removeprefix("orientation_").replace("_", " ").replace("left right", "left-right")
    words = words.replace("front back", "front-back").replace("head feet", "head-feet")
    how = f"{words} by 180 degrees" if "turned" in words else words
    much = "just" if round(measures[name], 2) == 1 else f"{measures[name]:.2f} times"
    return f"{how}, the moving image would match {much} as well"


RULES = {
    "orientation": _Rule(
        lambda m: m[_best_orientation(m)],
        reason=lambda m: _orientation_words(_best_orientation(m), m),
    ),
    "left_right": _Rule(
        lambda m: m[LEFT_RIGHT],
        reason=lambda m: _orientation_words(LEFT_RIGHT, m),
    ),
    "agreement": _Rule(
        lambda m: -_agreement(m),
        reason=lambda m: (
            "the images agree hardly better than unrelated scans (similarity "
            f"{m['similarity_before']:.2f} after the affine part, {m['similarity_above_chance']:.2f} at the end)"
        ),
    ),
    "displacement": _Rule(
        lambda m: m["displacement_share"],
        reason=lambda m: (
            f"the deformation moves the body by {m['displacement_mean_mm']:.0f} mm on average, "
            f"{m['displacement_share']:.0%} of the scan's width"
        ),
    ),
    "rotation": _Rule(
        lambda m: min(m["affine_rotation_degrees"], HALF_TURN - m["affine_rotation_degrees"]),
        reason=lambda m: (
            f"the affine part turns the moving image by {m['affine_rotation_degrees']:.0f} degrees, more than patients "
            "turn between scans; is its header right?"
        ),
    ),
    "coverage": _Rule(
        # A scan of a few slices covers little of a body, and need not cover more than it can.
        lambda m: 1 - m["covered"] / m["coverable"],
        reason=lambda m: (
            f"the moving scan covers {m['covered']:.0%} of the fixed body, and has the size to cover "
            f"{m['coverable']:.0%}"
        ),
    ),
    "stretch": _Rule(
        # Below 1 it says nothing: right pairs have been stretched as much as wrong ones.
        lambda m: value if (value := m.get("affine_stretch_excess", math.nan)) > 1 else math.nan,
        reason=lambda m: (
            "the affine map that agrees best stretches the moving image more than patients differ, and another has "
            "been taken"
        ),
    ),
}
"""What each of the `Thresholds` is compared with."""

NEEDED = (
    *OTHER_ORIENTATIONS,
    LEFT_RIGHT,
    *("similarity_before", "similarity_above_chance", "displacement_mean_mm", "displacement_share"),
    *("affine_rotation_degrees", "covered", "coverable"),
)
"""The measures that the rules read."""


def judge(judged: Judged, thresholds: Thresholds) -> Quality:
    """Pass a verdict on a registration."""
    return quality_of(measure(judged), thresholds)


def values_of(measures: Measures) -> dict[str, float]:
    """The value of each rule."""
    return {name: rule.value(measures) for name, rule in RULES.items()}


def doubt(measures: Measures, thresholds: Thresholds = SHIPPED) -> float:
    """One number for all rules: above 0 the verdict is "warn", above 1 "fail"."""
    doubts = (rule.doubt(measures, thresholds[name]) for name, rule in RULES.items())
    known = sorted((value for value in doubts if not math.isnan(value)), reverse=True)
    if not known:
        return UNKNOWN
    several = known[SEVERAL - 1] if len(known) >= SEVERAL else UNKNOWN
    total = max(known[0], 1 + several) if several > 0 else known[0]
    return max(total, UNSEEN) if _unseen(measures) else total


def quality_of(measures: Measures, thresholds: Thresholds = SHIPPED) -> Quality:
    """The verdict that measures lead to."""
    doubts = {name: rule.doubt(measures, thresholds[name]) for name, rule in RULES.items()}
    found = sorted((name for name in RULES if doubts[name] > 0), key=lambda name: -doubts[name])
    total = doubt(measures, thresholds)
    verdict: Verdict = FAIL if total > 1 else WARN if total > 0 else PASS
    reasons = [RULES[name].reason(measures) for name in found]
    if _unseen(measures):
        reasons.append("too little of the bodies, or too few slices, to tell how alike the images are")
    return Quality(verdict, tuple(reasons), measures)


def _unseen(measures: Measures) -> bool:
    """Whether a registration was judged without a look at how alike the images are."""
    return math.isnan(_agreement(measures)) and not math.isnan(measures["displacement_share"])


def with_overlap(quality: Quality, metrics: Mapping[str, Any]) -> Quality:
    """The verdict with what label maps say, if the metrics hold `dice` and `dice_before`."""
    before, after = metrics.get("dice_before", UNKNOWN), metrics.get("dice", UNKNOWN)
    if not after < before - WORSE_DICE:
        return quality
    reason = f"the labels overlap less than before: Dice {after:.3f}, {before:.3f} before"
    return replace(quality, verdict=FAIL, reasons=(reason, *quality.reasons))


def warn_if_failed(quality: Quality, fixed: str, moving: str) -> None:
    """Warn if the verdict is "fail".

    Args:
        fixed, moving: names of the images.
    """
    if quality.verdict == FAIL:
        reasons = "; ".join(quality.reasons)
        warnings.warn(f"the registration of {moving} onto {fixed} looks wrong: {reasons}", stacklevel=3)
