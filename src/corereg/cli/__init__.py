"""The command `corereg`: parse, call one public function, print. A user's mistake gives one line and exit status 2."""

import atexit
import gc
import os
import sys
import warnings
from typing import Any

from corereg.cli import batch, calibrate, demo, evaluate, export, messages, register, reproduce, train, transforms
from corereg.cli.common import app
from corereg.cli.endings import check_current_folder, describe, write_any_character
from corereg.cli.evaluate import STDOUT

__all__ = [
    "app",
    "batch",
    "calibrate",
    "demo",
    "evaluate",
    "export",
    "main",
    "messages",
    "register",
    "reproduce",
    "run",
    "train",
    "transforms",
]

DEBUG_VARIABLE = "COREREG_DEBUG"

WAITING = "OMP_WAIT_POLICY", "PASSIVE"
"""How torch's threads wait for work, unless the environment says otherwise. By default they keep a core busy, which
the compiled kernels' threads and other programs then lack."""

COLLECT_AFTER = 10_000
"""New objects between two looks for garbage. Imports alone make 200,000 objects that stay, so that at Python's 700 the
looking takes 0.3 s."""


def main() -> None:
    """The command as a function. Errors are one line without a traceback."""
    gc.set_threshold(COLLECT_AFTER)
    messages.begin()
    warnings.showwarning = _print_warning
    write_any_character()
    os.environ.setdefault(*WAITING)  # read when torch is imported
    try:
        check_current_folder()
        app(with_stdout(sys.argv[1:]))
    except Exception as error:
        debug = messages.manner.debug or os.environ.get(DEBUG_VARIABLE, "0") not in ("", "0")
        line, status = describe(error, debug=debug)
        messages.log(f"corereg: {line}", always=True)
        sys.exit(status)


def run() -> None:
    """The command as a process, which it ends at once: Python takes 0.8 s to take torch apart object by object."""
    ended: list[int] = []
    atexit.register(_leave, ended)  # the first to be registered is the last to be called
    try:
        main()
        ended.append(0)
    except SystemExit as end:
        if isinstance(end.code, int | None):
            ended.append(end.code or 0)
        raise


def _leave(ended: list[int]) -> None:
    """End the process if the command has ended in a known way and what it wrote is out."""
    if ended:
        try:
            for stream in (sys.stdout, sys.stderr):
                if stream is not None:  # closed before the command began
                    stream.flush()
        except (OSError, ValueError):
            return  # Python reports it
        os._exit(ended[0])


def with_stdout(words: list[str]) -> list[str]:
    """`corereg evaluate ... --json` writes to stdout, as other commands do, though there it takes a file."""
    return [*words, str(STDOUT)] if words[:1] == ["evaluate"] and words[-1] == "--json" else words


def _print_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    messages.warn_once(str(message))
