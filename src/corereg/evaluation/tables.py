"""The result of an evaluation as a table for the terminal, and how tables write numbers.

Upstream: `evaluate`. Downstream: `cli.evaluate`, `standings`.
"""

import math

from rich.table import Table

from corereg.evaluation.evaluate import Evaluation
from corereg.evaluation.measures import MEASURES, mean_sd, number
from corereg.evaluation.statistics import Summary

__all__ = ["evaluation_table", "interval", "markdown", "p_words", "signed"]

SMALLEST_P = 1e-4


def evaluation_table(found: Evaluation) -> Table:
    """A line for each measure: mean and sd, its interval; beside another set of fields, the difference and its p."""
    title = f"{found.cases.name}, {found.cases.part}: {len(found.rows)} of {len(found.cases.cases)} pairs"
    table = Table(title=title, title_justify="left")
    table.add_column("")
    for name in ("mean ± sd", "95 % interval", "median", "pairs"):
        table.add_column(name, justify="right", no_wrap=True)
    if found.against is not None:
        for name in ("against", "difference", "p"):
            table.add_column(name, justify="right", no_wrap=True)
    for name, summary in found.summary.items():
        measure = MEASURES[name]
        cells = [mean_sd(summary, measure.digits), interval(summary, measure.digits)]
        cells += [number(summary.median, measure.digits), str(summary.count)]
        if found.against is not None:
            compared = found.comparisons.get(name)
            cells.append(mean_sd(found.against.summary.get(name), measure.digits))
            cells += (
                ["", ""] if compared is None else [signed(compared.difference, measure.digits), p_words(compared.p)]
            )
        table.add_row(measure.title, *cells)
    return table


def markdown(header: list[str], lines: list[list[str]]) -> str:
    rows = [header, ["---"] * len(header), *lines]
    return "".join(f"| {' | '.join(cell.replace('|', '/') for cell in row)} |\n" for row in rows)


def interval(summary: Summary, digits: int) -> str:
    if math.isnan(summary.low):
        return number(math.nan, digits)
    return f"{number(summary.low, digits)} to {number(summary.high, digits)}"


def signed(value: float, digits: int) -> str:
    return f"{value:+.{digits}f}" if math.isfinite(value) else number(value, digits)


def p_words(p: float) -> str:
    if math.isnan(p):
        return ""
    return f"< {SMALLEST_P:g}" if p < SMALLEST_P else f"{p:.2g}"
