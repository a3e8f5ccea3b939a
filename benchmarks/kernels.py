"""Time of each compiled CPU kernel and of the plain torch it replaces, alternating in one run.

    python benchmarks/kernels.py                       # full size, 192 x 160 x 256
    python benchmarks/kernels.py --shape 96 80 128     # an eighth of it
    python benchmarks/kernels.py --cold                # with an empty cache: the cost of compiling
    python benchmarks/kernels.py --only refine --loops # the refinement with plain loops for its explicit vectors

Prints a markdown table, or with --json one object, with the machine, the load and the versions it was measured with.
Times are medians; on a shared machine, trust the ratios. The first call is reported separately.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from torch import nn

from corereg.geometry.displacement import compose, invert, jacobian_determinant, upsample_displacement
from corereg.geometry.kernels.dispatch import KERNELS_VARIABLE
from corereg.geometry.kernels.threads import FASTMATH
from corereg.geometry.strided import box_mean, strided_shape
from corereg.geometry.warp import warp
from corereg.method.coarse.coupled_convex import match
from corereg.method.config import CoupledConvexConfig, RefineConfig
from corereg.method.features.convolution.inference import convolve, fold
from corereg.method.features.mind import mind_ssc_half
from corereg.method.refine.energy import Compared
from corereg.method.refine.optimise import refine

COST_CHANNELS = 16
LONG_RUN_STEPS = 50
"""Steps of the paper's instance optimisation, timed on the kernels alone, since torch takes minutes."""

Run = Callable[[], object]


@dataclass(frozen=True)
class Row:
    """One kernel's times."""

    name: str
    torch_ms: float | None
    numba_ms: float
    ratio: float | None
    first_call_s: float


def smooth_noise(generator: torch.Generator, *shape: int, size: float = 1.0) -> torch.Tensor:
    return size * box_mean(torch.randn(shape, generator=generator), times=3)


def cases(shape: tuple[int, int, int], channels: list[int], steps: int) -> Iterator[tuple[str, Run, bool]]:
    """Name, what to run, and whether torch runs it too. Inputs are made one case at a time, to bound the memory."""
    generator = torch.Generator().manual_seed(0)
    half, quarter, eighth = (strided_shape(shape, s) for s in (2, 4, 8))
    image = smooth_noise(generator, 1, 1, *shape)
    yield "MIND-SSC to the 1/2 grid", lambda: mind_ssc_half(image), True
    for grid, name in ((eighth, "1/8"), (quarter, "1/4")):
        fixed, moving = (smooth_noise(generator, 1, COST_CHANNELS, *grid) for _ in range(2))
        yield (
            f"match, {name} grid x {COST_CHANNELS}",
            lambda f=fixed, m=moving: match(f, m, CoupledConvexConfig()),
            True,
        )
    first, then = (smooth_noise(generator, 1, 3, *half, size=10) for _ in range(2))
    yield "box mean x3, 1/2 grid", lambda: box_mean(first, times=3), True
    yield "compose, 1/2 grid", lambda: compose(first, then), True
    yield "invert, 5 steps, 1/2 grid", lambda: invert(0.3 * first, iterations=5, tolerance_vox=0), True
    yield "upsample x2 + means x3", lambda: upsample_displacement(first, 2, shape, smoothing=3), True
    full = upsample_displacement(first, 2, shape)
    yield "warp, full grid", lambda: warp(image, full), True
    yield "Jacobian determinant, full grid", lambda: jacobian_determinant(full), True
    for channels_in, out, grid in ((32, 64, half), (128, 128, quarter)):
        block = nn.Sequential(nn.Conv3d(channels_in, out, 3, 1, 1), nn.BatchNorm3d(out)).eval()
        source = smooth_noise(generator, 1, channels_in, *grid).contiguous(memory_format=torch.channels_last_3d)
        name = f"convolution {channels_in} -> {out} of stride 1, {grid[0]} x {grid[1]} x {grid[2]}"
        yield name, lambda b=block, s=source: convolved(b, s), True
    for count in channels:
        fixed = smooth_noise(generator, 1, count, *half)
        moving = warp(fixed, then)
        start = torch.full((1, 3, *half), 0.3)
        short, long = RefineConfig(steps=steps), RefineConfig(steps=LONG_RUN_STEPS)
        name = f"refine, {{}} steps x {count} channels"
        compared = Compared((fixed, moving))
        yield name.format(steps), lambda given=compared, s=start, c=short: refine(given, s, c), True
        yield name.format(LONG_RUN_STEPS), lambda given=compared, s=start, c=long: refine(given, s, c), False
    images = Compared(None, (image, warp(image, full)))
    one, still = RefineConfig(steps=steps), torch.full_like(full, 0.3)
    yield f"refine, {steps} steps by local correlation, full grid", lambda: refine(images, still, one), True


@torch.no_grad()
def convolved(block: nn.Sequential, source: torch.Tensor) -> torch.Tensor:
    return convolve(fold(block, torch.float32), source)


def without_explicit_vectors() -> None:
    """Let the refinement compare features in loops that the compiler vectorises, if it can."""
    from numba import njit

    from corereg.method.refine import kernels_cpu

    @njit(nogil=True, fastmath=FASTMATH, error_model="numpy", forceinline=True)  # type: ignore[untyped-decorator]
    def compare(moving, cell, step_i, step_j, step_k, wi, wj, wk, fixed, at, channels, ahead):  # type: ignore[no-untyped-def]
        total = along_i = along_j = along_k = np.float32(0)
        one = np.float32(1)
        for c in range(len(channels)):
            m = cell + c
            a, b = np.float32(moving[m]), np.float32(moving[m + step_k])
            e, f = np.float32(moving[m + step_j]), np.float32(moving[m + step_j + step_k])
            n = m + step_i
            g, h = np.float32(moving[n]), np.float32(moving[n + step_k])
            p, q = np.float32(moving[n + step_j]), np.float32(moving[n + step_j + step_k])
            low0, low1, high0, high1 = a + wk * (b - a), e + wk * (f - e), g + wk * (h - g), p + wk * (q - p)
            low, high = low0 + wj * (low1 - low0), high0 + wj * (high1 - high0)
            d = low + wi * (high - low) - np.float32(fixed[at + c])
            total += d * d
            along_i += d * (high - low)
            along_j += d * ((one - wi) * (low1 - low0) + wi * (high1 - high0))
            flat = (one - wj) * (b - a) + wj * (f - e)
            along_k += d * (flat + wi * ((one - wj) * (h - g) + wj * (q - p) - flat))
        return total, along_i, along_j, along_k

    kernels_cpu.compare = compare


def seconds(run: Run, choice: str) -> float:
    os.environ[KERNELS_VARIABLE] = choice
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def measure(name: str, run: Run, with_torch: bool, repeats: int) -> Row:
    first = seconds(run, "numba")
    numba_s, torch_s = [], []
    for _ in range(repeats):
        numba_s.append(seconds(run, "numba"))
        if with_torch:
            torch_s.append(seconds(run, "torch"))
    fast = 1000 * statistics.median(numba_s)
    slow = 1000 * statistics.median(torch_s) if torch_s else None
    return Row(name, slow, fast, slow and slow / fast, first)


def provenance(arguments: argparse.Namespace) -> dict[str, object]:
    model = platform.processor()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), model)
    return {
        "shape": list(arguments.shape),
        "repeats": arguments.repeats,
        "cold_cache": arguments.cold,
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "cpu": model,
        "threads": torch.get_num_threads(),
        "load_before": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "python": platform.python_version(),
        **{package: version(package) for package in ("corereg", "torch", "numba", "numpy")},
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", type=int, nargs=3, default=(192, 160, 256), help="full working grid")
    parser.add_argument(
        "--channels", type=int, nargs="+", default=[12, 16, 32], help="channels of the refinement's features"
    )
    parser.add_argument("--steps", type=int, default=2, help="steps of the refinement when torch runs too")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", default="", help="only rows whose name contains this")
    parser.add_argument("--cold", action="store_true", help="compile everything: use an empty cache")
    parser.add_argument("--loops", action="store_true", help="compare features in plain loops, from an empty cache")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if arguments.cold or arguments.loops:
        os.environ["NUMBA_CACHE_DIR"] = tempfile.mkdtemp(prefix="corereg-kernels-")
    if arguments.loops:
        without_explicit_vectors()
    birth = provenance(arguments)
    os.environ[KERNELS_VARIABLE] = "torch"  # make inputs without the kernels, so that each first call is measured
    rows = []
    if not arguments.json:
        print(", ".join(f"{key} {value}" for key, value in birth.items()))
        print("\n| kernel | torch ms | numba ms | ratio | first call s |\n|---|---|---|---|---|")
    for name, run, with_torch in cases(tuple(arguments.shape), arguments.channels, arguments.steps):
        if arguments.only in name:
            row = measure(name, run, with_torch, arguments.repeats)
            rows.append(asdict(row))
            if not arguments.json:
                slow = "" if row.torch_ms is None else f"{row.torch_ms:.1f}"
                ratio = "" if row.ratio is None else f"{row.ratio:.1f}"
                print(f"| {name} | {slow} | {row.numba_ms:.1f} | {ratio} | {row.first_call_s:.2f} |", flush=True)
        os.environ[KERNELS_VARIABLE] = "torch"
    if arguments.json:
        print(json.dumps({"provenance": birth, "rows": rows}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
