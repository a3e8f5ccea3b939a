"""Tables of an evaluation or a benchmark, for the terminal, Markdown and CSV.

Upstream: `evaluate`, `benchmark.run`. Downstream: `cohort`, `cli.evaluate`, `workflows.reproduce`.
"""

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from corereg.evaluation.benchmark.run import Benchmark
from corereg.evaluation.evaluate import Evaluation
from corereg.evaluation.measures import DASH, MEASURES, compare_rows, mean_sd, number, summaries
from corereg.evaluation.ranking import ranking_scores
from corereg.evaluation.statistics import Summary, holm, pair_warnings
from corereg.io.atomic import atomic_path
from corereg.report.text import csv_cell

__all__ = [
    "METHOD_COLUMNS",
    "TESTED",
    "benchmark_rows",
    "benchmark_table",
    "evaluation_table",
    "interval",
    "latex",
    "markdown",
    "p_text",
    "p_values",
    "signed",
    "write_csv",
]

SMALLEST_P = 1e-4
"""Smaller p values are printed as "< 0.0001"."""

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
"""Measures that a table of methods shows, if known."""

LATEX = {letter: "\\" + letter for letter in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": "$<$",
    ">": "$>$",
    "\N{PLUS-MINUS SIGN}": r"$\pm$",
    "\N{INFINITY}": r"$\infty$",
    DASH: "--",
}
"""Characters that mean something else in LaTeX."""

RANKING = "ranking"
"""Column with the challenge's ranking score."""

TESTED = "dice"
"""The measure shown with its interval."""

PLAIN_P = ("seconds", "process_seconds", "peak_memory_mb")
"""Measures of a table that are not tested: they describe the machine."""


def evaluation_table(found: Evaluation) -> Table:
    """One line per measure: mean, interval and median; with a second set of fields also the difference and its p."""
    title = f"{found.cases.name}, {found.cases.split}: {len(found.rows)} of {len(found.cases.cases)} pairs"
    table = Table(title=title, title_justify="left", caption_justify="left")
    table.caption = "\n".join(pair_warnings([(row["fixed"], row["moving"]) for row in found.rows])) or None
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
            cells += ["", ""] if compared is None else [signed(compared.difference, measure.digits), p_text(compared.p)]
        table.add_row(measure.title, *cells)
    return table


def markdown(header: list[str], lines: list[list[str]]) -> str:
    """A Markdown table."""
    rows = [header, ["---"] * len(header), *lines]
    return "".join(f"| {' | '.join(' '.join(cell.replace('|', '/').split()) for cell in row)} |\n" for row in rows)


def latex(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A table for a paper, in the style of booktabs: texts on the left, numbers on the right."""
    rows = [" & ".join(map(_latex_text, row)) + r" \\" for row in (header, *lines)]
    body = [rows[0], r"\midrule", *rows[1:]]
    columns = "l" + "r" * (len(header) - 1)
    return "\n".join([rf"\begin{{tabular}}{{{columns}}}", r"\toprule", *body, r"\bottomrule", r"\end{tabular}"]) + "\n"


def _latex_text(text: str) -> str:
    return "".join(LATEX.get(letter, letter) for letter in text)


def interval(summary: Summary, digits: int) -> str:
    """The confidence interval of a mean, such as "0.58 to 0.64"."""
    if math.isnan(summary.low):
        return number(math.nan, digits)
    return f"{number(summary.low, digits)} to {number(summary.high, digits)}"


def signed(value: float, digits: int) -> str:
    """A difference with its sign, such as "+0.021"."""
    return f"{value:+.{digits}f}" if math.isfinite(value) else number(value, digits)


def p_text(p: float) -> str:
    """A p value for readers; empty for NaN."""
    if math.isnan(p):
        return ""
    return f"< {SMALLEST_P:g}" if p < SMALLEST_P else f"{p:.2g}"


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write one line per row, safe for spreadsheets; scores of labels get columns such as `dice_per_label_3`."""
    flat = [_flat(row) for row in rows]
    columns = list(dict.fromkeys(name for row in flat for name in row))
    with atomic_path(path) as staged, staged.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, restval="")
        writer.writeheader()
        writer.writerows(flat)


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in row.items():
        if isinstance(value, Mapping):
            flat |= {f"{name}_{key}": item for key, item in value.items()}
        else:
            flat[name] = value
    return {
        name: "" if isinstance(value, float) and math.isnan(value) else csv_cell(value) for name, value in flat.items()
    }


def benchmark_rows(found: Benchmark) -> tuple[list[str], list[list[str]]]:
    """Header and lines of the table: before registration, then one line per method, with p against the first method."""
    known = [name for name in METHOD_COLUMNS if any(row.get(name) is not None for row in found.rows)]
    header = ["method", "pairs"]
    for name in known:
        header += [MEASURES[name].title, *(["95 % interval"] if name == TESTED else [])]
        header += [] if name in PLAIN_P else [_p_title(name)]
    p = {name: p_values(found, name) for name in known if name not in PLAIN_P}
    total = len(found.cases.cases)
    ranking = ranking_scores({method.name: rows for method in found.methods if (rows := found.of(method))})
    header += [RANKING] if ranking else []
    # The scores before registration are the same for all methods.
    scored = summaries(
        list({(row["fixed"], row["moving"]): row for row in found.rows if row["status"] == "ok"}.values())
    )
    lines = []
    if f"{TESTED}_before" in scored:
        cells = _cells({TESTED: scored[f"{TESTED}_before"]}, known, {})
        lines.append(["before", "", *cells, *([""] if ranking else [])])
    for method in found.methods:
        rows = found.of(method)
        cells = _cells(summaries(rows), known, {name: each.get(method.name, math.nan) for name, each in p.items()})
        cells += [number(ranking.get(method.name), 2)] if ranking else []
        lines.append([method.title, f"{len(rows)} of {total}", *cells])
    return header, lines


def _cells(found: Mapping[str, Summary], known: Sequence[str], p: Mapping[str, float]) -> list[str]:
    cells = []
    for name in known:
        digits, summary = MEASURES[name].digits, found.get(name)
        cells.append("" if summary is None else mean_sd(summary, digits))
        cells += ["" if summary is None else interval(summary, digits)] if name == TESTED else []
        cells += [] if name in PLAIN_P else [p_text(p.get(name, math.nan))]
    return cells


def _p_title(name: str) -> str:
    return "p" if name == TESTED else f"p of {MEASURES[name].title}"


def p_values(found: Benchmark, measure: str = TESTED) -> dict[str, float]:
    """p of a measure of each method against the first method, over the pairs of both, with Holm's correction
    over the methods."""
    first, *others = found.methods
    return holm({other.name: compare_rows(found.of(first), found.of(other), measure).p for other in others})


def benchmark_table(found: Benchmark) -> Table:
    """The table of methods, for the terminal."""
    header, lines = benchmark_rows(found)
    table = Table(title=f"{found.cases.name}, {found.cases.split} pairs", title_justify="left", caption_justify="left")
    table.caption = (
        "\n".join(pair_warnings([(case.fixed.name, case.moving.name) for case in found.cases.cases])) or None
    )
    for place, name in enumerate(header):
        table.add_column(name, justify="left" if place == 0 else "right")
    for line in lines:
        table.add_row(*line)
    return table
