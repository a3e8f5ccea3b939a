"""The command `corereg` in processes of its own that start at once.

A server imports the package once and forks a process for every command, so that a test neither waits for the imports
nor, if it kills the command, hits them.
"""

import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path

__all__ = ["forked", "start", "stopped"]

PATIENCE_S = 300.0

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(
    [
        "corereg.cli",
        "corereg.workflows.register",
        "corereg.workflows.batch.run",
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

Words = Sequence[object]
Before = Callable[[], object]


def forked(*words: object, before: Before | None = None) -> "subprocess.CompletedProcess[str]":
    """Run the command to its end. Its output and errors are decoded as the names of files are.

    Args:
        before: a function of a module, which the process calls first.
    """
    with tempfile.TemporaryDirectory() as folder:
        out, errors = Path(folder) / "out", Path(folder) / "errors"
        process = start(words, out, errors, before=before)
        process.join(PATIENCE_S)
        assert process.exitcode is not None, f"still runs: {errors.read_text('utf-8')}"
        return subprocess.CompletedProcess(words, process.exitcode, *map(_decoded, (out, errors)))


def stopped(
    words: Words, when: Callable[[], bool], *numbers: int, delay_s: float = 0.0, before: Before | None = None
) -> "subprocess.CompletedProcess[str]":
    """Start the command, send the signals a while after the condition first holds, and wait for the end."""
    with tempfile.TemporaryDirectory() as folder:
        out, errors = Path(folder) / "out", Path(folder) / "errors"
        process = start(words, out, errors, before=before)
        end = time.monotonic() + PATIENCE_S
        while not when():
            assert process.exitcode is None, _decoded(errors)
            assert time.monotonic() < end
            time.sleep(0.02)
        time.sleep(delay_s)
        for number in numbers:
            os.kill(process.pid or 0, number)
        process.join(PATIENCE_S)
        assert process.exitcode is not None, f"still runs: {_decoded(errors)}"
        return subprocess.CompletedProcess(list(words), process.exitcode, *map(_decoded, (out, errors)))


def start(words: Words, out: Path, errors: Path, *, before: Before | None = None) -> BaseProcess:
    """Start the command here and now; it writes its output and errors into files, which may be the same."""
    arguments = [os.fsdecode(word) if isinstance(word, bytes) else str(word) for word in words]
    environment = dict(os.environ)
    process = _context.Process(
        target=_command, args=(arguments, str(out), str(errors), os.getcwd(), environment, before)
    )
    process.start()
    return process


def _decoded(path: Path) -> str:
    return os.fsdecode(path.read_bytes()) if path.exists() else ""


def _command(
    words: list[str], out: str, errors: str, folder: str, environment: dict[str, str], before: Before | None
) -> None:
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for stream, path in ((1, out), (2, errors)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND), stream)
    if before is not None:
        before()
    from corereg.cli import main

    sys.argv = ["corereg", *words]
    main()
