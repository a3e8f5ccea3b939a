"""What a command says: its result on stdout, everything else on stderr, and all of it in the log file."""

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from corereg.errors import InputError
from corereg.progress import Meter, Occasionally, Progress, Step, ignore, reporting

__all__ = ["Manner", "begin", "choose", "elapsed", "log", "manner", "progress_bar", "show", "show_result", "warn_once"]

BAR_WIDTH = 24

BEGINNING = 4096
"""Bytes of a file in which a 0 shows that it is no text."""

TABLES = (".csv", ".tsv", ".json", ".jsonl", ".fcsv", ".tfm")
"""Endings of texts that are no logs."""


@dataclass(slots=True)
class Manner:
    """How much a command says, and where."""

    quiet: bool = False
    verbose: bool = False
    debug: bool = False
    json: bool = False
    log_file: Path | None = None
    started: float = 0.0
    warned: set[str] = field(default_factory=set)
    """Texts of the warnings that the command has shown."""


manner = Manner()
"""The manner of the command that runs."""


def begin() -> None:
    """A command begins: forget the manner of the one before."""
    fresh = Manner(started=time.monotonic())
    for name in Manner.__slots__:
        setattr(manner, name, getattr(fresh, name))


def choose(**options: Any) -> None:
    """Take the options that were given, before or after the name of the command.

    Raises:
        InputError: the log file cannot be written.
    """
    for name, value in options.items():
        if value:
            setattr(manner, name, value)
    if options.get("log_file"):
        try:
            _check_text(options["log_file"])
            _record("started")
        except OSError as error:
            manner.log_file = None
            raise InputError(
                f"got the log file {options['log_file']}, which cannot be written ({error.strerror}); choose another"
            ) from None


def _check_text(path: Path) -> None:
    """Check that a file that is to be appended to is no image, transform or table.

    Raises:
        InputError: it is.
    """
    if not path.is_file():
        return
    with path.open("rb") as file:
        if b"\0" in file.read(BEGINNING) or path.suffix.lower() in TABLES:
            manner.log_file = None
            raise InputError(f"got the log file {path}, which holds something else, expected a text; choose another")


def elapsed() -> float:
    """Seconds since the command began."""
    return time.monotonic() - manner.started


def log(text: str, *, always: bool = False) -> None:
    """Write one line to stderr; with --quiet only what must always be said: warnings and errors."""
    line = " ".join(text.split())
    _record(line)
    if always or not manner.quiet:
        print(line, file=sys.stderr, flush=True)


def warn_once(text: str) -> None:
    """Show a warning, unless the command has shown the same before: it may read a file more than once."""
    if text not in manner.warned:
        manner.warned.add(text)
        log(f"corereg: warning: {text}", always=True)


def show(result: Any) -> None:
    """Print what people are to read of the result: a text or a table of rich. Nothing with --quiet or --json."""
    if isinstance(result, str):
        _record(result)
    if manner.quiet or manner.json:
        return
    if isinstance(result, str):
        print(result)
        return
    from rich.console import Console

    console = Console()
    # As wide as the terminal; in a file or a pipe as wide as it needs to be.
    (console if console.is_terminal else Console(width=200)).print(result)


def show_result(content: Mapping[str, Any] | Callable[[], Mapping[str, Any]]) -> None:
    """With --json, print the result as one JSON object, the only thing on stdout."""
    if manner.json:
        from corereg.io.json_files import finite

        found = content() if callable(content) else content
        print(json.dumps(finite(found), indent=1, allow_nan=False, default=str))


@contextmanager
def progress_bar(*, lines: bool = True, inner: bool = False) -> Iterator[Progress]:
    """A bar with the current stage, its percentage and the time left; without a terminal a line every 30 seconds.

    Args:
        lines: whether to write lines without a terminal; training writes its own.
        inner: whether to show the steps of the optimisation too.
    """
    with _shown(lines) as progress, reporting(progress if inner else ignore):
        yield progress


@contextmanager
def _shown(lines: bool) -> Iterator[Progress]:
    if manner.verbose:
        yield _Stages()
        return
    from rich.console import Console

    console = Console(stderr=True)
    if manner.quiet or not console.is_terminal:
        yield Occasionally(lambda line: log(f"corereg: {line}")) if lines else ignore
        return
    from rich import progress
    from rich.table import Column

    stage = progress.TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True, ratio=1))
    left = progress.TextColumn("{task.fields[left]}")
    columns = stage, progress.BarColumn(BAR_WIDTH), progress.TaskProgressColumn(), left
    with progress.Progress(*columns, console=console, transient=True) as bar:
        task, meter = bar.add_task("starting", total=None, left=""), Meter()

        def show_stage(text: str) -> None:
            step = text if isinstance(text, Step) else Step(text, 0, 0)
            bar.tasks[task].total = step.total or None  # update() takes None for no change
            bar.update(task, description=text, completed=step.done, left=meter.left(step) if step.total else "")

        yield show_stage


class _Stages:
    """A progress that writes every stage, with the time at which it begins, and steps now and then."""

    def __init__(self) -> None:
        self.occasionally = Occasionally(self._write, first_s=0.0)
        self.total, self.last = 0, ""

    def __call__(self, text: str) -> None:
        if text == self.last:
            return
        self.last = text
        if isinstance(text, Step) and text.done and text.total == self.total:
            self.occasionally(text)
            return
        self.total = text.total if isinstance(text, Step) else 0
        self._write(text)

    def _write(self, text: str) -> None:
        log(f"corereg: {elapsed():.1f} s: {text}")


def _record(line: str) -> None:
    if manner.log_file is None:
        return
    with manner.log_file.open("a", encoding="utf-8", errors="backslashreplace") as file:
        file.write(f"{time.strftime('%Y-%m-%dT%H:%M:%S')} {line}\n")
