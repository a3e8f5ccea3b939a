"""One pair through one method in a process of its own: bounded in time, measured, its words kept."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from corereg.evaluation.benchmark.peers.catalogue import Method
from corereg.evaluation.benchmark.peers.environments import python_of

__all__ = ["Run", "command_of", "run_method"]

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
    """How it went."""

    status: str
    """"ok", or what went wrong, in a few words."""
    process_seconds: float
    """From the start of the process to its end: imports, reading and writing included."""
    seconds: float | None
    """Of the registration alone, as the driver told; None for a user's command."""
    peak_memory_mb: float
    """Largest resident memory of the process with its children, sampled every 50 ms."""
    version: str | None
    tail: str
    """Its last lines, where it failed."""

    @property
    def ok(self) -> bool:
        return self.status == "ok"


def command_of(
    method: Method, fixed: Path, moving: Path, out: Path, *, affine: str, threads: int, seed: int
) -> list[str]:
    """What is called, word by word."""
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
    """Run a method; whatever becomes of it, this returns.

    Args:
        out: where the field shall be, in a folder of its own, which the method may fill.
        affine: "none" starts from the images as they lie, "auto" makes each tool take its affine step first.
        budget_seconds: after which it is ended, with all that it started.
        log: gets its output.
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
        try:
            peak, in_time = _watch(process, started + budget_seconds)
        finally:
            _end(process)
    seconds = time.perf_counter() - started
    told = _told(out)
    if not in_time:
        status = f"ended after {budget_seconds:g} s"
    elif process.returncode != 0:
        status = f"failed with {_exit_words(process.returncode)}"
    elif not out.is_file():
        status = "wrote no field"
    else:
        return Run("ok", seconds, told.get("seconds"), peak, told.get("version"), "")
    return Run(status, seconds, None, peak, None, _tail(log))


def _watch(process: "subprocess.Popen[bytes]", deadline: float) -> tuple[float, bool]:
    """Wait for the end: the largest memory in MiB, and whether it came in time."""
    peak = 0
    while process.poll() is None:
        if time.perf_counter() > deadline:
            return peak / 2**20, False
        peak = max(peak, sum(_resident(member) for member in _family(process.pid)))
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


def _end(process: "subprocess.Popen[bytes]") -> None:
    """End the process and everything that it started, if it runs still."""
    if process.poll() is not None:
        return
    family = _family(process.pid)
    for member in family:
        try:
            member.kill()
        except psutil.Error:  # it ended by itself meanwhile
            continue
    process.wait()


def _told(out: Path) -> dict[str, Any]:
    try:
        told: dict[str, Any] = json.loads(out.with_name(out.name + ".json").read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return told


def _exit_words(code: int) -> str:
    if code < 0:
        try:
            return f"signal {signal.Signals(-code).name}"
        except ValueError:
            return f"signal {-code}"
    return f"exit status {code}"


def _tail(log: Path) -> str:
    lines = [line.strip() for line in log.read_text("utf-8", errors="replace").splitlines() if line.strip()]
    return "\n".join(lines[-TAIL_LINES:])[-TAIL_CHARACTERS:]
