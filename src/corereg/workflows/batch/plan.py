"""What a batch will do, checked before its first pair: names, files, settings, and the share of this shard.

Upstream: `pairs`. Downstream: `run`.
"""

import json
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from corereg.data.layouts.learn2reg import FORMS, NAME
from corereg.data.pairs import read_dataset
from corereg.errors import InputError
from corereg.method.config import RegisterConfig, with_register_options
from corereg.workflows.batch.pairs import Pair, Source
from corereg.workflows.outputs import OUTPUTS

__all__ = ["Contents", "Shard", "check_names", "check_pairs", "check_submission"]

OWN_NAME = re.compile(
    r"rows(-\d+-of-\d+)?\.(jsonl|csv|parquet)|report\.html|batch\.json|submission|bids", re.IGNORECASE
)
"""Names in the folder of a batch that are no pair's."""

FOLDER_NAME = re.compile(r"[^./\\\0][^/\\\0]*")

MOST_REMEMBERED = 4096
"""Scans and settings whose check is not repeated: they often are in many pairs."""

MOST_NAMED = 20
"""Missing files that a message names; the others are counted."""

SHOWN = 80
"""Characters of a name that messages quote."""

LONGEST_NAME = 255
"""Bytes of a folder's name that file systems allow."""


@dataclass(frozen=True, slots=True)
class Shard:
    """Every n-th pair, beginning with the i-th."""

    number: int = 1
    of: int = 1

    @classmethod
    def parse(cls, text: str | None) -> "Shard":
        """Read "i/n"; None stands for all pairs.

        Raises:
            InputError: not of that form, or i is not one of 1 to n.
        """
        found = re.fullmatch(r"([1-9]\d*)/([1-9]\d*)", "1/1" if text is None else text)
        number, of = map(int, found.groups()) if found else (0, 0)
        if not 1 <= number <= of:
            raise InputError(f"got the shard {text!r}, expected i/n with i from 1 to n, such as 3/8; correct it")
        return cls(number, of)

    def holds(self, index: int) -> bool:
        """Whether the pair of this index, counted from 0, belongs to the shard."""
        return index % self.of == self.number - 1

    @property
    def rows(self) -> str:
        """Name of the shard's file of rows."""
        return "rows.jsonl" if self.of == 1 else f"rows-{self.number}-of-{self.of}.jsonl"


@dataclass(frozen=True, slots=True)
class Contents:
    """Which pairs there are: hashes of their names and keys, since there may be millions."""

    names: set[int] = field(default_factory=set)
    """Without regard to case, which some file systems do not tell."""
    keys: set[int] = field(default_factory=set)
    own: set[int] = field(default_factory=set)
    """Keys of this shard."""

    def replaces(self, row: Mapping[str, Any]) -> bool:
        """Whether a pair with other files or settings has taken the name of a row."""
        return hash(row["name"].casefold()) in self.names and hash(row["key"]) not in self.keys


def check_pairs(source: Source, shard: Shard, settings: Mapping[str, Any], *, partial: bool) -> Contents:
    """Go through all pairs once.

    Args:
        settings: those of the batch, on top of which those of each pair must be valid.
        partial: do not look for missing files: their pairs will fail.

    Raises:
        InputError: there are no pairs, two have one name, a name cannot be a folder's, a setting is invalid, or files
            are missing: all of them are reported together.
    """
    found = Contents()
    missing = _Missing()
    problem_of_settings = _settings_check(settings)
    for number, pair in enumerate(source(), start=1):
        name, key = hash(pair.name.casefold()), hash(pair.key())
        if not FOLDER_NAME.fullmatch(pair.name) or len(os.fsencode(pair.name)) > LONGEST_NAME:
            problem = "no folder can have this name; give it another in the column `name`"
        elif name in found.names:
            problem = "an earlier pair has this name, expected one of its own; add a column `name`"
        elif OWN_NAME.fullmatch(pair.name):
            problem = "the batch keeps files of its own under this name; give the pair another in the column `name`"
        else:
            problem = problem_of_settings(json.dumps(dict(pair.settings), default=str)) if pair.settings else ""
        if problem:
            raise InputError(f"pair {number}, {pair.name[:SHOWN]!r}: {problem}")
        found.names.add(name)
        found.keys.add(key)
        if shard.holds(number - 1):
            found.own.add(key)
            if not partial:
                missing.look_for(pair, number)
    if not found.names:
        raise InputError("got no pairs, expected at least one; check the list")
    missing.refuse()
    return found


def check_names(keep: str | Iterable[str]) -> tuple[str, ...]:
    """The outputs to keep, in their order.

    Raises:
        InputError: one is unknown.
    """
    names = [name.strip() for name in keep.split(",")] if isinstance(keep, str) else list(keep)
    unknown = [name for name in names if name and name not in OUTPUTS]
    if unknown:
        raise InputError(f"got {unknown[0]!r} to keep, expected some of {','.join(OUTPUTS)}; correct it")
    return tuple(name for name in OUTPUTS if name in names)


def check_submission(
    pairs: object, form: str, split: str | None, shard: Shard, kept: Iterable[str]
) -> tuple[Path, str]:
    """The data set whose fields are to be submitted, and their split: by default "test" if it has test pairs.

    Raises:
        InputError: it is no Learn2Reg data set, the form is unknown, or not all of its fields will be there.
    """
    if form not in FORMS:
        raise InputError(f"got --submission {form}, expected {' or '.join(FORMS)}; choose one")
    path = Path(pairs) if isinstance(pairs, str | os.PathLike) else Path("a list")
    dataset = read_dataset(path) if path.is_dir() or path.suffix.lower() == ".json" else None
    if dataset is None or dataset.layout != "learn2reg":
        raise InputError(f"got --submission for {pairs}, expected a Learn2Reg data set; leave --submission out")
    if "transform" not in kept or shard.of > 1:
        cure = "leave --shard out, once all shards are done" if shard.of > 1 else "add transform to --keep"
        raise InputError(f"got --submission without all transforms, expected those of all pairs in one run; {cure}")
    split = split or ("test" if dataset.test else "validation")
    listed = {scan for pair in (dataset.test if split == "test" else dataset.validation) for scan in pair}
    names = [dataset.scans[scan].name for scan in sorted(listed)]
    unnamed = next((name for name in names if not NAME.fullmatch(name)), None)
    if unnamed or not names:
        found = f"the scan {unnamed}" if unnamed else f"no {split} pairs"
        raise InputError(
            f"got --submission for a data set with {found}, expected pairs of scans named <task>_<case>_<modality>, "
            "with four digits for case and modality; rename the scans"
        )
    return path, split


class _Missing:
    """Files that do not exist: some by name, all by number."""

    def __init__(self) -> None:
        self._exists = lru_cache(MOST_REMEMBERED)(os.path.exists)
        self._named: list[str] = []
        self._count = 0

    def look_for(self, pair: Pair, number: int) -> None:
        for path in pair.files().values():
            if not self._exists(str(path)):
                self._count += 1
                if len(self._named) < MOST_NAMED:
                    self._named.append(f"{path} (pair {number})")

    def refuse(self) -> None:
        if self._count:
            more = f" and {self._count - MOST_NAMED} more" if self._count > MOST_NAMED else ""
            raise InputError(
                f"{self._count} files do not exist: {', '.join(self._named)}{more}; add them, or use --partial to "
                "register the other pairs"
            )


def _settings_check(settings: Mapping[str, Any]) -> Callable[[str], str]:
    """A function that finds the problem of a pair's settings, given as JSON, on top of others; "" if there is none."""

    @lru_cache(MOST_REMEMBERED)
    def problem(text: str) -> str:
        try:
            with_register_options(RegisterConfig(), {**settings, **json.loads(text)})
        except InputError as error:
            return str(error)
        return ""

    return problem
