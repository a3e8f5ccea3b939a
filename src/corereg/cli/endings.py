"""How a command ends early: by a signal, a user's mistake, the machine or a bug. One line and an exit status."""

import errno
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from corereg.errors import InputError, Interrupted

__all__ = [
    "BAD_VERDICT",
    "FAILURE",
    "USER_MISTAKE",
    "check_current_folder",
    "describe",
    "signals_raise",
    "stopped_by",
    "write_any_character",
]

FAILURE, USER_MISTAKE, BAD_VERDICT = 1, 2, 3

STOP_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")

REPEATED_WITHIN_S = 5.0
"""A signal that comes again so soon is the same request: `timeout` and terminals signal a process and its group."""

CURES = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some of your quota",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.EMFILE: "raise the limit with `ulimit -n`",
    errno.EROFS: "choose another place",
}


def describe(error: Exception, *, debug: bool) -> tuple[str, int]:
    """A line for the user, and the exit status. For debugging the traceback is printed first."""
    if debug:
        traceback.print_exception(error)
    if isinstance(error, InputError):
        return str(error), USER_MISTAKE
    if isinstance(error, OSError) and error.errno is not None:
        return _of_the_machine(error), USER_MISTAKE
    hint = "a bug in corereg: please report it, with what --debug prints"
    return f"{type(error).__name__}: {error} ({hint})", FAILURE


def _of_the_machine(error: OSError) -> str:
    named = f"got {error.filename}, which cannot be used" if error.filename else "the system refused a file"
    return f"{named} ({error.strerror}); {CURES.get(error.errno or 0, 'check its place and its permissions')}"


def check_current_folder() -> None:
    """Libraries that are imported later end the process without a word where there is none.

    Raises:
        InputError: it was removed.
    """
    try:
        os.getcwd()
    except OSError as error:
        raise InputError(f"the current folder cannot be used ({error.strerror}); change to another one") from None


@contextmanager
def signals_raise() -> Iterator[list[int]]:
    """While the block runs, the first signal that asks to stop raises KeyboardInterrupt, so that temporary files and
    child processes are cleaned up, and stands in the list. One more, later, ends the process at once.

    Outside the main thread no signal can be caught, and ignored ones (by `nohup`, or in the background) stay ignored.
    """
    received: list[int] = []
    since = 0.0

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal since
        if not received:
            since = time.monotonic()
            received.append(number)
            raise KeyboardInterrupt
        if time.monotonic() - since > REPEATED_WITHIN_S:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    if threading.current_thread() is not threading.main_thread():
        yield received
        return
    numbers = [getattr(signal, name) for name in STOP_SIGNALS if hasattr(signal, name)]
    caught = [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, stop) for number in caught}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def stopped_by(error: BaseException, received: list[int]) -> Interrupted | None:
    """The stop behind an exception, if there is one.

    In compiled code a KeyboardInterrupt becomes a SystemError, so that after a signal any exception counts.
    """
    if isinstance(error, Interrupted):
        return error
    if received:
        return Interrupted(received[0])
    return Interrupted(signal.SIGINT) if isinstance(error, KeyboardInterrupt) else None


def write_any_character() -> None:
    """Escape what the terminal's encoding lacks, and file names that are not UTF-8, instead of failing at them."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
