"""What `corereg info` prints: versions, devices, models."""

import os
import platform
from typing import Any

import psutil
import torch

from corereg.geometry.kernels.dispatch import use_kernels
from corereg.method.config import DEFAULT_MODEL, MODELS
from corereg.provenance import PACKAGES, machine, versions

__all__ = ["describe", "facts"]


def facts() -> dict[str, Any]:
    """The same as `describe`, for programs."""
    return {
        **machine(),
        "cuda": [torch.cuda.get_device_name(n) for n in range(torch.cuda.device_count())],
        "mps": torch.backends.mps.is_available(),
        "models": MODELS,
        "default_model": DEFAULT_MODEL,
    }


def describe() -> str:
    """A few lines for people and bug reports."""
    memory = psutil.virtual_memory()
    lines = [f"{name:12} {version}" for name, version in versions(*PACKAGES).items()]
    lines.append(f"{'python':12} {platform.python_version()} on {platform.platform()}")
    lines.append(
        f"{'cpu':12} {os.cpu_count()} cores, {torch.get_num_threads()} threads, "
        f"{memory.available / 2**30:.1f} of {memory.total / 2**30:.1f} GiB available, "
        f"{'compiled kernels' if use_kernels(torch.zeros(1)) else 'plain torch'}"
    )
    cuda = [torch.cuda.get_device_name(n) for n in range(torch.cuda.device_count())]
    lines.append(f"{'cuda':12} {', '.join(cuda) or 'none'}")
    lines.append(f"{'mps':12} {'yes' if torch.backends.mps.is_available() else 'none'}")
    lines.append("models")
    width = max(map(len, MODELS))
    lines += [
        f"  {name:{width}} {what}{' (default)' if name == DEFAULT_MODEL else ''}" for name, what in MODELS.items()
    ]
    return "\n".join(lines)
