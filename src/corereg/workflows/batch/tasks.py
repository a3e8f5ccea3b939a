"""Pairs as tasks for a team of workers: which comes next, which is tried again, and what is cleared away.

Upstream: `run`. Downstream: a team: `processes` of this machine, or `actors` of a Ray cluster.
"""

import shutil
from collections.abc import Generator, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from corereg.errors import InputError
from corereg.io.atomic import STAGING, settle
from corereg.workflows.batch.pairs import Pair
from corereg.workflows.batch.rows import OK, Row

__all__ = ["DIED", "FAILED", "TIMED_OUT", "Crew", "Outcome", "Task", "Team", "run_tasks"]

FAILED, TIMED_OUT, DIED = "failed", "timed out", "worker died"

MOST_LOST = 5
"""Machines that a pair may lose without blame; it may be what brings them down."""


@dataclass(frozen=True, slots=True)
class Task:
    """A pair to register into a folder."""

    pair: Pair
    folder: Path
    attempt: int = 1
    lost: int = 0
    """Earlier attempts that ended with their machine."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a task."""

    row: Row
    again: bool = False
    """Whether another attempt may succeed."""
    lost: bool = False
    """Whether it ended with its machine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Crew:
    """How pairs are registered."""

    method: str
    """"module:function", called with a `Pair`, its folder and `options`; returns the measures of its row."""
    options: Mapping[str, Any]
    """Among them `threads`, those of each worker."""
    retries: int = 1
    """Further attempts after a failure, unless the input was refused."""
    time_limit_s: float | None = None
    """Seconds for an attempt, after which the worker is killed."""


@runtime_checkable
class Team(Protocol):
    """Workers, each with one task at a time, so that no more pairs are in flight than there are workers."""

    def has_room(self) -> bool:
        """Whether a worker is free."""

    def begin(self, task: Task) -> None:
        """Give a task to a free worker."""

    def running(self) -> list[Task]:
        """The tasks that workers have."""

    def outcomes(self) -> Iterable[tuple[Task, Outcome]]:
        """Wait until something happens, and give the tasks that ended: none if a worker has become free otherwise."""

    def kill(self) -> None:
        """End all workers."""


def run_tasks(tasks: Iterable[Task], team: Team, *, retries: int) -> Generator[tuple[Task, Row], None, None]:
    """Run tasks, and give the row of each as it ends. When closed, all workers are ended.

    Raises:
        InputError: workers cannot be started.
    """
    upcoming = iter(tasks)
    repeated: list[Task] = []
    waiting = next(upcoming, None)
    try:
        while waiting or team.running():
            while waiting and team.has_room():
                team.begin(waiting)
                waiting = repeated.pop() if repeated else next(upcoming, None)
            for task, outcome in team.outcomes():
                lost = task.lost + outcome.lost
                if outcome.again and task.attempt <= retries + min(lost, MOST_LOST):
                    repeated.append(replace(task, attempt=task.attempt + 1, lost=lost))
                    continue
                if outcome.row["status"] != OK:
                    _clear(task.folder)
                yield task, outcome.row
            if waiting is None and repeated:
                waiting = repeated.pop()
    finally:
        interrupted = team.running()
        team.kill()
        for task in interrupted:
            _clear(task.folder)


def _clear(folder: Path) -> None:
    """Remove what a killed worker left in a pair's folder, and the folder if nothing else is in it.

    Locks are not asked: on another machine, the worker may take a moment to end.
    """
    with suppress(OSError, InputError):
        settle(folder)
        for abandoned in folder.glob(f"{STAGING}*"):
            shutil.rmtree(abandoned, ignore_errors=True)
        folder.rmdir()
