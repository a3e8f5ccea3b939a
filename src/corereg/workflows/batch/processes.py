"""Processes that live on and register one pair after another, so that imports and compilation are paid once.

A worker is never asked to stop: it is killed, which leaves nothing half-written, because a pair's folder is published
as a whole and the rest is cleared away here. Upstream: `run`. Downstream: `register_pair`, or another method by name.
"""

import multiprocessing
import os
import pkgutil
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import ModuleType
from typing import Any

from corereg.errors import InputError
from corereg.evaluation.benchmark.peers.running import THREAD_VARIABLES, exit_words
from corereg.io.atomic import staging
from corereg.workflows.batch.pairs import Pair
from corereg.workflows.batch.rows import OK, Row

__all__ = ["Crew", "Task", "run_tasks", "running", "serve"]

SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")
READY = None
"""The first message of a worker, when everything is imported."""

FAILED, TIMED_OUT, DIED = "failed", "timed out", "worker died"


@dataclass(frozen=True, slots=True)
class Task:
    """A pair to register into a folder."""

    pair: Pair
    folder: Path
    attempt: int = 1


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a task."""

    row: Row
    again: bool = False
    """Whether another attempt may succeed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Crew:
    """How pairs are registered."""

    method: str
    """"module:function", called with a `Pair`, its folder and `options`; returns the measures of its row."""
    options: Mapping[str, Any]
    """Among them `threads`, those of each worker."""
    jobs: int = 1
    retries: int = 1
    """Further attempts after a failure, unless the input was refused."""
    time_limit_s: float | None = None
    """Seconds for an attempt, after which the worker is killed."""


def run_tasks(tasks: Iterable[Task], crew: Crew) -> Generator[tuple[Task, Row], None, None]:
    """Run tasks on workers, and give the row of each as it ends. When closed, all workers are ended.

    Raises:
        InputError: workers cannot be started.
    """
    upcoming = iter(tasks)
    retried: list[Task] = []
    workers = [_Worker(crew) for _ in range(crew.jobs)]
    try:
        while True:
            for worker in workers:
                task = None if worker.task else (retried.pop() if retried else next(upcoming, None))
                if task is not None:
                    worker.begin(task)
            busy = [worker for worker in workers if worker.task]
            if not busy:
                return
            for worker, outcome in _next_outcomes(busy):
                task = worker.task
                assert task is not None
                worker.task = None
                if outcome.again and task.attempt <= crew.retries:
                    retried.append(replace(task, attempt=task.attempt + 1))
                    continue
                if outcome.row["status"] != OK:
                    _clear(task.folder)
                yield task, outcome.row
    finally:
        for worker in workers:
            worker.kill()
            if worker.task:
                _clear(worker.task.folder)


@contextmanager
def running(function: str, *arguments: object) -> Iterator[BaseProcess]:
    """Call "module:function" in a new process, which is killed when the block ends, if it has not ended.

    Ctrl-C, which a terminal sends to all its processes, does not reach it.
    """
    process = multiprocessing.get_context("spawn").Process(target=_call, args=(function, *arguments), daemon=True)
    main, numbers = sys.modules["__main__"], _numbers(*SIGNALS)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers) if numbers else set()
    # The process would import the script that called us, and run it once more unless it guards against that.
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        process.start()
        sys.modules["__main__"] = main
        if numbers:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        yield process
    finally:
        sys.modules["__main__"] = main
        if numbers:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        if process.pid is not None:
            process.kill()
            process.join()


class _Worker:
    """A process, started for its first task and again after it died."""

    def __init__(self, crew: Crew) -> None:
        self.task: Task | None = None
        self._crew = crew
        self._held = ExitStack()
        self._process: BaseProcess | None = None
        self._ready = False
        self._began = 0.0
        self.connection: Connection

    def begin(self, task: Task) -> None:
        if self._process is None or not self._process.is_alive():
            self._start()
        self.task = task
        self._began = time.monotonic()
        with suppress(OSError):  # it died just now: `outcome` will find out
            self.connection.send((task.pair, task.folder))

    def seconds_left(self) -> float | None:
        limit = self._crew.time_limit_s
        return None if limit is None or not self._ready else max(0.0, self._began + limit - time.monotonic())

    def outcome(self) -> Outcome | None:
        """What the worker has to say; None if it has become ready."""
        try:
            message = self.connection.recv()
        except (EOFError, OSError):
            return self._death()
        if message is READY:
            self._ready, self._began = True, time.monotonic()
            return None
        row, again = message
        return Outcome(row, again)

    def time_out(self) -> Outcome:
        self.kill()
        return self._failure(TIMED_OUT, f"ended after {self._crew.time_limit_s:g} s")

    def kill(self) -> None:
        self._held.close()
        self._process = None

    def _start(self) -> None:
        self.kill()
        self._ready = False
        self.connection, theirs = multiprocessing.Pipe()
        self._held.callback(self.connection.close)
        arguments = (theirs, self._crew.method, dict(self._crew.options))
        with theirs:
            self._process = self._held.enter_context(running(f"{__name__}:serve", *arguments))

    def _death(self) -> Outcome:
        assert self._process is not None
        self._process.join()
        code = self._process.exitcode or 0
        self.kill()
        if not self._ready and code > 0:
            raise InputError(
                f"a worker ended with {exit_words(code)} before its first pair, expected it to start; see its output"
            )
        return self._failure(DIED, f"the worker ended with {exit_words(code)}; it may have run out of memory")

    def _failure(self, status: str, words: str) -> Outcome:
        return Outcome({"status": status, "seconds": time.monotonic() - self._began, "error": words}, again=True)


def _next_outcomes(busy: list[_Worker]) -> Iterator[tuple[_Worker, Outcome]]:
    """Wait for at least one worker to say something or to run out of time."""
    limits = [seconds for worker in busy if (seconds := worker.seconds_left()) is not None]
    ready = wait([worker.connection for worker in busy], min(limits, default=None))
    for worker in busy:
        if worker.connection in ready:
            outcome = worker.outcome()
        else:
            outcome = worker.time_out() if worker.seconds_left() == 0 else None
        if outcome is not None:
            yield worker, outcome


def _clear(folder: Path) -> None:
    """Remove what a killed worker left in a pair's folder, and the folder if nothing else is in it."""
    with suppress(OSError, InputError):
        with staging(folder):
            pass
        folder.rmdir()


def serve(connection: Connection, method: str, options: Mapping[str, Any]) -> None:
    """What a worker does: run tasks until the driver ends."""
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, str(options["threads"])))  # before torch is imported
    function = pkgutil.resolve_name(method)
    with suppress(EOFError, OSError):  # the driver has ended
        connection.send(READY)
        while True:
            pair, folder = connection.recv()
            connection.send(_attempt(partial(function, pair, folder, **options)))


def _call(function: str, *arguments: object) -> None:
    if numbers := _numbers("SIGTERM"):  # Python ends what is left of its children by that
        signal.pthread_sigmask(signal.SIG_UNBLOCK, numbers)
    threading.Thread(target=_end_with_driver, daemon=True).start()
    pkgutil.resolve_name(function)(*arguments)


def _end_with_driver() -> None:
    driver = multiprocessing.parent_process()
    if driver is not None:
        driver.join()
        os._exit(1)


def _numbers(*names: str) -> set[int]:
    """Numbers of signals; none where they cannot be blocked."""
    return {getattr(signal, name) for name in names} if hasattr(signal, "pthread_sigmask") else set()


def _attempt(register: Callable[[], Mapping[str, Any]]) -> tuple[Row, bool]:
    """The row of an attempt, and whether another may succeed. Failures are reported in the row."""
    started = time.monotonic()
    row: Row = {"status": OK, "seconds": 0.0}
    again = False
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", UserWarning)
        try:
            row |= register()
        except InputError as error:
            row |= {"status": FAILED, "error": str(error)}
        except Exception as error:
            row |= {"status": FAILED, "error": " ".join(f"{type(error).__name__}: {error}".split())}
            again = True
    row["seconds"] = time.monotonic() - started
    if caught:
        row["warnings"] = [str(warning.message) for warning in caught]
    return row, again
