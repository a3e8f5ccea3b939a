"""The measures of a pair: their titles, their digits, and whether more or less is better.

Upstream: rows of `score` or of `benchmark.run`. Downstream: tables, figures and pages of `report`.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from corereg.evaluation.statistics import Comparison, Summary, compare, summarise

__all__ = [
    "DASH",
    "MEASURES",
    "Measure",
    "compare_rows",
    "mean_sd",
    "number",
    "per_label",
    "summaries",
    "summary",
    "values",
]

DASH = "\N{EN DASH}"
"""Stands for an unknown value."""


Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Measure:
    """One column of a table.

    Args:
        digits: digits after the decimal point.
        better: +1 if more is better, -1 if less is better, 0 if neither.
        most: the largest possible value; the least is 0.
    """

    name: str
    title: str
    digits: int
    better: int
    most: float = math.inf


MEASURES: dict[str, Measure] = {
    measure.name: measure
    for measure in (
        Measure("dice", "Dice", 3, 1, most=1.0),
        Measure("dice_before", "Dice unregistered", 3, 0, most=1.0),
        Measure("hd95_vox", "HD95 (voxels)", 2, -1),
        Measure("hd95_mm", "HD95 (mm)", 2, -1),
        Measure("tre_mm", "TRE (mm)", 2, -1),
        Measure("tre_before_mm", "TRE unregistered (mm)", 2, 0),
        Measure("sdlogj", "SDlogJ", 3, -1),
        Measure("sdlogj_masked", "SDlogJ in the mask", 3, -1),
        Measure("fold_percent", "folds (%)", 3, -1, most=100.0),
        Measure("ndv_percent", "NDV (%)", 3, -1),
        Measure("inverse_mm", "inverse error (mm)", 2, -1),
        Measure("displacement_mm", "mean displacement (mm)", 2, 0),
        Measure("seconds", "time (s)", 1, -1),
        Measure("process_seconds", "time with start-up (s)", 1, -1),
        Measure("peak_memory_mb", "peak memory (MiB)", 0, -1),
    )
}


def values(rows: Rows, name: str) -> list[float]:
    """The measure called `name` of every row, NaN for rows without it."""
    return [math.nan if row.get(name) is None else float(row[name]) for row in rows]


def summary(rows: Rows, name: str) -> Summary:
    """Summary of one measure over the pairs."""
    return summarise(values(rows, name), [_scans(row) for row in rows], bounds=(0.0, MEASURES[name].most))


def summaries(rows: Rows) -> dict[str, Summary]:
    """Summary of every measure that at least one row has."""
    found = {name: summary(rows, name) for name in MEASURES}
    return {name: each for name, each in found.items() if each.count}


def compare_rows(first: Rows, second: Rows, name: str, *, wilcoxon: bool = False) -> Comparison:
    """Paired comparison of a measure, `first` minus `second`, over the pairs of scans that both have rows for.

    Args:
        wilcoxon: test by Wilcoxon's test even if pairs share scans, as the challenge does.
    """
    others = {_scans(row): row for row in second}
    both = {key: (row, others[key]) for row in first if (key := _scans(row)) in others}
    one, other = (values([rows[side] for rows in both.values()], name) for side in (0, 1))
    return compare(one, other, None if wilcoxon else list(both))


def _scans(row: Mapping[str, Any]) -> tuple[str, str]:
    return row["fixed"], row["moving"]


def per_label(rows: Iterable[Mapping[str, Any]], name: str = "dice_per_label") -> dict[int, list[float]]:
    """Scores of each label, over the rows that have one for it."""
    scores: dict[int, list[float]] = {}
    for row in rows:
        for label, score in (row.get(name) or {}).items():
            if score is not None and not math.isnan(score):
                scores.setdefault(int(label), []).append(float(score))
    return dict(sorted(scores.items()))


def number(value: float | None, digits: int) -> str:
    """A value for readers, with a dash for NaN and None."""
    if value is None or math.isnan(value):
        return DASH
    return "\N{INFINITY}" if math.isinf(value) else f"{value:.{digits}f}"


def mean_sd(summary: Summary | None, digits: int) -> str:
    """Mean and standard deviation for readers, such as "0.613 ± 0.055"."""
    if summary is None:
        return DASH
    if math.isnan(summary.sd):
        return number(summary.mean, digits)
    return f"{number(summary.mean, digits)} \N{PLUS-MINUS SIGN} {number(summary.sd, digits)}"
