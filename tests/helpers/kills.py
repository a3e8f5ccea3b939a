"""The command `corereg`, killed at random moments."""

import signal
import time
from collections.abc import Sequence
from pathlib import Path

from corereg.io.places import STAGING
from helpers.forks import PATIENCE_S, start

__all__ = ["killed", "run"]


def run(words: Sequence[object], log: Path) -> float:
    """Run the command to its end, which must be a success; return the seconds that it took."""
    started = time.monotonic()
    process = start(words, log, log)
    process.join(PATIENCE_S)
    assert process.exitcode == 0, f"{process.exitcode}: {log.read_text('utf-8')}"
    return time.monotonic() - started


def killed(words: Sequence[object], seconds: float, log: Path, *, writing_into: Path | None = None) -> bool:
    """Start the command and kill it after a while; return whether it was still running.

    Args:
        writing_into: begin to count when the command stages files in this folder.
    """
    process = start(words, log, log)
    while writing_into is not None and process.exitcode is None and not _stages_files(writing_into):
        time.sleep(0.001)
    process.join(seconds)
    process.kill()
    process.join(PATIENCE_S)
    assert process.exitcode in (0, -signal.SIGKILL), f"{process.exitcode}: {log.read_text('utf-8')}"
    return process.exitcode != 0


def _stages_files(folder: Path) -> bool:
    try:
        return any(folder.glob(f"{STAGING}*/*"))
    except FileNotFoundError:  # moved or removed meanwhile
        return False
