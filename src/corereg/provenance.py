"""Where and when numbers were made: a table without it cannot be repeated."""

import os
import platform
import sys
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch

__all__ = ["machine", "now", "peak_memory_mb", "versions"]

PACKAGES = ("corereg", "torch", "numba", "numpy", "scipy", "SimpleITK", "nibabel")


def machine() -> dict[str, Any]:
    """Processor, cores, memory, load over the last minutes, and the versions of what this package stands on."""
    load = [round(value, 2) for value in os.getloadavg()] if hasattr(os, "getloadavg") else None
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 2**30, 1),
        "system": platform.platform(),
        "load_average": load,
        "python": platform.python_version(),
        "versions": {name: version(name) for name in PACKAGES},
    }


def now() -> str:
    """UTC, to the second."""
    return datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text("utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def peak_memory_mb() -> float:
    if sys.platform == "win32":
        return round(float(psutil.Process().memory_info().peak_wset) / 2**20, 1)
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**20 if sys.platform == "darwin" else 2**10), 1)


def versions() -> dict[str, str]:
    from importlib.metadata import version

    return {
        "corereg": version("corereg"),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }
