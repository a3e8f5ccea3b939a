"""The verdict on a registration, as users see it. Imports nothing heavy: pages and tables name it too."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

__all__ = ["FAIL", "PASS", "UNJUDGED", "VERDICTS", "WARN", "Quality", "Verdict", "verdict_rank", "with_folds"]

Verdict = Literal["pass", "warn", "fail"]

PASS: Verdict = "pass"
WARN: Verdict = "warn"
FAIL: Verdict = "fail"
VERDICTS: tuple[Verdict, ...] = (FAIL, WARN, PASS)
"""The worst first."""


FOLDS_WARN, FOLDS_FAIL = 1.0, 5.0
"""Percent of folded voxels. Without guides there are none; landmarks that contradict each other leave many."""


@dataclass(frozen=True, slots=True)
class Quality:
    """Whether a registration can be trusted, as far as the images themselves show it."""

    verdict: Verdict
    reasons: tuple[str, ...]
    """Why it is not "pass", the gravest first; usually empty if it is."""
    measures: Mapping[str, float]
    """What the verdict rests on; NaN where something could not be measured."""

    def as_dict(self) -> dict[str, Any]:
        """The same as plain values, for JSON."""
        return {"verdict": self.verdict, "reasons": list(self.reasons), "measures": dict(self.measures)}


UNJUDGED = Quality(PASS, ("the images were not compared, so nothing was judged",), {})
"""Quality of a registration without intensities."""


def with_folds(quality: Quality, fold_percent: float) -> Quality:
    """The same with the share of folded voxels, in percent, taken into account."""
    if not fold_percent > FOLDS_WARN:
        return quality
    verdict = min(FAIL if fold_percent > FOLDS_FAIL else WARN, quality.verdict, key=verdict_rank)
    reason = f"the displacement folds in {fold_percent:.2g} % of the voxels"
    return replace(quality, verdict=verdict, reasons=(*quality.reasons, reason))


def verdict_rank(verdict: str | None) -> int:
    """A number to sort by: the worst verdict first, and last where there is none."""
    return VERDICTS.index(verdict) if verdict in VERDICTS else len(VERDICTS)
