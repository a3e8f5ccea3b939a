"""What a run will take, in time and memory: some of its work is done before it starts, and measured."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import psutil
import torch

from corereg.errors import InputError, number_of
from corereg.progress import duration
from corereg.provenance import peak_memory_mb
from corereg.training.forecast import PAIR, STEP, VALIDATION, Forecast

__all__ = ["FEWEST_STEPS", "MB", "Trial", "describe", "try_out"]

FEWEST_STEPS = 30
"""Shorter runs are over before an estimate helps."""

TIMES = 2
"""Each is tried this often, and the last one counts: the first may compile kernels."""

MB = 2**20


@dataclass(frozen=True, slots=True)
class Trial:
    """What one unit of each kind of work takes."""

    seconds: Mapping[str, float]
    memory_mb: float
    """Peak of the process, or of the GPU's memory."""


def try_out(work: Mapping[str, Callable[[], int]], device: torch.device) -> Trial:
    """Do some of each kind of work, and measure it.

    Args:
        work: does units of its kind, and returns how many.

    Raises:
        InputError: the GPU's memory does not suffice.
    """
    cuda = device.type == "cuda"
    if cuda:
        torch.cuda.reset_peak_memory_stats(device)
    seconds: dict[str, float] = {}
    try:
        for kind, unit in work.items():
            for _ in range(TIMES):
                start = time.perf_counter()
                units = unit()
                if cuda:
                    torch.cuda.synchronize(device)
                seconds[kind] = (time.perf_counter() - start) / units
    except torch.OutOfMemoryError:
        free, total = (size / 2**30 for size in torch.cuda.mem_get_info(device))
        raise InputError(
            f"a {kind} of this run does not fit the GPU's memory ({free:.1f} of {total:.1f} GB are free); lower "
            "batch_size, set checkpoint_activations=true or raise spacing_mm"
        ) from None
    if PAIR in seconds:
        seconds[VALIDATION] = seconds[PAIR]  # The stages are the same; steps of the optimisation are about as many.
    memory = torch.cuda.max_memory_reserved(device) / MB if cuda else peak_memory_mb()
    return Trial(seconds, memory)


def describe(forecast: Forecast, trial: Trial, *, kept_mb: float, disk_mb: float, device: torch.device) -> list[str]:
    """Lines on the run's time, memory and disk, and a warning if the memory may not suffice.

    Args:
        kept_mb: memory that the run holds in addition.
        disk_mb: size of the files of pseudo-labels.
    """
    cuda = device.type == "cuda"
    needed = trial.memory_mb + kept_mb
    words = {PAIR: ("pair", " to label"), STEP: ("step", ""), VALIDATION: ("pair", " to validate on")}
    parts = [
        f"{number_of(left, words[kind][0])}{words[kind][1]} of {trial.seconds[kind]:.2g} s"
        for kind in trial.seconds
        if (left := forecast.left(kind))
    ]
    disk = f" and {_gigabytes(disk_mb)} of disk" if disk_mb else ""
    lines = [
        f"estimate: {duration(forecast.seconds_left())}, {_gigabytes(needed)} of {'GPU ' if cuda else ''}memory{disk} "
        f"for {', '.join(parts)}"
    ]
    own = psutil.Process().memory_info().rss
    available = torch.cuda.mem_get_info(device)[1] if cuda else psutil.virtual_memory().available + own
    if needed * MB > available:
        lines.append(
            f"warning: only {_gigabytes(available / MB)} of memory are available; lower batch_size or "
            "pseudo_labels.encoded_scans, or set checkpoint_activations=true"
        )
    return lines


def _gigabytes(megabytes: float) -> str:
    return f"{megabytes / 2**10:.1f} GB"
