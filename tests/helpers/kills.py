"""The command `corereg`, killed at random moments.

A server imports the package once and forks a process for every run, so that kills hit the work and not the imports.
"""

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path

from corereg.io.places import STAGING

__all__ = ["killed", "run"]

PATIENCE_S = 300.0

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(
    [
        "corereg.cli",
        "corereg.workflows.register",
        "corereg.training.train",
        "corereg.evaluation.benchmark.run",
        "corereg.report.cohort",
        "matplotlib.backends.backend_svg",
        "SimpleITK",
        "numba",
        "corereg.geometry.kernels.chain",
        "corereg.geometry.kernels.sample",
        "corereg.io.transforms.apply",
        "corereg.io.transforms.convert",
    ]
)


def run(words: Sequence[object], log: Path) -> float:
    """Run the command to its end, which must be a success; return the seconds that it took."""
    started = time.monotonic()
    process = _start(words, log)
    process.join(PATIENCE_S)
    assert process.exitcode == 0, f"{process.exitcode}: {log.read_text('utf-8')}"
    return time.monotonic() - started


def killed(words: Sequence[object], seconds: float, log: Path, *, writing_into: Path | None = None) -> bool:
    """Start the command and kill it after a while; return whether it was still running.

    Args:
        writing_into: begin to count when the command stages files in this folder.
    """
    process = _start(words, log)
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


def _start(words: Sequence[object], log: Path) -> BaseProcess:
    process = _context.Process(target=_command, args=([str(word) for word in words], str(log)))
    process.start()
    return process


def _command(words: list[str], log: str) -> None:
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    from corereg.cli import main

    sys.argv = ["corereg", *words]
    main()
