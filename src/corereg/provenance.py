"""Where numbers come from: versions, machine, time, memory and file hashes. A table without them cannot be repeated."""

import hashlib
import os
import platform
import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

__all__ = [
    "PACKAGES",
    "hash_files",
    "machine",
    "now",
    "peak_memory_mb",
    "recorded_warnings",
    "usable_cores",
    "versions",
]

PACKAGES = ("corereg", "torch", "numba", "numpy", "scipy", "SimpleITK", "nibabel")
"""Packages whose versions matter to a bug report or a benchmark."""

RESULT_PACKAGES = ("corereg", "torch", "numpy", "python")
"""Versions written into every result."""

BLOCK_BYTES = 2**20


def versions(*names: str) -> dict[str, str]:
    """Installed versions by name, by default those written into every result.

    Args:
        names: packages; "python" stands for the interpreter. A package that is missing reads "not installed".
    """
    return {name: _version(name) for name in names or RESULT_PACKAGES}


def machine() -> dict[str, Any]:
    """Processor, cores, memory, load over the last minutes, and the versions of `PACKAGES`."""
    load = [round(value, 2) for value in os.getloadavg()] if hasattr(os, "getloadavg") else None
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 2**30, 1),
        "system": platform.platform(),
        "load_average": load,
        "python": platform.python_version(),
        "versions": versions(*PACKAGES),
    }


def now() -> str:
    """The time in UTC, to the second."""
    return datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")


def usable_cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def peak_memory_mb() -> float:
    """Largest resident memory of this process so far, in MiB."""
    if sys.platform == "win32":
        return round(float(psutil.Process().memory_info().peak_wset) / 2**20, 1)
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**20 if sys.platform == "darwin" else 2**10), 1)


def hash_files(paths: Iterable[Path]) -> str:
    """SHA-256 of the contents of files, one after the other, hexadecimal."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while block := file.read(BLOCK_BYTES):
                digest.update(block)
    return digest.hexdigest()


def _version(name: str) -> str:
    if name == "python":
        return platform.python_version()
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text("utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


@contextmanager
def recorded_warnings() -> Iterator[list[str]]:
    """The texts of all warnings that the block shows, each once; they are shown as usual."""
    texts: list[str] = []
    with warnings.catch_warnings():
        show = warnings.showwarning

        def record(message: Warning | str, *arguments: Any, **keywords: Any) -> None:
            if str(message) not in texts:
                texts.append(str(message))
            show(message, *arguments, **keywords)

        warnings.showwarning = record
        yield texts
