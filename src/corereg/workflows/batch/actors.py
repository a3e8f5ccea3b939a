"""Workers on a Ray cluster: actors that live on, each on a node that has the cores, memory and share of a GPU for it.

A killed or lost actor is replaced, wherever the cluster has room. The same version of the package must be installed on
all nodes, and the scans and the output folder must have the same paths there. Upstream: `tasks`. Downstream: `attempt`.
"""

import logging
import os
import signal
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from corereg.errors import InputError
from corereg.lazy import ray
from corereg.provenance import usable_cores
from corereg.workflows.batch.attempt import prepared
from corereg.workflows.batch.pairs import Pair
from corereg.workflows.batch.rows import Row
from corereg.workflows.batch.tasks import DIED, FAILED, TIMED_OUT, Crew, Outcome, Task

__all__ = ["ActorTeam", "Cluster", "connected"]

LOCAL, LOOPBACK = "local", "127.0.0.1"
CLIENT = "ray://"
PATIENCE_S = 10.0
BYTES_PER_GB = 10**9

QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # `_Actor.prepare` hides the GPUs
}

MOST_FAILED_STARTS = 5
"""Actors that may end one after the other before their first pair."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """Which Ray cluster, and what each worker takes of it."""

    address: str
    """HOST:PORT of its head node, `auto` for the cluster of this machine, `local` for one that ends with the batch."""
    cores: int = 1
    gpus: float = 0.0
    """GPUs of each worker: 0.25 puts four on one. Without, they compute on the CPU."""
    memory_gb: float | None = None
    """Memory that each worker reserves in GB (10^9 bytes), so that nodes are not given more workers than they hold."""

    @property
    def needs(self) -> dict[str, float]:
        """Ray's names of resources -> amount for each worker."""
        found = {"CPU": float(self.cores), "GPU": self.gpus, "memory": (self.memory_gb or 0) * BYTES_PER_GB}
        return {name: amount for name, amount in found.items() if amount}


@contextmanager
def connected(cluster: Cluster) -> Iterator[None]:
    """Be a driver of the cluster while the block runs, unless this process is one already.

    Raises:
        InputError: Ray is not installed, no cluster answers, or none of its nodes has what a worker needs.
    """
    library = ray()
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    if library.is_initialized():
        _workers_that_fit(cluster)
        yield
        return
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if cluster.address == LOCAL:
        options |= {"num_cpus": usable_cores(), "include_dashboard": False, "_node_ip_address": LOOPBACK}
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        _knock(cluster.address)
        library.init(address=cluster.address, **options)
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(
            f"got --ray {cluster.address}, where no Ray cluster answers ({reason}); start one with `ray start --head`, "
            "or use --ray local"
        ) from None
    for number, handler in handlers.items():
        if signal.getsignal(number) is not handler:
            signal.signal(number, handler)  # Ray's own would end the driver before its workers
    try:
        _workers_that_fit(cluster)
        yield
    finally:
        library.shutdown()


def _knock(address: str) -> None:
    """Ray itself waits for minutes where nothing listens."""
    host, colon, port = address.removeprefix(CLIENT).rpartition(":")
    if colon:
        socket.create_connection((host.strip("[]"), int(port)), timeout=PATIENCE_S).close()


def _workers_that_fit(cluster: Cluster) -> int:
    nodes = [node["Resources"] for node in ray().nodes() if node["Alive"]]
    count = sum(int(min(node.get(name, 0) / amount for name, amount in cluster.needs.items())) for node in nodes)
    if not count:
        wanted = ", ".join(f"{amount:g} {name}" for name, amount in cluster.needs.items())
        raise InputError(
            f"got workers that need {wanted}, expected at least one of the cluster's {len(nodes)} nodes to have that; "
            "reduce --threads, --ray-gpus or --ray-memory"
        )
    return count


class _Actor:
    """A worker process on some node."""

    def prepare(self, method: str, options: Mapping[str, Any], *, gpus: float) -> str:
        """Import what is needed, once; return the node's id."""
        if not gpus:
            os.environ["CUDA_VISIBLE_DEVICES"] = ""
        self._attempt = prepared(method, options)
        return str(ray().get_runtime_context().get_node_id())

    def attempt(self, pair: Pair, folder: Path) -> tuple[Row, bool]:
        """Register a pair."""
        return self._attempt(pair, folder)


@dataclass(slots=True)
class _Worker:
    """An actor as the driver sees it."""

    actor: Any
    reply: Any
    """What is waited for: of `prepare`, or of the task; None if the actor is free."""
    node: str = ""
    """Its node; not known before it is prepared."""
    task: Task | None = None
    began: float = 0.0


class ActorTeam:
    """Workers of a cluster, requested at once; each gets its first task when it has been placed and is prepared."""

    def __init__(self, crew: Crew, cluster: Cluster, jobs: int | None) -> None:
        """`jobs`: number of workers; None: as many as the cluster has room for."""
        self._crew, self._cluster = crew, cluster
        self._jobs = jobs or _workers_that_fit(cluster)
        self._workers: list[_Worker] = []
        self._failed_starts = 0
        memory = {"memory": int(cluster.needs["memory"])} if cluster.memory_gb else {}
        self._new = ray().remote(num_cpus=cluster.cores, num_gpus=cluster.gpus, max_restarts=0, **memory)(_Actor).remote

    def has_room(self) -> bool:
        """Whether a worker is free."""
        return any(worker.reply is None for worker in self._workers)

    def begin(self, task: Task) -> None:
        """Give a task to a free worker."""
        worker = next(worker for worker in self._workers if worker.reply is None)
        worker.task, worker.began = task, time.monotonic()
        worker.reply = worker.actor.attempt.remote(task.pair, task.folder)

    def running(self) -> list[Task]:
        """The tasks that workers have."""
        return [worker.task for worker in self._workers if worker.task]

    def outcomes(self) -> Iterator[tuple[Task, Outcome]]:
        """Wait until an actor is prepared, ends its task, is lost or runs out of time; give the tasks that ended."""
        while len(self._workers) < self._jobs:
            self._workers.append(self._start())
        waiting = {worker.reply: worker for worker in self._workers if worker.reply is not None}
        ready, _ = ray().wait(list(waiting), timeout=self._seconds_left())
        for reply in ready:
            yield from self._ended(waiting[reply], reply)
        for worker in [each for each in self._workers if each.task and self._left(each) == 0]:
            self._drop(worker)
            limit = self._crew.time_limit_s
            yield from _failure(worker, TIMED_OUT, f"ended after {limit:g} s", again=True)

    def kill(self) -> None:
        """End all workers."""
        for worker in list(self._workers):
            self._drop(worker)

    def _start(self) -> _Worker:
        actor = self._new()
        options = dict(self._crew.options)
        return _Worker(actor, actor.prepare.remote(self._crew.method, options, gpus=self._cluster.gpus))

    def _drop(self, worker: _Worker) -> None:
        self._workers.remove(worker)
        with suppress(Exception):  # it may be gone
            ray().kill(worker.actor)

    def _left(self, worker: _Worker) -> float | None:
        limit = self._crew.time_limit_s
        return None if limit is None or not worker.task else max(0.0, worker.began + limit - time.monotonic())

    def _seconds_left(self) -> float | None:
        limits = [left for worker in self._workers if (left := self._left(worker)) is not None]
        return min(limits, default=None)

    def _ended(self, worker: _Worker, reply: Any) -> Iterator[tuple[Task, Outcome]]:
        errors = ray().exceptions
        worker.reply = None
        try:
            answer = ray().get(reply)
        except errors.RayTaskError as error:  # of `prepare`, or a row that cannot be sent
            if worker.task is None:
                raise InputError(
                    f"a worker of the Ray cluster could not start ({_line(error)}), expected this version of corereg "
                    "on all nodes; install it there"
                ) from None
            self._drop(worker)
            yield from _failure(worker, FAILED, _line(error), again=True)
        except errors.RayError as error:
            self._drop(worker)
            self._failed_starts += worker.task is None
            if self._failed_starts > MOST_FAILED_STARTS:
                raise InputError(
                    f"{self._failed_starts} workers of the Ray cluster ended before their first pair ({_line(error)}), "
                    "expected them to start; see Ray's logs"
                ) from None
            lost = isinstance(error, errors.ActorUnavailableError) or worker.node not in _nodes()
            words = "the node was lost" if lost else f"the worker ended; it may have run out of memory: {_line(error)}"
            yield from _failure(worker, DIED, words, again=True, lost=lost)
        else:
            if worker.task is None:
                worker.node, self._failed_starts = answer, 0
                return
            task, worker.task = worker.task, None
            yield task, Outcome(*answer)


def _failure(
    worker: _Worker, status: str, words: str, *, again: bool, lost: bool = False
) -> Iterator[tuple[Task, Outcome]]:
    if worker.task:
        seconds = time.monotonic() - worker.began
        task, worker.task = worker.task, None
        yield task, Outcome({"status": status, "seconds": seconds, "error": words}, again, lost)


def _nodes() -> set[str]:
    return {node["NodeID"] for node in ray().nodes() if node["Alive"]}


def _line(error: Exception) -> str:
    """The last line of a message of Ray, which holds a traceback, or the first of another."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return lines[-1] if type(error).__name__.startswith("RayTaskError") else lines[0]
