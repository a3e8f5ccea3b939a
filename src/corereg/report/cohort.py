"""The page about many pairs: results, figures, every pair, failures and provenance.

Upstream: `evaluation.benchmark.run`, or any other list of rows. Downstream: `cli.evaluate`, `workflows.reproduce`.
"""

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from corereg.evaluation.benchmark.run import Benchmark
from corereg.evaluation.measures import MEASURES, number
from corereg.evaluation.statistics import CONFIDENCE, FEW_PAIRS, RESAMPLES, pair_warnings
from corereg.io.atomic import atomic_path
from corereg.method.quality.quality import verdict_rank
from corereg.report.figures import Drawn, make_figures
from corereg.report.pages import render
from corereg.report.tables import benchmark_rows, latex, markdown, write_csv
from corereg.report.text import printable

__all__ = ["Cohort", "write_benchmark", "write_cohort_report"]

PAIR_COLUMNS = ("dice", "dice_before", "hd95_mm", "tre_mm", "sdlogj", "fold_percent", "seconds", "process_seconds")
STATISTICS_NOTE = (
    f"Intervals: {100 * CONFIDENCE:.0f} % bootstrap of the mean over pairs ({RESAMPLES:,} resamples, seed 0), "
    f"Student's for fewer than {FEW_PAIRS} pairs, cut at the least and the largest value that a measure can have. "
    "p: two-sided Wilcoxon signed-rank test against the first method, for each measure with Holm's correction over the "
    "methods. HD95 is averaged over structures. SDlogJ is Learn2Reg's, of det J + 3. Time: registration only, images "
    "already read; with start-up: the whole process. Memory: peak resident memory, sampled. Ranking: Learn2Reg's "
    "score, the geometric mean over Dice, HD95, TRE and SDlogJ of ranks by significant wins, from 0.1 to 1."
)
"""How to read the table of a benchmark."""


@dataclass(frozen=True, kw_only=True)
class Cohort:
    """Contents of a page about many pairs.

    Args:
        groups: title of a method or run -> its rows, as `score_pair` makes them. A row may have `report`, the path of
            the pair's own page, relative to this one, and `verdict` with `reasons`.
        header, lines: the table at the top.
        label_names: label -> name of the structure.
        problems: (what failed, why).
        notes: sentences under the table.
        settings: title of a method -> its settings, in words.
        provenance: names and values, nested to any depth.
        command: the command line.
    """

    title: str
    subtitle: str
    groups: Mapping[str, Sequence[Mapping[str, Any]]]
    header: Sequence[str] = ()
    lines: Sequence[Sequence[str]] = ()
    label_names: Mapping[int, str] = field(default_factory=dict)
    problems: Sequence[tuple[str, str]] = ()
    notes: Sequence[str] = ()
    settings: Mapping[str, str] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    command: str = ""


def write_benchmark(found: Benchmark, directory: Path) -> None:
    """Write report.html, table.md, table.tex, rows.csv and figures (SVG and PDF) of a benchmark into `directory`."""
    header, lines = benchmark_rows(found)
    cohort = Cohort(
        title=f"Benchmark on {found.cases.name}",
        subtitle=f"{len(found.cases.cases)} {found.cases.split} pairs, {len(found.methods)} methods",
        groups={method.title: found.of(method) for method in found.methods},
        header=header,
        lines=lines,
        label_names=found.cases.label_names,
        problems=_problems(found),
        notes=_notes(found),
        settings={method.title: _settings(found, method.name) for method in found.methods},
        provenance={name: found.provenance[name] for name in ("dataset", "started", "finished", "machine", "plan")},
        command=str(found.provenance["command"]),
    )
    figures = make_figures(cohort.groups, cohort.label_names)
    folder = directory / "figures"
    folder.mkdir(exist_ok=True)
    for name, drawn in figures.items():
        (folder / f"{name}.svg").write_text(drawn.svg, encoding="utf-8")
        (folder / f"{name}.pdf").write_bytes(drawn.pdf)
    write_csv(directory / "rows.csv", found.rows)
    with atomic_path(directory / "table.md") as staged:
        staged.write_text(printable(_markdown(cohort)), encoding="utf-8")
    with atomic_path(directory / "table.tex") as staged:
        staged.write_text(printable(latex(header, lines)), encoding="utf-8")
    write_cohort_report(directory / "report.html", cohort, figures)


def write_cohort_report(path: Path, cohort: Cohort, figures: Mapping[str, Drawn] | None = None) -> None:
    """Write one self-contained page about many pairs; the same input gives the same bytes.

    Args:
        figures: as returned by `make_figures`; drawn here if not given.

    Raises:
        InputError: `path` cannot be written to.
    """
    if figures is None:
        figures = make_figures(cohort.groups, cohort.label_names)
    rows = [(title, row) for title, found in cohort.groups.items() for row in found]
    columns = [name for name in PAIR_COLUMNS if any(row.get(name) is not None for _, row in rows)]
    html = render(
        "cohort.html.j2",
        cohort=cohort,
        figures=[(drawn.caption, _uri(drawn.svg)) for drawn in figures.values()],
        columns=[MEASURES[name].title for name in columns],
        rows=[_pair_line(title, row, columns) for title, row in rows],
        several=len(cohort.groups) > 1,
        judged=any(row.get("verdict") for _, row in rows),
        provenance=json.dumps(cohort.provenance, indent=1, default=str),
    )
    with atomic_path(path) as staged:
        staged.write_text(html, encoding="utf-8")


def _pair_line(title: str, row: Mapping[str, Any], columns: Sequence[str]) -> dict[str, Any]:
    cells = [(number(row.get(name), MEASURES[name].digits), row.get(name)) for name in columns]
    return {
        "group": title,
        "pair": _pair_name(row),
        "report": row.get("report"),
        "verdict": row.get("verdict") or "",
        "rank": verdict_rank(row.get("verdict")),
        "reasons": "; ".join(row.get("reasons") or ()),
        "cells": [(text, "" if value is None else value) for text, value in cells],
    }


def _pair_name(row: Mapping[str, Any]) -> str:
    return f"{row['fixed']} \N{LEFTWARDS ARROW} {row['moving']}"


def _uri(svg: str) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode("ascii")


def _problems(found: Benchmark) -> list[tuple[str, str]]:
    problems = [(name, f"skipped: {reason}") for name, reason in found.skipped.items()]
    for row in found.rows:
        if row["status"] != "ok":
            output = f": {row['tail']}" if row.get("tail") else ""
            problems.append((f"{row['method']}, {_pair_name(row)}", row["status"] + output))
    return problems


def _notes(found: Benchmark) -> list[str]:
    plan, matched = found.provenance["plan"], found.provenance["matched"]
    start = "the scans as they lie in the world" if plan["affine"] == "none" else "their own affine step"
    threads = f"{plan['threads']} thread{'s' if plan['threads'] != 1 else ''}"
    notes = [
        f"All methods read the same files, start from {start}, and have {threads} and at most "
        f"{plan['budget_seconds']:g} s per pair. One program warps the labels for all methods. Settings: see below.",
        STATISTICS_NOTE,
        *pair_warnings([(case.fixed.name, case.moving.name) for case in found.cases.cases]),
    ]
    for name, tuned in matched.items():
        same = ", the pairs scored here, so its SDlogJ is not an independent result"
        notes.append(
            f"R of {name} was tuned to {tuned['regularisation']:.3g} on {tuned['pairs']} {tuned['part']} pairs"
            f"{same if tuned['part'] == found.cases.split else ''}. Their mean SDlogJ is {tuned['sdlogj']:.3f}; "
            f"{len(tuned['tried'])} values were tried, and no labels were used."
        )
    return notes


def _settings(found: Benchmark, name: str) -> str:
    entry = found.provenance["methods"][name]
    return f"{entry['settings']} (version {entry['version']})" if entry["version"] else str(entry["settings"])


def _markdown(cohort: Cohort) -> str:
    text = (
        f"# {cohort.title}\n\n{cohort.subtitle}\n\n{markdown(list(cohort.header), [list(c) for c in cohort.lines])}\n"
    )
    text += "".join(f"{note}\n\n" for note in cohort.notes)
    text += markdown(["method", "settings"], [[title, settings] for title, settings in cohort.settings.items()])
    if cohort.problems:
        text += "\n" + "".join(f"- {what}: {' '.join(why.split())}\n" for what, why in cohort.problems)
    return text + f"\n```\n{cohort.command}\n```\n"
