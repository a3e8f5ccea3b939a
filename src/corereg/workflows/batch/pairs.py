"""The pairs of a batch as a stream: from a table, JSON lines, a data set, or scans to be paired. No image is opened.

Downstream: `plan`, which checks them, and `run`.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from functools import lru_cache
from itertools import combinations
from pathlib import Path
from typing import Any

from corereg.data.layouts import Scan, read_listing
from corereg.data.layouts.listing import scan_name, stream_table
from corereg.data.pairs import Dataset, read_dataset
from corereg.errors import InputError
from corereg.method.config import register_options

__all__ = ["FILES", "Pair", "Source", "known_label_names", "pair_source"]

SIDES = ("fixed", "moving")
GUIDES = ("initial", "fixed_points", "moving_points", "rigid_labels")
FILES = (*SIDES, "fixed_labels", "moving_labels", "fixed_mask", "moving_mask", *GUIDES)
SPLIT = "split"
"""A column that data sets for training have; all their rows are registered."""

BEGINNING = 4096
"""Characters of a file in which its first one that is not blank is looked for."""

LISTS, JSON_LINES = (".txt",), (".jsonl", ".ndjson")
BOOLEANS = {"true": True, "false": False}
KEY_BYTES = 8

MOST_REMEMBERED = 4096
"""Paths that are not made again: a scan is often in many pairs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Files to register, and the settings that only this pair has."""

    fixed: Path
    moving: Path
    name: str = ""
    """Name of the pair's folder; by default <fixed>_<moving>."""
    fixed_labels: Path | None = None
    moving_labels: Path | None = None
    fixed_mask: Path | None = None
    moving_mask: Path | None = None
    initial: Path | None = None
    fixed_points: Path | None = None
    moving_points: Path | None = None
    rigid_labels: Path | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Settings by the names of the command's options, on top of those of the batch."""

    def __post_init__(self) -> None:
        if not self.name:
            object.__setattr__(self, "name", f"{scan_name(self.fixed)}_{scan_name(self.moving)}")

    def files(self) -> dict[str, Path]:
        """The files of this pair by what they are."""
        return {name: path for name in FILES if (path := getattr(self, name)) is not None}

    def key(self) -> str:
        """Hash of the name, files and settings: another pair of the same name has another key."""
        parts = [self.name, *(f"{name}={os.path.abspath(path)}" for name, path in self.files().items())]
        if self.settings:
            parts.append(json.dumps(dict(self.settings), sort_keys=True, default=str))
        text = "\0".join(parts)
        return hashlib.blake2b(os.fsencode(text), digest_size=KEY_BYTES).hexdigest()


Source = Callable[[], Iterator[Pair]]
"""Gives the pairs from the first, each time it is called."""


def pair_source(
    given: str | os.PathLike[str] | Iterable[Pair],
    *,
    all_to: str | os.PathLike[str] | None = None,
    every_pair: bool = False,
    split: str | None = None,
) -> Source:
    """Find out how the pairs are given.

    Args:
        given: a CSV (columns `FILES`, name, and settings by the names of their options), JSON or JSON lines of the
            same, a data set (BIDS: sessions of the same subject), a list of `Pair`; or, to be paired, a folder, a text
            file with a path per line, or a data set.
        all_to: register every scan onto this one.
        every_pair: register every pair of scans, in one direction, since a result holds both.
        split: pairs of a data set, "training", "validation" or "test"; by default those of validation and test, or else
            of training.

    Raises:
        InputError: the path does not exist, or cannot be understood.
    """
    if not isinstance(given, str | os.PathLike):
        pairs = list(given)
        return lambda: iter(pairs)
    path = Path(given)
    if not path.exists():
        raise InputError(f"got the pairs {path}, which do not exist, expected a CSV, JSON, JSON lines or a data set")
    if all_to is not None and every_pair:
        raise InputError("got --all-to and --every-pair, expected one of them; choose one")
    if all_to is not None or every_pair:
        scans = _scans(path)
        return (lambda: _every(scans)) if all_to is None else (lambda: _onto(Path(all_to), scans))
    if path.suffix.lower() == ".csv":
        return lambda: _from_rows(stream_table(path), path)
    if path.suffix.lower() in JSON_LINES:
        return lambda: _from_rows(_json_lines(path), path)
    if _is_json_list(path):
        return lambda: _from_rows(_json_list(path), path)
    dataset = None if path.suffix.lower() in LISTS else read_dataset(path)
    if dataset is None or dataset.layout == "folder" or (dataset.layout == "bids" and not dataset.intra_patient):
        raise InputError(f"got the scans {path}, expected to know how to pair them; add --all-to or --every-pair")
    return _of_dataset(dataset, split)


def known_label_names(given: object) -> dict[int, str]:
    """The names that a data set gives to its labels; none for other lists of pairs."""
    path = Path(given) if isinstance(given, str | os.PathLike) else None
    if path is None or not (path.is_dir() or path.suffix.lower() == ".json") or _is_json_list(path):
        return {}
    return dict(read_listing(path).label_names)


def _of_dataset(dataset: Dataset, split: str | None) -> Source:
    splits = {"training": dataset.training, "validation": dataset.validation, "test": dataset.test}
    if split is not None and split not in splits:
        raise InputError(f"got --pairs {split}, expected one of {', '.join(splits)}; choose one")
    listed = splits[split] if split else (*dataset.validation, *dataset.test) or dataset.training
    pairs = dict.fromkeys(listed)  # test pairs may be validated on, too
    return lambda: (_pair_of(dataset.scans[fixed], dataset.scans[moving]) for fixed, moving in pairs)


def _pair_of(fixed: Scan, moving: Scan) -> Pair:
    return Pair(
        name=f"{fixed.name}_{moving.name}",
        fixed=fixed.image,
        moving=moving.image,
        fixed_labels=fixed.labels if moving.labels else None,
        moving_labels=moving.labels,
    )


def _scans(path: Path) -> list[Scan]:
    if path.suffix.lower() not in LISTS:
        return list(read_listing(path).scans)
    lines = (line.strip() for line in path.read_text(encoding="utf-8-sig", errors="replace").splitlines())
    images = [_located(path.parent, line) for line in lines if line]
    return [Scan(scan_name(image), image) for image in images]


def _every(scans: list[Scan]) -> Iterator[Pair]:
    return (_pair_of(fixed, moving) for fixed, moving in combinations(scans, 2))


def _onto(template: Path, scans: list[Scan]) -> Iterator[Pair]:
    own = os.path.abspath(template)
    fixed = next((s for s in scans if os.path.abspath(s.image) == own), Scan(scan_name(template), template))
    return (_pair_of(fixed, moving) for moving in scans if moving is not fixed)


def _json_lines(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                row = None
            if not isinstance(row, dict):
                raise InputError(f"got line {number} of {path}, expected a JSON object with `fixed` and `moving`")
            yield row


def _is_json_list(path: Path) -> bool:
    """Whether a .json holds a list, and not a data set."""
    if path.suffix.lower() != ".json" or not path.is_file():
        return False
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        return file.read(BEGINNING).lstrip()[:1] == "["


def _json_list(path: Path) -> Iterator[dict[str, Any]]:
    try:
        rows = json.loads(path.read_text(encoding="utf-8-sig", errors="replace"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"got {path}, which is no JSON ({error}), expected a list of pairs; repair it") from None
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise InputError(f"got entry {number} of {path}, expected a JSON object with `fixed` and `moving`")
        yield row


def _from_rows(rows: Iterable[Mapping[str, Any]], path: Path) -> Iterator[Pair]:
    settings = {option.name for option in register_options()}
    known = {each.name for each in fields(Pair)} - {"settings"} | settings | {SPLIT}
    for number, row in enumerate(rows, start=1):
        problems = [f"the unknown column {column!r}" for column in row.keys() - known]
        problems += [f"no {side}" for side in SIDES if not row.get(side)]
        if problems:
            raise InputError(
                f"got pair {number} of {path} with {' and '.join(problems)}, expected the columns fixed and moving, "
                f"and perhaps name, {', '.join(FILES[2:])} or settings such as regularisation; correct it"
            )
        files = {name: _located(path.parent, str(row[name])) for name in FILES if row.get(name)}
        own = {name: _value(row[name]) for name in row.keys() & settings if row[name] not in ("", None)}
        yield Pair(name=str(row.get("name") or ""), settings=own, **files)


def _value(cell: Any) -> Any:
    return BOOLEANS.get(cell.lower(), cell) if isinstance(cell, str) else cell


@lru_cache(MOST_REMEMBERED)
def _located(folder: Path, cell: str) -> Path:
    return Path(os.path.normpath(os.path.join(folder, cell)))
