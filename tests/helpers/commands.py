"""The command `corereg`, run in this process or in one of its own."""

import subprocess
import sys
from collections.abc import Callable
from typing import NamedTuple


class Outcome(NamedTuple):
    status: int
    out: str
    err: str


Command = Callable[..., Outcome]


def process(*arguments: object, code: str | None = None) -> "subprocess.CompletedProcess[str]":
    """A process of its own: of the command, or of Python code."""
    start = [sys.executable, "-c", code or "from corereg.cli import main; main()"]
    return subprocess.run([*start, *map(str, arguments)], capture_output=True, text=True, encoding="utf-8", timeout=300)


def one_line(outcome: Outcome, status: int = 2) -> str:
    """The message of a refusal: the only line, without a traceback."""
    assert outcome.status == status, outcome
    assert outcome.out == ""
    assert len(outcome.err.strip().splitlines()) == 1, outcome.err
    assert outcome.err.startswith("corereg: ")
    return outcome.err
