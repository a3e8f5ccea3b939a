"""The challenge's ranking of methods: how many others each beats significantly, measure by measure.

Upstream: rows of `benchmark.run`. Downstream: `report.tables`.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from corereg.evaluation.measures import MEASURES, compare_rows

__all__ = ["RANKED", "ranking_scores"]

RANKED: Final = ("dice", "hd95_vox", "tre_mm", "sdlogj")
"""Measures that the challenge ranks by, as far as the data allow."""
SIGNIFICANT: Final = 0.05
LOWEST, HIGHEST = 0.1, 1.0
"""Scores of the last and the first rank."""

Rows = Mapping[str, Sequence[Mapping[str, Any]]]
"""Name of a method -> its rows."""


def ranking_scores(rows: Rows) -> dict[str, float]:
    """Score of each method, from 0.1 to 1; higher is better. Empty with fewer than two methods or without a measure.

    For each measure a method's wins are the methods that it beats by Wilcoxon's signed-rank test over the pairs, p <
    0.05 without correction. Ranks by wins are spaced evenly from 0.1 to 1, equal wins share their mean, and a method's
    score is the geometric mean over the measures.

    Source: Hering et al. 2023, "Learn2Reg: comprehensive multi-task medical image registration challenge". The
    challenge's own scripts take the unpaired rank-sum test and count each structure apart.
    """
    measures = [
        name for name in RANKED if all(any(row.get(name) is not None for row in found) for found in rows.values())
    ]
    if len(rows) < 2 or not measures:
        return {}
    ranks = [_ranks(_wins(rows, name)) for name in measures]
    return {name: math.exp(sum(math.log(rank[name]) for rank in ranks) / len(ranks)) for name in rows}


def _wins(rows: Rows, measure: str) -> dict[str, int]:
    better = MEASURES[measure].better

    def beats(one: str, other: str) -> bool:
        found = compare_rows(rows[one], rows[other], measure, wilcoxon=True)
        return found.p < SIGNIFICANT and better * found.difference > 0

    return {one: sum(beats(one, other) for other in rows if other != one) for one in rows}


def _ranks(wins: Mapping[str, int]) -> dict[str, float]:
    places = np.linspace(LOWEST, HIGHEST, len(wins))
    ordered = sorted(wins.values())
    shared = {count: [place for place, own in zip(places, ordered, strict=True) if own == count] for count in ordered}
    return {name: float(np.mean(shared[count])) for name, count in wins.items()}
