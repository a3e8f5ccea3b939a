"""How near the compiled kernels of a registration come to what the machine can do at all.

    python benchmarks/roofline.py FIXED MOVING [--threads N]

Registers a pair and times every kernel. The least traffic of a call is the size of the arrays it is given, each counted
once, however often the kernel reads them. Before and after, the same process measures the memory (a sum of two large
arrays into a third, as in STREAM) and the arithmetic (a product of matrices, and oneDNN's convolution of 128 channels).
A kernel whose least traffic flows at a good share of the memory's rate can only be made faster by moving less; one far
below it is bound by arithmetic, or by gathering single values.
"""

import argparse
import os
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

import corereg
from corereg.geometry.kernels import threads

LEAST_SHARE = 0.01
"""Kernels that take less of the time of all are left out."""


def best(run: Callable[[], object], repeats: int = 5) -> float:
    """Seconds of the fastest of a few runs."""
    found = []
    for _ in range(repeats):
        started = time.perf_counter()
        run()
        found.append(time.perf_counter() - started)
    return min(found)


def machine() -> str:
    a, b = torch.rand(2, 1 << 26)
    out = torch.empty_like(a)
    stream = 3 * a.nbytes / best(lambda: torch.add(a, b, out=out)) / 1e9
    side = torch.rand(2048, 2048)
    product = 2 * 2048**3 / best(lambda: side @ side) / 1e9
    layer = torch.nn.Conv3d(128, 128, 3, padding=1).to(memory_format=torch.channels_last_3d)
    source = torch.rand(1, 128, 48, 40, 64).contiguous(memory_format=torch.channels_last_3d)
    with torch.no_grad():
        convolution = 2 * 27 * 128 * 128 * source[0, 0].numel() / best(lambda: layer(source), 3) / 1e9
    return f"memory {stream:.1f} GB/s, product {product:.0f} GFLOP/s, convolution {convolution:.0f} GFLOP/s"


def arrays(arguments: Iterable[Any]) -> Iterator[np.ndarray[Any, Any]]:
    for each in arguments:
        if isinstance(each, np.ndarray):
            yield each
        elif isinstance(each, tuple):
            yield from arrays(each)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pair", nargs=2, type=Path)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    seconds, traffic, calls = defaultdict[str, list[float]](list), defaultdict[str, float](float), 0
    plain = threads.run_slabs

    def timed(function: Callable[..., Any], count: int, *arguments: Any, **settings: Any) -> None:
        started = time.perf_counter()
        plain(function, count, *arguments, **settings)
        name = f"{function.__module__.rpartition('.')[2]}.{function.__name__}"
        seconds[name].append(time.perf_counter() - started)
        traffic[name] += sum({each.ctypes.data: each.nbytes for each in arrays(arguments)}.values())

    threads.run_slabs = timed  # before the modules that import it
    print("before:", machine())
    for _ in range(2):  # the first loads and compiles
        seconds.clear()
        traffic.clear()
        started = time.perf_counter()
        result = corereg.register(*options.pair)
        whole = time.perf_counter() - started
    print("after:", machine())
    inside = sum(map(sum, seconds.values()))
    print(f"{result.refined.grid.shape}, register {whole:.2f} s, kernels {inside:.2f} s, {options.threads} threads\n")
    print("| kernel | calls | s | ms a call, median | least traffic MB a call | GB/s |\n|---|---|---|---|---|---|")
    for name, found in sorted(seconds.items(), key=lambda item: -sum(item[1])):
        calls, spent = len(found), sum(found)
        if spent > LEAST_SHARE * inside:
            size = traffic[name] / calls / 1e6
            row = name, calls, f"{spent:.2f}", f"{1000 * statistics.median(found):.2f}", f"{size:.1f}"
            print(f"| {' | '.join(map(str, row))} | {traffic[name] / spent / 1e9:.1f} |")
    print(f"\nload {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
