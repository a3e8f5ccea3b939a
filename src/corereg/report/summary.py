"""Formats the summary of a registration as tables: names spelled out, numbers rounded.

Upstream: the summary of a result. Downstream: `pair`.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from corereg.evaluation.measures import DASH

__all__ = ["Table", "formatted", "headline", "summary_tables"]

HEADLINE_GROUP, HEADLINE_NUMBERS = "Metrics", 6
"""The table whose first known values head the page, and how many of them."""
WORDS = {
    "dice": "Dice",
    "hd95": "HD95",
    "tre": "TRE",
    "sdlogj": "SDlogJ",
    "ndv": "NDV",
    "det": "det",
    "j": "J",
    "mm": "(mm)",
    "vox": "(voxels)",
    "hu": "(HU)",
    "percent": "(%)",
    "mb": "(MB)",
    "gb": "(GB)",
    "id": "ID",
    "ct": "CT",
    "mr": "MR",
    "sha256": "SHA-256",
    "corereg": "corereg",
}
"""Words of a name that are not printed as they are."""


@dataclass(frozen=True)
class Table:
    """Names and values under one heading."""

    title: str
    rows: list[tuple[str, str]]


def summary_tables(summary: Mapping[str, object]) -> Iterator[Table]:
    """Yield the summary as tables: first the values outside any group, then each group."""
    loose = {name: value for name, value in summary.items() if not isinstance(value, Mapping)}
    if loose:
        yield Table("Pair", list(_flatten(loose)))
    for name, group in summary.items():
        if isinstance(group, Mapping) and group:
            yield Table(_spelled_out(name), list(_flatten(group)))


def headline(tables: Iterable[Table]) -> list[tuple[str, str]]:
    """The names and values that head the page: the first known metrics."""
    metrics = next((table.rows for table in tables if table.title == HEADLINE_GROUP), [])
    return [(name, value) for name, value in metrics if value != DASH][:HEADLINE_NUMBERS]


def formatted(value: object) -> str:
    """A value for readers: four significant digits, a dash for NaN and None."""
    if value is None:
        return DASH
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, float | np.floating):
        number = float(value)
        if math.isnan(number):
            return DASH
        return "\N{INFINITY}" if math.isinf(number) else f"{number:.4g}".replace("-", "\N{MINUS SIGN}")
    if isinstance(value, list | tuple | np.ndarray):
        return ", ".join(formatted(item) for item in value)
    return str(value)


def _flatten(group: Mapping[Any, object], parents: tuple[str, ...] = ()) -> Iterator[tuple[str, str]]:
    """Names and values of a group; the names of nested groups are joined by a dot."""
    for key, value in group.items():
        names = (*parents, _spelled_out(str(key), first=not parents))
        if isinstance(value, Mapping):
            yield from _flatten(value, names)
        else:
            yield " \N{MIDDLE DOT} ".join(names), formatted(value)


def _spelled_out(name: str, *, first: bool = True) -> str:
    """Spell out a variable's name: "mean_dice" -> "Mean Dice", "tre_mm" -> "TRE (mm)"."""
    words = [word for word in name.split("_") if word]
    text = " ".join(WORDS.get(word, word) for word in words)
    return text[0].upper() + text[1:] if first and words and words[0] not in WORDS else text or name
