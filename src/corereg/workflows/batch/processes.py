"""Processes that live on and register one pair after another, so that imports and compilation are paid once.

A worker is never asked to stop: it is killed, which leaves nothing half-written, because a pair's folder is published
as a whole and the rest is cleared away. Upstream: `tasks`. Downstream: `attempt`.
"""

import multiprocessing
import os
import pkgutil
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from types import ModuleType
from typing import Any

from corereg.errors import InputError
from corereg.evaluation.benchmark.peers.running import exit_words
from corereg.workflows.batch.attempt import prepared
from corereg.workflows.batch.tasks import DIED, TIMED_OUT, Crew, Outcome, Task

__all__ = ["ProcessTeam", "running", "serve"]

SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")
READY = None
"""The first message of a worker, when everything is imported."""


class ProcessTeam:
    """Workers of this machine, started when they get their first task."""

    def __init__(self, crew: Crew, jobs: int) -> None:
        self._workers = [_Worker(crew) for _ in range(jobs)]

    def has_room(self) -> bool:
        """Whether a worker is free."""
        return any(worker.task is None for worker in self._workers)

    def begin(self, task: Task) -> None:
        """Give a task to a free worker."""
        next(worker for worker in self._workers if worker.task is None).begin(task)

    def running(self) -> list[Task]:
        """The tasks that workers have."""
        return [worker.task for worker in self._workers if worker.task]

    def outcomes(self) -> Iterator[tuple[Task, Outcome]]:
        """Wait for at least one worker to say something or to run out of time, and give the tasks that ended."""
        busy = [worker for worker in self._workers if worker.task]
        limits = [seconds for worker in busy if (seconds := worker.seconds_left()) is not None]
        ready = wait([worker.connection for worker in busy], min(limits, default=None))
        for worker in busy:
            if worker.connection in ready:
                outcome = worker.outcome()
            else:
                outcome = worker.time_out() if worker.seconds_left() == 0 else None
            if outcome is not None and worker.task:
                task, worker.task = worker.task, None
                yield task, outcome

    def kill(self) -> None:
        """End all workers."""
        for worker in self._workers:
            worker.kill()
            worker.task = None


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


def serve(connection: Connection, method: str, options: Mapping[str, Any]) -> None:
    """What a worker does: run tasks until the driver ends."""
    attempt = prepared(method, options)
    with suppress(EOFError, OSError):  # the driver has ended
        connection.send(READY)
        while True:
            connection.send(attempt(*connection.recv()))


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
