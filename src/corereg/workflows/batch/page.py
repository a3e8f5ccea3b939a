"""The cohort page of a batch: failures first, then the pairs, the most doubtful on top, each with a link to its report.

Made in a process of its own, since it needs libraries that the driver does without. Upstream: `rows`.
"""

import heapq
import math
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from corereg.data.layouts.listing import scan_name
from corereg.method.quality.quality import verdict_rank
from corereg.report.cohort import Cohort, write_cohort_report
from corereg.workflows.batch.rows import OK, Row, read_rows
from corereg.workflows.outputs import OUTPUTS

__all__ = ["write_page"]

PAGE = "report.html"

MOST_PAIRS = 2000
"""Rows of a page; browsers become slow with more. The others are in rows.jsonl."""


def write_page(directory: Path, rows: Path, command: str) -> None:
    """Write report.html into the folder of a batch."""
    failed = [
        (row["name"], f"{row['status']}: {row.get('error', '')}") for row in islice(_rows(rows, ok=False), MOST_PAIRS)
    ]
    shown = heapq.nsmallest(MOST_PAIRS, _rows(rows, ok=True), key=_doubt)
    done = sum(1 for _ in _rows(rows, ok=True))
    left_out = f" The {MOST_PAIRS} most doubtful are listed; all are in {rows.name}."
    write_cohort_report(
        directory / PAGE,
        Cohort(
            title=f"Batch {directory.resolve().name}",
            subtitle=f"Pairs registered: {done}.{left_out if done > MOST_PAIRS else ''}",
            groups={"corereg": [_line(row, directory) for row in shown]},
            problems=failed,
            command=command,
        ),
    )


def _rows(path: Path, *, ok: bool) -> Iterator[Row]:
    return (row for row in read_rows(path) if (row["status"] == OK) is ok)


def _doubt(row: Row) -> tuple[int, float]:
    """Sorts the worst verdict first, and the least similar images among equal verdicts."""
    similarity = row.get("similarity_above_chance")
    return verdict_rank(row.get("verdict")), math.inf if similarity is None else float(similarity)


def _line(row: Row, directory: Path) -> dict[str, Any]:
    report = f"{row['name']}/{OUTPUTS['report']}"
    return {
        **row,
        # Pages of many pairs say by this name what `evaluate` does: the Dice without registration.
        "dice_before": row.get("dice_unregistered"),
        "fixed": scan_name(Path(row["fixed"])),
        "moving": scan_name(Path(row["moving"])),
        "report": report if (directory / report).is_file() else None,
    }
