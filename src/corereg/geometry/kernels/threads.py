"""How the compiled CPU kernels are compiled and run: single-threaded functions over slabs, on own threads.

Not numba's threads: those do not survive a fork, may not be entered from two Python threads at once, cost seconds of
compilation, and count differently from torch's. Every kernel writes only the slab it is given and sums per slab, so the
result has the same bits for any number of threads.
"""

import inspect
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any, TypeVar, cast

import torch

__all__ = ["kernel", "run_slabs"]

Function = TypeVar("Function", bound=Callable[..., Any])

FASTMATH = {"contract", "reassoc", "nsz", "arcp"}
"""Freedom to reorder sums, so that they vectorise; NaN and infinity keep their meaning."""

TASKS_PER_THREAD = 4
"""Slabs are handed out in more tasks than threads, so that a thread that is held up does not hold up the rest."""

_lock = threading.Lock()
_pools: dict[int, ThreadPoolExecutor] = {}


def kernel(function: Function) -> Function:
    """Compile a function with numba at its first call, and keep the machine code on disk if possible."""
    from numba import njit

    plain = inspect.unwrap(function)  # without the shape checks that tests put around every function
    try:
        compiled = njit(cache=True, nogil=True, fastmath=FASTMATH, error_model="numpy")(plain)
    except RuntimeError:  # no folder to cache in: a read-only installation, and no home
        compiled = njit(nogil=True, fastmath=FASTMATH, error_model="numpy")(plain)
    return cast("Function", compiled)


def run_slabs(
    function: Callable[..., Any], count: int, *arguments: Any, tasks_per_thread: int = TASKS_PER_THREAD
) -> None:
    """Call `function(*arguments, start, stop)` for ranges that cover 0..count, on as many threads as torch uses."""
    function(*arguments, 0, 0)  # compiles here if it has to: numpy warns when it meets a thread without denormals
    threads = torch.get_num_threads()
    tasks = min(count, threads * tasks_per_thread)
    bounds = [count * n // tasks for n in range(tasks + 1)]
    pool = _pool(threads)
    futures = [pool.submit(function, *arguments, start, stop) for start, stop in pairwise(bounds)]
    for future in futures:
        future.result()


def _pool(threads: int) -> ThreadPoolExecutor:
    with _lock:
        if threads not in _pools:
            # Denormals: the moments of a gradient that vanishes would otherwise slow every step down.
            _pools[threads] = ThreadPoolExecutor(
                threads, thread_name_prefix="corereg", initializer=torch.set_flush_denormal, initargs=(True,)
            )
        return _pools[threads]


def _forget_pools() -> None:
    """A forked child has the parent's pools but none of their threads."""
    global _lock
    _lock = threading.Lock()
    _pools.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pools)
