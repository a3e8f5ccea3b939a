"""Seconds and memory of one registration and how they grow with the volume, against the method in plain torch.

    python benchmarks/pair.py                          # ours alone at sizes 1, 2, 4, 8, five runs each
    python benchmarks/pair.py --plain 8 --check        # and plain torch once at 8 (192 x 160 x 256) between ours
    python benchmarks/pair.py --model mind             # the package's default model and settings instead of the paper's

The paper's settings: network with two passes at stride 8, 32 projected channels, 50 Adam steps at learning rate 1,
R = 1. Weights are seeded and random, with filled statistics: time does not depend on them. Volumes are smooth noise,
the moving one displaced by up to 6 voxels.

Each size runs in its own process, whose resident memory above the inputs is watched. The first call, on a small volume,
is reported separately: it compiles kernels, or loads those that numba has compiled before. Run this on a quiet machine:
the load is printed with every row.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import plain_torch
import psutil
import torch
from torch import Tensor

from corereg.geometry.strided import box_mean
from corereg.geometry.warp import warp
from corereg.method.coarse.coupled_convex import match
from corereg.method.config import PipelineConfig, RefineConfig, paper_refine
from corereg.method.features.convolution.inference import computing_type
from corereg.method.features.mind import CT_INTENSITY, MindModel
from corereg.method.features.model import FeatureModel, project_features
from corereg.method.features.network import ConvNetModel, random_model
from corereg.method.pipeline import register_volumes
from corereg.method.refine.energy import Compared
from corereg.method.refine.inputs import Inputs
from corereg.method.refine.kernels_cpu import energy_gradient
from corereg.method.refine.optimise import refine
from corereg.method.refine.schedule import Smoothing

SHAPES = {1: (96, 80, 128), 2: (96, 160, 128), 4: (192, 160, 128), 8: (192, 160, 256)}
"""Shapes by size: the number of voxels relative to the first."""

CHECK_SHAPE = (48, 64, 80)
WATCH_EVERY_S = 0.002
MEGABYTE = 2**20


class Watch:
    """Seconds of each run, and the process's peak memory during the runs in MiB, above its memory at the start."""

    def __init__(self) -> None:
        self.process = psutil.Process()
        self.before = self.process.memory_info().rss
        self.seconds: list[float] = []
        self.peak = 0.0

    @contextmanager
    def __call__(self) -> Iterator[None]:
        done = threading.Event()

        def watch() -> None:
            while not done.wait(WATCH_EVERY_S):
                self.peak = max(self.peak, (self.process.memory_info().rss - self.before) / MEGABYTE)

        thread = threading.Thread(target=watch)
        thread.start()
        started = time.perf_counter()
        yield
        self.seconds.append(time.perf_counter() - started)
        done.set()
        thread.join()


def volumes(shape: tuple[int, int, int]) -> tuple[Tensor, Tensor]:
    """Fixed and moving (1, 1, I, J, K) in the network's range of intensities."""
    generator = torch.Generator().manual_seed(0)
    noise = [torch.randn(1, 1, *(n // s for n in shape), generator=generator) for s in (2, 4, 8)]
    layers = [torch.nn.functional.interpolate(n, size=shape, mode="trilinear") for n in noise]
    moving = 0.2 * sum(layers)
    knots = torch.randn(1, 3, *(n // 16 for n in shape), generator=generator)
    motion = torch.nn.functional.interpolate(knots, size=shape, mode="trilinear")
    return warp(moving, 6 * motion / motion.abs().max()).clamp(-0.4, 0.6), moving.clamp(-0.4, 0.6)


def task(name: str) -> tuple[FeatureModel, PipelineConfig]:
    if name == "mind":
        return MindModel(intensity=CT_INTENSITY), PipelineConfig()
    return random_model(), PipelineConfig(passes=(8, 8), refine=paper_refine(), symmetric=False, fine=False)


def measure(name: str, shape: tuple[int, int, int], repeats: int, with_plain: bool) -> dict[str, Any]:
    """Measure one size in this process."""
    model, config = task(name)
    small = volumes(CHECK_SHAPE)
    model.prepare(small)
    if isinstance(model, ConvNetModel):
        model.statistics_filled = True
    started = time.perf_counter()
    register_volumes(*small, model, config)
    first_s = time.perf_counter() - started
    fixed, moving = volumes(shape)
    ours, plain, stages = Watch(), Watch(), []
    for n in range(repeats):
        if with_plain and n == repeats // 2:
            assert isinstance(model, ConvNetModel), "plain torch has no other model"
            with plain():
                plain_torch.register(fixed, moving, model, projection(model, config), **adam(config.refine))
        with ours():
            stages.append(register_volumes(fixed, moving, model, config).seconds)
    median_s = statistics.median(ours.seconds)
    return {
        "shape": shape,
        "first_call_s": first_s,
        "seconds": ours.seconds,
        "us_per_voxel": 1e6 * median_s / fixed.numel(),
        "stages_s": {stage: statistics.median(run[stage] for run in stages) for stage in stages[0]},
        "peak_mib": ours.peak,
        "plain_s": plain.seconds,
        "plain_peak_mib": plain.peak,
        "load": os.getloadavg()[0],
    }


def adam(config: RefineConfig) -> dict[str, float | int]:
    return {"steps": config.steps, "learning_rate": config.learning_rate, "regularisation": config.regularisation}


def projection(model: ConvNetModel, config: PipelineConfig) -> Tensor:
    """The matrix (P, C) of the refinement's projection, read off an image of unit vectors."""
    count = model.config.shallow_channels[1]
    unit = torch.eye(count).reshape(1, count, count, 1, 1)
    return project_features(unit, config.refine.channels, seed=config.seed)[0, :, :, 0, 0]


def check() -> dict[str, float]:
    """Relative differences between ours and plain torch: features, coarse match, gradient, energy after 50 steps."""
    fixed, moving = volumes(CHECK_SHAPE)
    model, config = task("network")
    assert isinstance(model, ConvNetModel)
    model.prepare([fixed, moving])
    model.precision = "fp32"
    with torch.no_grad():
        encoded = [model.encode(v, (8,)) for v in (fixed, moving)]
        plain = [plain_torch.features(model, v) for v in (fixed, moving)]
        projected = [project_features(e.shallow, config.refine.channels, seed=0) for e in encoded]
        kernel = projection(model, config)[:, :, None, None, None]
        plain_projected = [torch.conv3d(shallow, kernel) for shallow, _ in plain]
        ours = match(*(e.cost[8] for e in encoded), config.coupled_convex)
        theirs = plain_torch.match(*(head for _, head in plain))
        noise = torch.randn(1, 3, *projected[0].shape[2:], generator=torch.Generator().manual_seed(1))
        start = 3 * box_mean(noise, times=2)
    parameters = start.clone().requires_grad_(True)
    loss = plain_torch.energy(plain_torch.mean(parameters, 3), *plain_projected, config.refine.regularisation)
    (expected,) = torch.autograd.grad(loss, parameters)
    with torch.no_grad():
        compared = Compared((projected[0], projected[1]))
        last = refine(compared, start, config.refine)[1][-1]
    _, losses = plain_torch.refine(*plain_projected, start, **adam(config.refine))
    _, gradient = energy_gradient(
        Inputs.of(compared, start, config.refine), start[0].numpy(), smoothing=Smoothing.of(config.refine)
    )
    return {
        "shallow": difference(encoded[0].shallow, plain[0][0]),
        "head": difference(encoded[0].cost[8], plain[0][1]),
        "match": difference(ours, theirs),
        "gradient": difference(torch.from_numpy(gradient)[None], expected),
        "last energy": abs(last / losses[-1] - 1),
    }


def difference(found: Tensor | None, expected: Tensor) -> float:
    assert found is not None
    return float((found - expected).norm() / expected.norm())


def print_row(size: int, row: dict[str, Any]) -> None:
    stages = ", ".join(f"{name} {seconds:.2f}" for name, seconds in row["stages_s"].items())
    seconds = row["seconds"]
    cells = [
        str(size),
        " x ".join(map(str, row["shape"])),
        f"{row['first_call_s']:.1f}",
        f"{min(seconds):.2f} / {statistics.median(seconds):.2f} / {max(seconds):.2f}",
        f"{row['us_per_voxel']:.2f}",
        stages,
        f"{row['peak_mib']:.0f}",
        *(f"{s:.1f}, ratio {s / statistics.median(seconds):.1f}" for s in row["plain_s"]),
        *(f"{row['plain_peak_mib']:.0f}" for _ in row["plain_s"]),
        f"{row['load']:.1f}",
    ]
    print(f"| {' | '.join(cells)} |", flush=True)


def provenance() -> str:
    model = platform.processor()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), model)
    facts = {
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "cpu": model,
        "threads": torch.get_num_threads(),
        "convolutions in": computing_type("auto", torch.device("cpu")),
        "load": f"{os.getloadavg()[0]:.1f}",
        "python": platform.python_version(),
        **{package: version(package) for package in ("torch", "numba", "numpy")},
    }
    return ", ".join(f"{key} {value}" for key, value in facts.items())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SHAPES), choices=SHAPES)
    parser.add_argument("--model", choices=("network", "mind"), default="network")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--plain", type=int, nargs="*", default=[], help="sizes at which plain torch runs too, once")
    parser.add_argument("--check", action="store_true", help="compare ours with plain torch on a small volume")
    parser.add_argument("--row", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.row:
        shape, with_plain = SHAPES[arguments.row], arguments.row in arguments.plain
        print(json.dumps(measure(arguments.model, shape, arguments.repeats, with_plain)))
        return 0
    print(provenance())
    if arguments.check:
        print(", ".join(f"{name} {value:.1e}" for name, value in check().items()))
    columns = ["x", "voxels", "first call s", "min / median / max s", "us/voxel", "stages s", "peak MiB"]
    columns += ["plain torch s", "its peak MiB"] if arguments.plain else []
    print(f"\n| {' | '.join([*columns, 'load'])} |\n{'|---' * (len(columns) + 1)}|", flush=True)
    for size in arguments.sizes:
        command = [sys.executable, __file__, *sys.argv[1:], "--row", str(size)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        print_row(size, json.loads(done.stdout))
    return 0


if __name__ == "__main__":
    sys.exit(main())
