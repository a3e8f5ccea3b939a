"""Runs one method on one pair in a process of its own, with a time limit; measures time and memory and keeps its log.

Upstream: `catalogue`, `environments`. Downstream: `benchmark.run`.
"""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from corereg.evaluation.benchmark.peers.catalogue import Method
from corereg.evaluation.benchmark.peers.environments import python_of
from corereg.io.json_files import load_json

__all__ = ["THREAD_VARIABLES", "Run", "command_of", "exit_words", "run_method"]

DRIVERS = Path(__file__).with_name("drivers.py")
POLL_SECONDS = 0.05
TAIL_LINES, TAIL_CHARACTERS = 6, 600
THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS",
)
SEED_VARIABLE = "ANTS_RANDOM_SEED"


@dataclass(frozen=True, slots=True)
class Run:
    """The outcome of a run."""

    status: str
    """"ok", or a few words on what went wrong."""
    process_seconds: float
    """Time from the start of the process to its end, including imports, reading and writing."""
    seconds: float | None
    """Time of the registration alone, as reported by the driver; None for a user's command."""
    peak_memory_mb: float
    """Peak resident memory of the process and its children, sampled every 50 ms."""
    version: str | None
    """Version of the tool, as reported by the driver."""
    tail: str
    """The last lines of its output, if it failed."""

    @property
    def ok(self) -> bool:
        return self.status == "ok"


def command_of(
    method: Method, fixed: Path, moving: Path, out: Path, *, affine: str, threads: int, seed: int
) -> list[str]:
    """The command line, as a list of words."""
    if method.command:
        places = {"fixed": fixed, "moving": moving, "out": out, "folder": out.parent, "threads": threads, "seed": seed}
        return [word.format(**places) for word in method.command]
    settings = [word for name, value in method.own for word in ("--set", f"{name}={json.dumps(value)}")]
    driver = method.name.partition(":")[0]
    return [
        *(str(python_of(method)), str(DRIVERS), driver, str(fixed), str(moving), str(out)),
        *("--affine", affine, "--threads", str(threads), "--seed", str(seed), *settings),
    ]


def run_method(
    method: Method,
    fixed: Path,
    moving: Path,
    out: Path,
    *,
    affine: str = "none",
    threads: int = 1,
    seed: int = 1,
    budget_seconds: float,
    log: Path,
) -> Run:
    """Run a method. Never raises on a failure of the method: it is reported in `Run.status`.

    Args:
        out: path of the field to write, in a folder of its own that the method may use as scratch space.
        affine: "none" starts from the images as they lie; "auto" lets the tool run its own affine step first.
        threads, seed: passed to the tool, and set in its environment.
        budget_seconds: time limit, after which the process and all its children are killed.
        log: receives its output.
    """
    command = command_of(method, fixed, moving, out, affine=affine, threads=threads, seed=seed)
    environment = os.environ | dict.fromkeys(THREAD_VARIABLES, str(threads)) | {SEED_VARIABLE: str(seed)}
    started = time.perf_counter()
    with log.open("wb") as output:
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=out.parent,
                env=environment,
                start_new_session=sys.platform != "win32",
            )
        except OSError as error:
            return Run(f"cannot be started: {error.strerror}", 0.0, None, 0.0, None, "")
        family: set[psutil.Process] = set()
        try:
            peak, in_time = _watch(process, started + budget_seconds, family)
        finally:
            _end(process, family)
    seconds = time.perf_counter() - started
    reported = _driver_report(out)
    if not in_time:
        status = f"ended after {budget_seconds:g} s"
    elif process.returncode != 0:
        status = f"failed with {exit_words(process.returncode)}"
    elif not out.is_file():
        status = "wrote no field"
    else:
        return Run("ok", seconds, reported.get("seconds"), peak, reported.get("version"), "")
    return Run(status, seconds, None, peak, None, _tail(log))


def _watch(process: "subprocess.Popen[bytes]", deadline: float, family: set[psutil.Process]) -> tuple[float, bool]:
    """Wait for the process to end, and collect it and all its children in `family`.

    Returns: its peak memory in MiB, and whether it ended before the deadline.
    """
    peak = 0
    while process.poll() is None:
        if time.perf_counter() > deadline:
            return peak / 2**20, False
        running = _family(process.pid)
        family.update(running)
        peak = max(peak, sum(_resident(member) for member in running))
        time.sleep(POLL_SECONDS)
    return peak / 2**20, True


def _family(pid: int) -> list[psutil.Process]:
    try:
        root = psutil.Process(pid)
        return [root, *root.children(recursive=True)]
    except psutil.Error:
        return []


def _resident(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.Error:
        return 0


def _end(process: "subprocess.Popen[bytes]", family: set[psutil.Process]) -> None:
    """Kill the process and everything that it started, including what outlived it."""
    for member in family.union(_family(process.pid)):
        with suppress(psutil.Error):  # it has ended in the meantime
            member.kill()
    if sys.platform != "win32":
        with suppress(OSError):  # nothing is left of the group
            os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _driver_report(out: Path) -> dict[str, Any]:
    """What the driver wrote next to the field; empty for a user's command."""
    return load_json(out.with_name(out.name + ".json"))


def exit_words(code: int) -> str:
    """How a process ended, by its return code."""
    if code < 0:
        try:
            return f"signal {signal.Signals(-code).name}"
        except ValueError:
            return f"signal {-code}"
    return f"exit status {code}"


def _tail(log: Path) -> str:
    lines = [line.strip() for line in log.read_text("utf-8", errors="replace").splitlines() if line.strip()]
    return "\n".join(lines[-TAIL_LINES:])[-TAIL_CHARACTERS:]
