"""Methods side by side: what a benchmark says of each, with its interval and its significance.

Upstream: `benchmark`. Downstream: `cohort`, `cli.evaluate`.
"""

import math
from collections.abc import Mapping, Sequence

from rich.table import Table

from corereg.evaluation.benchmark import Benchmark
from corereg.evaluation.measures import MEASURES, mean_sd, summaries, values
from corereg.evaluation.statistics import Summary, compare, holm
from corereg.evaluation.tables import interval, p_words

__all__ = ["benchmark_rows", "benchmark_table", "p_values"]

METHOD_COLUMNS = (
    "dice",
    "hd95_mm",
    "tre_mm",
    "sdlogj",
    "fold_percent",
    "seconds",
    "process_seconds",
    "peak_memory_mb",
)
"""Measures that a table of methods shows, where they are known."""
TESTED = "dice"
"""The measure whose interval and p are shown."""


def benchmark_rows(found: Benchmark) -> tuple[list[str], list[list[str]]]:
    """Header and cells: a line before registration, then one for each method; p against the first method."""
    known = [name for name in METHOD_COLUMNS if any(row.get(name) is not None for row in found.rows)]
    header = ["method", "pairs"]
    for name in known:
        header += [MEASURES[name].title, *(["95 % interval", "p"] if name == TESTED else [])]
    p, total = p_values(found), len(found.cases.cases)
    # A pair is the same before registration whatever method comes after.
    scored = summaries(
        list({(row["fixed"], row["moving"]): row for row in found.rows if row["status"] == "ok"}.values())
    )
    lines = []
    if f"{TESTED}_before" in scored:
        lines.append(["before", "", *_cells({TESTED: scored[f"{TESTED}_before"]}, known, math.nan)])
    for method in found.methods:
        rows = found.of(method)
        cells = _cells(summaries(rows), known, p.get(method.name, math.nan))
        lines.append([method.title, f"{len(rows)} of {total}", *cells])
    return header, lines


def _cells(found: Mapping[str, Summary], known: Sequence[str], p: float) -> list[str]:
    cells = []
    for name in known:
        digits, summary = MEASURES[name].digits, found.get(name)
        cells.append("" if summary is None else mean_sd(summary, digits))
        if name == TESTED:
            cells += ["" if summary is None else interval(summary, digits), p_words(p)]
    return cells


def p_values(found: Benchmark) -> dict[str, float]:
    """Wilcoxon's p of each method's Dice against that of the first, over the pairs of both, corrected by Holm."""
    first = {(row["fixed"], row["moving"]): row for row in found.of(found.methods[0])}
    raw = {}
    for method in found.methods[1:]:
        pairs = [(first[key], row) for row in found.of(method) if (key := (row["fixed"], row["moving"])) in first]
        sides = [values([pair[side] for pair in pairs], "dice") for side in (0, 1)]
        raw[method.name] = compare(sides[0], sides[1]).p
    return holm(raw)


def benchmark_table(found: Benchmark) -> Table:
    """For the terminal."""
    header, lines = benchmark_rows(found)
    table = Table(title=f"{found.cases.name}, {found.cases.part} pairs", title_justify="left")
    for place, name in enumerate(header):
        table.add_column(name, justify="left" if place == 0 else "right")
    for line in lines:
        table.add_row(*line)
    return table
