"""The rows of a benchmark on disk: one JSON object per line, appended as results come, readable after any interruption.

Upstream: results of `run`. Downstream: a later call of `run`, which resumes.
"""

import json
from pathlib import Path
from typing import Any

from corereg.evaluation.score import Row
from corereg.io.atomic import atomic_path
from corereg.io.json_files import finite

__all__ = ["KEY", "append_row", "key_of", "read_rows", "resume_rows"]

KEY = ("method", "settings_hash", "fixed", "moving")
"""Entries that identify a row."""


def key_of(row: Row) -> tuple[Any, ...]:
    """What identifies a row: method, settings and pair."""
    return tuple(row[name] for name in KEY)


def append_row(path: Path, row: Row) -> None:
    """Append a row to the file, which is created if missing."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(finite(row), allow_nan=False) + "\n")


def read_rows(path: Path) -> list[Row]:
    """Read all rows, none if the file is missing. Damaged lines, such as one cut short by a kill, are skipped."""
    return [row for row, _ in _intact_lines(path)]


def resume_rows(path: Path) -> list[Row]:
    """Read all rows and remove damaged lines from the file, so that the next row starts on a line of its own."""
    lines = _intact_lines(path)
    content = "".join(f"{line}\n" for _, line in lines).encode()
    if path.is_file() and path.read_bytes() != content:
        with atomic_path(path) as staged:
            staged.write_bytes(content)
    return [row for row, _ in lines]


def _intact_lines(path: Path) -> list[tuple[Row, str]]:
    """The rows of a file, each with its line."""
    found = []
    for line in path.read_text("utf-8", errors="replace").split("\n") if path.is_file() else []:
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(row, dict) and all(isinstance(row.get(name), str) for name in ("status", *KEY)):
            found.append((row, line))
    return found
