"""The measures of a pair: what they are called, how they are written, which way is better.

Upstream: rows of `score` or of `benchmark`. Downstream: tables, figures, reports.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from corereg.evaluation.statistics import Summary, summarise

__all__ = ["MEASURES", "Measure", "mean_sd", "number", "per_label", "summaries", "values"]

DASH = "\N{EN DASH}"


@dataclass(frozen=True, slots=True)
class Measure:
    """One column.

    Args:
        digits: after the point.
        better: +1 if more is better, -1 if less is, 0 if neither.
    """

    name: str
    title: str
    digits: int
    better: int


MEASURES: dict[str, Measure] = {
    measure.name: measure
    for measure in (
        Measure("dice", "Dice", 3, 1),
        Measure("dice_before", "Dice before", 3, 0),
        Measure("hd95_vox", "HD95 (voxels)", 2, -1),
        Measure("hd95_mm", "HD95 (mm)", 2, -1),
        Measure("tre_mm", "TRE (mm)", 2, -1),
        Measure("tre_before_mm", "TRE before (mm)", 2, 0),
        Measure("sdlogj", "SDlogJ", 3, -1),
        Measure("fold_percent", "folds (%)", 3, -1),
        Measure("ndv_percent", "NDV (%)", 3, -1),
        Measure("inverse_mm", "inverse error (mm)", 2, -1),
        Measure("displacement_mm", "mean displacement (mm)", 2, 0),
        Measure("seconds", "s", 1, -1),
        Measure("process_seconds", "s with start-up", 1, -1),
        Measure("peak_memory_mb", "peak memory (MiB)", 0, -1),
    )
}


def values(rows: Sequence[Mapping[str, Any]], name: str) -> list[float]:
    """A measure of every row, NaN where a row does not have it."""
    return [math.nan if row.get(name) is None else float(row[name]) for row in rows]


def summaries(rows: Sequence[Mapping[str, Any]]) -> dict[str, Summary]:
    """Every measure that some row has."""
    found = {name: summarise(values(rows, name)) for name in MEASURES}
    return {name: summary for name, summary in found.items() if summary.count}


def per_label(rows: Iterable[Mapping[str, Any]], name: str = "dice_per_label") -> dict[int, list[float]]:
    """Scores of each label over the rows that know it."""
    scores: dict[int, list[float]] = {}
    for row in rows:
        for label, score in (row.get(name) or {}).items():
            if score is not None and not math.isnan(score):
                scores.setdefault(int(label), []).append(float(score))
    return dict(sorted(scores.items()))


def number(value: float | None, digits: int) -> str:
    """For a reader: a dash for what is not known."""
    if value is None or math.isnan(value):
        return DASH
    return "\N{INFINITY}" if math.isinf(value) else f"{value:.{digits}f}"


def mean_sd(summary: Summary | None, digits: int) -> str:
    """ "0.613 ± 0.055"."""
    if summary is None:
        return DASH
    if math.isnan(summary.sd):
        return number(summary.mean, digits)
    return f"{number(summary.mean, digits)} \N{PLUS-MINUS SIGN} {number(summary.sd, digits)}"
