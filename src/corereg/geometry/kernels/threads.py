"""Compile and run the CPU kernels: single-threaded functions over slabs, on threads of our own.

Numba's threads are not used: they do not survive a fork, cannot be entered from two Python threads at once, take
seconds to compile, and are counted differently from torch's. Every kernel writes only its own slab and sums per slab,
so the result has the same bits for any number of threads.
"""

import inspect
import os
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import pairwise
from typing import Any, TypeVar, cast

import torch

from corereg.errors import InputError
from corereg.provenance import usable_cores

__all__ = ["inlined_kernel", "kernel", "limited_threads", "run_slabs", "run_tasks"]

Function = TypeVar("Function", bound=Callable[..., Any])
Item = TypeVar("Item")
Result = TypeVar("Result")

FASTMATH = {"contract", "reassoc", "nsz", "arcp"}
"""Sums may be reordered, so that they vectorise; NaN and infinity keep their meaning."""

TASKS_PER_THREAD = 4
"""More tasks than threads, so that one slow thread does not delay the others."""

COMPILING = 0
"""Number of the pool whose only thread compiles. Interrupted by a signal, as the main thread may be, the compiler
crashes, and numpy warns on threads that flush denormals."""

TASKS = -1
"""Sign of the number of a pool for `run_tasks`, whose tasks may wait for slabs and must not take their threads."""

_lock = threading.Lock()
_pools: dict[int, ThreadPoolExecutor] = {}


def kernel(function: Function) -> Function:
    """Compile a function with numba at its first call, and cache the machine code on disk if possible."""
    return _compiled(function, inline=False)


def inlined_kernel(function: Function) -> Function:
    """Like `kernel`, for a function that only kernels call and that is too long for the compiler to inline by itself.

    Left apart, such a function makes results depend on the cache. The process that compiles it calls it as compiled by
    itself; later processes load the copy that was optimised together with its caller, which rounds differently.
    """
    return _compiled(function, inline=True)


def run_slabs(
    function: Callable[..., Any], count: int, *arguments: Any, tasks_per_thread: int = TASKS_PER_THREAD
) -> None:
    """Call `function(*arguments, start, stop)` for ranges that cover 0..count, on as many threads as torch uses."""
    _pool(COMPILING).submit(function, *arguments, 0, 0).result()
    threads = torch.get_num_threads()
    tasks = min(count, threads * tasks_per_thread)
    if not tasks:
        return
    bounds = [count * n // tasks for n in range(tasks + 1)]
    pool = _pool(threads)
    futures = [pool.submit(function, *arguments, start, stop) for start, stop in pairwise(bounds)]
    for future in futures:
        future.result()


def run_tasks(function: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    """`function` of each item, in their order, computed on as many threads as torch uses; it may itself run slabs."""
    return list(_pool(TASKS * torch.get_num_threads()).map(function, items))


@contextmanager
def limited_threads(count: int | None) -> Iterator[None]:
    """Compute with at most this many threads while the block runs, the compiled kernels' and torch's; None: with all.

    Raises:
        InputError: less than one.
    """
    if count is None:
        yield
        return
    cores = usable_cores()
    if count < 1:
        raise InputError(f"got {count} threads, expected 1 to {cores}, the cores of this machine")
    if count > cores:
        warnings.warn(f"got {count} threads on {cores} cores; {cores} are used", stacklevel=2)
    before = torch.get_num_threads()
    torch.set_num_threads(min(count, cores))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _compiled(function: Function, *, inline: bool) -> Function:
    from numba import njit

    plain = inspect.unwrap(function)  # tests wrap every function in shape checks
    options: Any = {"nogil": True, "fastmath": FASTMATH, "error_model": "numpy", "forceinline": inline}
    try:
        compiled = njit(cache=True, **options)(plain)
    except RuntimeError:  # nowhere to cache: a read-only installation and no home folder
        compiled = njit(**options)(plain)
    return cast("Function", compiled)


def _pool(threads: int) -> ThreadPoolExecutor:
    with _lock:
        if threads not in _pools and threads == COMPILING:
            _pools[threads] = ThreadPoolExecutor(1, thread_name_prefix="corereg-compiling")
        elif threads not in _pools and threads < 0:
            _pools[threads] = ThreadPoolExecutor(-threads, thread_name_prefix="corereg-tasks")
        elif threads not in _pools:
            # Flush denormals: the moments of a vanishing gradient would otherwise slow every step down.
            _pools[threads] = ThreadPoolExecutor(
                threads, thread_name_prefix="corereg", initializer=torch.set_flush_denormal, initargs=(True,)
            )
        return _pools[threads]


def _forget_pools() -> None:
    """A forked child inherits the pools but none of their threads."""
    global _lock
    _lock = threading.Lock()
    _pools.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pools)
