"""Correctness and time of the CUDA path: the Triton kernels and the plain torch they replace, in one run.

    python benchmarks/gpu.py                    # 96 x 80 x 128 and 192 x 160 x 256, and batches of 40 x 48 x 56
    python benchmarks/gpu.py --shape 96 80 128  # one size only

Compares the kernels with float64 on the same device, then times them: CUDA events, median, after warm-up; at least 20
runs if they are quick. Prints tables, and writes everything as JSON to $OUT/gpu.json if OUT is set, else to stdout.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import contextmanager
from functools import partial
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor

from corereg.geometry.displacement import compose, invert, subsample_displacement, upsample_displacement
from corereg.geometry.kernels.dispatch import KERNELS_VARIABLE
from corereg.geometry.strided import box_mean, strided_shape, upsample
from corereg.geometry.warp import identity_coords, warp
from corereg.method.coarse.coupled_convex import match
from corereg.method.config import CoupledConvexConfig, PipelineConfig, RefineConfig
from corereg.method.features.mind import CT_INTENSITY, MindModel
from corereg.method.features.model import FeatureModel, Image5D, project_features
from corereg.method.features.network import NetworkConfig, random_model
from corereg.method.pipeline import register_volumes
from corereg.method.refine.energy import Compared, energy
from corereg.method.refine.optimise import refine
from corereg.method.refine.schedule import Smoothing

SHAPES = [(96, 80, 128), (192, 160, 256)]
BATCH_SHAPE = (40, 48, 56)
"""1/2 grid of the volumes that a training sweep refines by the thousand."""
BATCHES = (1, 4, 16)
CHANNELS, COST_CHANNELS = 32, 16
BORDER_VOXELS = 1e-3
"""The strict check of the gradient leaves out positions nearer than this to a voxel border."""
RUNS, LEAST_RUNS, PATIENCE_S = 20, 5, 2.0
"""Timed runs: RUNS, or as many as fit into PATIENCE_S, but at least LEAST_RUNS."""

PAPER = RefineConfig(regularisation=40.0, volume_preservation=0.0)
ENERGIES = {
    "the paper's energy": (PAPER, False),
    "features, with the volume term": (RefineConfig(), False),
    "local correlation": (RefineConfig(), True),
}
"""The settings, and whether images are compared by local correlation instead of features."""

Run = Callable[[], object]
Shape = tuple[int, int, int]


@contextmanager
def kernels(choice: str):
    os.environ[KERNELS_VARIABLE] = choice
    yield
    del os.environ[KERNELS_VARIABLE]


def smooth_noise(generator: torch.Generator, *shape: int, size: float = 1.0) -> Tensor:
    """Noise, smooth at several scales like images and features; made without the kernels that are measured."""
    total = torch.zeros(shape, device="cuda")
    for factor in (1, 2, 4, 8):
        coarse = [max(-(-n // factor), 3) for n in shape[2:]]
        with kernels("torch"):
            noise = torch.randn(*shape[:2], *coarse, generator=generator, device="cuda")
            total += factor * upsample(box_mean(noise, times=2), factor, shape[2:])
    return size * total / total.std()


def relative(found: Tensor, exact: Tensor) -> float:
    assert found.shape == exact.shape
    return float((found.double() - exact).norm() / exact.norm())


def milliseconds(run: Run) -> tuple[float, int]:
    """Median time on the device, queueing included, and the number of runs."""
    for _ in range(2):
        run()
    torch.cuda.synchronize()
    begun, times = time.perf_counter(), []
    while len(times) < RUNS and (len(times) < LEAST_RUNS or time.perf_counter() - begun < PATIENCE_S):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        run()
        end.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(end))
    return statistics.median(times), len(times)


def refine_problem(generator: torch.Generator, batch: int, shape: Shape, correlated: bool) -> tuple[Compared, Tensor]:
    channels = 1 if correlated else CHANNELS
    fixed, moving = (smooth_noise(generator, batch, channels, *shape, size=0.3) for _ in range(2))
    fixed, moving = (f.contiguous(memory_format=torch.channels_last_3d) for f in (fixed, moving))
    compared = Compared(None, (fixed, moving)) if correlated else Compared((fixed, moving))
    return compared, smooth_noise(generator, batch, 3, *shape, size=2.0)


def check(shape: Shape) -> dict[str, float]:
    """Relative differences from plain torch in float64; for a property, 1 if it holds and 0 if not."""
    generator = torch.Generator("cuda").manual_seed(1)
    half, quarter = strided_shape(shape, 2), strided_shape(shape, 4)
    errors = {}
    volume, disp_vox = smooth_noise(generator, 1, 3, *half), smooth_noise(generator, 1, 3, *half, size=3.0)
    errors["box_mean"] = relative(box_mean(volume, times=3), box_mean(volume.double(), times=3))
    errors["warp"] = relative(warp(volume, disp_vox), warp(volume.double(), disp_vox.double()))
    errors["compose"] = relative(compose(volume, disp_vox), compose(volume.double(), disp_vox.double()))
    fixed, moving = (smooth_noise(generator, 1, COST_CHANNELS, *quarter, size=0.2) for _ in range(2))
    config = CoupledConvexConfig()
    errors["match"] = relative(match(fixed, moving, config), match(fixed.double(), moving.double(), config))
    start = refine_problem(generator, 1, half, correlated=False)[1]
    weights = (smooth_noise(generator, 1, 1, *half) + 0.5).clamp(0, 1)
    for kind, (settings, correlated) in ENERGIES.items():
        clear = _clear_of_borders(Smoothing.of(settings)(start.double()))
        weight = clear * weights
        compared = refine_problem(generator, 1, half, correlated)[0]
        for name, given in (("", None), (", clear of borders", clear), (", clear, weighted", weight)):
            compared = compared._replace(weight=given)
            errors[f"{kind}{name}"], errors[f"gradient of {kind}{name}"] = _energy_errors(start, compared, settings)
    return errors


def _clear_of_borders(disp_vox: Tensor) -> Tensor:
    """0 where a position lies so near a voxel border that float32 may put it on the other side, where the image has
    another slope; 1 elsewhere."""
    coords = identity_coords(disp_vox.shape[2:], like=disp_vox) + disp_vox
    return ((coords - coords.round()).abs() > BORDER_VOXELS).all(1, keepdim=True).float()


def _energy_errors(start: Tensor, compared: Compared, config: RefineConfig) -> tuple[float, float]:
    """Relative error of the kernels' energy, and of its gradient."""
    from corereg.method.refine.kernels_cuda import Problem, energy_gradient

    exact = start.double().requires_grad_(True)
    value = energy(Smoothing.of(config)(exact), compared.each(Tensor.double), config)
    (gradient,) = torch.autograd.grad(value, exact)
    found, found_gradient = energy_gradient(Problem.of(compared, start, config), start, smoothing=Smoothing.of(config))
    return abs(found.item() / value.item() - 1), relative(found_gradient, gradient)


def check_batch(config: RefineConfig, correlated: bool) -> dict[str, float]:
    generator = torch.Generator("cuda").manual_seed(2)
    compared, start = refine_problem(generator, BATCHES[-1], BATCH_SHAPE, correlated)
    together, losses = refine(compared, start, config)
    singles = [refine(compared.pair(n), start[n : n + 1], config) for n in range(len(start))]
    again = refine(compared, start, config)[0]
    with kernels("torch"):
        plain = refine(compared.pair(0), start[:1], config)
    return {
        "a batch gives what its pairs give alone": float(torch.equal(together, torch.cat([d for d, _ in singles]))),
        "the same bits again": float(torch.equal(together, again)),
        "energy lowered to, of the first": losses[-1] / losses[0],
        "last energy against plain torch": singles[0][1][-1] / plain[1][-1] - 1,
    }


def stages(shape: Shape) -> dict[str, Run]:
    generator = torch.Generator("cuda").manual_seed(0)
    half, quarter, eighth = (strided_shape(shape, s) for s in (2, 4, 8))
    image = smooth_noise(generator, 1, 1, *shape, size=0.3)
    coarse = {
        stride: [smooth_noise(generator, 1, COST_CHANNELS, *grid, size=0.2) for _ in range(2)]
        for stride, grid in ((8, eighth), (4, quarter))
    }
    disp_full, disp_half = smooth_noise(generator, 1, 3, *shape, size=3.0), smooth_noise(generator, 1, 3, *half)
    disp_quarter = subsample_displacement(disp_half, 2).contiguous()
    problems = {kind: refine_problem(generator, 1, half, correlated) for kind, (_, correlated) in ENERGIES.items()}
    shallow = smooth_noise(generator, 1, 64, *half).contiguous(memory_format=torch.channels_last_3d)
    config = CoupledConvexConfig()
    return {
        "match on the 1/8 grid": lambda: match(*coarse[8], config),
        "match on the 1/4 grid": lambda: match(*coarse[4], config),
        "upsample 1/4 -> 1/2, smoothed": lambda: upsample_displacement(disp_quarter, 2, half, smoothing=2),
        "upsample 1/2 -> full, smoothed": lambda: upsample_displacement(disp_half, 2, shape, smoothing=3),
        "warp, full grid": lambda: warp(image, disp_full),
        "compose, 1/2 grid": lambda: compose(disp_half, disp_half),
        "invert, full grid": lambda: invert(disp_full / 3),
        "project 64 -> 32 channels": lambda: project_features(shallow, CHANNELS, seed=0),
    } | {
        f"refine, 50 steps, {kind}": partial(refine, *problems[kind], settings)
        for kind, (settings, _) in ENERGIES.items()
    }


def both(runs: dict[str, Run]) -> list[dict[str, object]]:
    rows = []
    for name, run in runs.items():
        times = {}
        for choice in ("torch", "triton"):
            with kernels(choice):
                times[choice] = milliseconds(run)
        row = {"name": name, "torch_ms": times["torch"][0], "triton_ms": times["triton"][0],
               "runs": [n for _, n in times.values()]}  # fmt: skip
        rows.append(row)
        ratio = times["torch"][0] / times["triton"][0]
        print(f"| {name} | {times['torch'][0]:.3f} | {times['triton'][0]:.3f} | {ratio:.1f} |", flush=True)
    return rows


def pair(shape: Shape) -> list[dict[str, object]]:
    """Whole pairs: the paper's energy in one direction, with the network in both precisions; and the defaults."""
    generator = torch.Generator("cuda").manual_seed(3)
    moving = smooth_noise(generator, 1, 1, *shape, size=0.3)
    fixed = warp(moving, smooth_noise(generator, 1, 3, *shape, size=2.0))
    network = random_model(config=NetworkConfig(strides=(8, 4))).cuda()
    network.prepare([fixed[:, :, :64, :64, :64], moving[:, :, :64, :64, :64]])
    network.statistics_filled = True
    paper, rows = PipelineConfig(refine=PAPER, symmetric=False, fine=False), []
    for precision in ("fp32", "bf16"):
        network.precision = precision
        rows += _whole_pairs(f"network in {precision}, the paper's energy, one way", fixed, moving, network, paper)
    mind = MindModel(intensity=CT_INTENSITY)
    return rows + _whole_pairs("mind, defaults", fixed, moving, mind, PipelineConfig())


def _whole_pairs(
    name: str, fixed: Image5D, moving: Image5D, model: FeatureModel, config: PipelineConfig
) -> list[dict[str, object]]:
    rows = []
    with torch.no_grad():
        encode = milliseconds(lambda: model.encode(fixed, model.passes))[0]
    for choice in ("torch", "triton"):
        with kernels(choice):
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            register_volumes(fixed, moving, model, config)
            peak = (torch.cuda.max_memory_allocated() - before) / 2**20
            total = milliseconds(lambda: register_volumes(fixed, moving, model, config))[0]
            found = register_volumes(fixed, moving, model, config)
        parts = {stage: 1000 * seconds for stage, seconds in found.seconds.items()}
        row = {"name": name, "kernels": choice, "encode_ms": encode, "pair_ms": total, "peak_mib": peak,
               "stages_ms": parts, "energies": [found.losses[0], found.losses[-1]]}  # fmt: skip
        rows.append(row)
        written = ", ".join(f"{stage} {ms:.1f}" for stage, ms in parts.items())
        print(f"| {name} | {choice} | {encode:.2f} | {total:.1f} | {peak:.0f} | {written} |", flush=True)
    return rows


def batches() -> dict[str, Run]:
    generator = torch.Generator("cuda").manual_seed(4)
    runs: dict[str, Run] = {}
    for kind, (settings, correlated) in ENERGIES.items():
        for n in BATCHES:
            problem = refine_problem(generator, n, BATCH_SHAPE, correlated)
            runs[f"refine, 50 steps, batch of {n}, {kind}"] = partial(refine, *problem, settings)
    return runs


def provenance() -> dict[str, object]:
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    return {
        "gpu": torch.cuda.get_device_name(),
        "commit": commit or "unknown",
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "triton": version("triton"),
        "python": platform.python_version(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", type=int, nargs=3, metavar=("I", "J", "K"), help="one size only")
    given = parser.parse_args().shape
    if not torch.cuda.is_available():
        sys.exit("no CUDA device here")
    shapes = [tuple(given)] if given else SHAPES
    begun = time.perf_counter()
    refine(*refine_problem(torch.Generator("cuda").manual_seed(0), 1, BATCH_SHAPE, correlated=False), RefineConfig())
    torch.cuda.synchronize()
    result: dict[str, object] = {"provenance": provenance() | {"first_refine_s": time.perf_counter() - begun}}
    print(json.dumps(result["provenance"]))
    result["checks"] = {str(shape): check(shape) for shape in shapes} | {
        f"batch, {kind}": check_batch(*settings) for kind, settings in ENERGIES.items()
    }
    print(json.dumps(result["checks"], indent=1), flush=True)
    header = "\n| {} | torch ms | triton ms | ratio |\n|---|---|---|---|"
    print(header.format(f"{BATCHES[-1]} and fewer pairs of {BATCH_SHAPE}"))
    result["batches"] = both(batches())
    for shape in shapes:
        print(header.format(shape))
        result[f"stages {shape}"] = both(stages(shape))
        print("\n| plan | kernels | encode ms | pair ms | peak MiB | stages ms |\n|---|---|---|---|---|---|")
        result[f"pair {shape}"] = pair(shape)
    text = json.dumps(result, indent=1)
    if "OUT" in os.environ:
        Path(os.environ["OUT"], "gpu.json").write_text(text)
    else:
        print(text)


if __name__ == "__main__":
    main()
