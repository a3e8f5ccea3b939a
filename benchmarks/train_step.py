"""Seconds and peak memory of a training step, and their ratio to a plain fp32 step of the same method.

    python benchmarks/train_step.py [--shape 80 96 112] [--steps 5]

The plain step is the method written down without thought of cost: fp32, NCDHW, images and views encoded separately for
the two losses (twelve images), 128-channel features warped whole before points are drawn, one candidate at a time in
the cost volume. `paper` is ours with the same single pass; `ours` adds the second pass on the 1/4 grid; `lean` keeps
fewer activations. Each runs in its own process, so that each has its own peak of memory.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import time
from itertools import product
from statistics import median

import torch
from torch.nn import functional

import corereg
from corereg.geometry.strided import box_mean
from corereg.geometry.warp import affine_coords, sample
from corereg.method.coarse.cost_volume import candidates_vox
from corereg.method.coarse.coupled_convex import coupled_convex
from corereg.method.coarse.passes import half_grid_displacement
from corereg.method.features.convolution.inference import computing_type
from corereg.settings import with_settings
from corereg.training.config import TrainConfig
from corereg.training.objective.losses import registration_loss
from corereg.training.objective.objective import Objective, Phase, new_model
from corereg.training.objective.views import for_stride, random_affine, transport, view

BATCH = 2


def inputs(shape, device):
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(2 * BATCH, 1, *shape, generator=generator)
    images = (3 * box_mean(noise, times=4)).clamp(-2, 2).to(device)
    pseudo = 4 * box_mean(torch.randn(BATCH, 3, *(n // 2 for n in shape), generator=generator), times=6)
    return images[:BATCH], images[BATCH:], pseudo.to(device)


def plain_step(model, fixed, moving, pseudo, config, seed):
    generator, shape = torch.Generator().manual_seed(seed), fixed.shape[2:]
    with torch.no_grad():
        a1 = [random_affine(0.075, shape, generator=generator) for _ in fixed]
        a2 = [random_affine(0.05, shape, generator=generator, after=a) for a in a1]
        views = view(torch.cat([fixed, moving]), [*a1, *a2])
        target = transport(pseudo, a1, a2, stride=2)
    deep = model.extractor(views).deep
    f, m = (config.coupled_convex.feature_scale * h for h in model.head(deep, 8).chunk(2))
    i, j, k = f.shape[2:]
    padded = functional.pad(m, (2,) * 6, mode="replicate")
    offsets = product(range(5), repeat=3)
    cost = [(f - padded[:, :, a : a + i, b : b + j, c : c + k]).abs().sum(1) for a, b, c in offsets]
    found = coupled_convex(box_mean(torch.stack(cost, 1)), candidates_vox(2, like=f), sharpness=20.0,
                           couplings=config.coupled_convex.couplings)  # fmt: skip
    loss = registration_loss(half_grid_displacement(found, 8, target.shape[2:]), target, kind="mse", margin=8)
    originals = torch.cat([fixed, moving])
    affines = [random_affine(0.03, shape, generator=generator) for _ in originals]
    with torch.no_grad():
        others = view(originals, affines)
        quarter = [n // 4 for n in shape]
        coords = torch.cat([affine_coords(quarter, for_stride(a, 4).numpy(), like=originals) for a in affines])
    first = sample(model.extractor(originals).deep_conv, coords).flatten(2)
    second = model.extractor(others).deep_conv.flatten(2)
    chosen = torch.randint(first.shape[2], (1000,), generator=generator)
    rows = [v[:, :, chosen].transpose(1, 2).reshape(-1, v.shape[1]) for v in (first, second)]
    z, other = (functional.normalize(row, dim=1) for row in rows)
    own = (z @ z.T).masked_fill(torch.eye(len(z), dtype=torch.bool), -torch.inf)
    logits = torch.cat([z @ other.T, own], 1) / 0.1
    return loss + 10 * functional.cross_entropy(logits, torch.arange(len(z)))


def measure(variant, shape, steps, device, passes):
    if variant == "plain":
        os.environ["COREREG_KERNELS"] = "torch"
    config = with_settings(TrainConfig(), {"passes": list(passes), "checkpoint_activations": variant == "lean"})
    model = new_model(config, seed=0).to(device).train()
    fixed, moving, pseudo = inputs(shape, device)
    if variant != "plain":
        model.to(memory_format=torch.channels_last_3d)
    objective = Objective(model, config, bf16=computing_type("auto", device) is torch.bfloat16)
    optimiser = torch.optim.Adam(model.parameters())
    wait = torch.cuda.synchronize if device.type == "cuda" else (lambda: None)
    base, rows = peak_mb(device), []
    for seed in range(steps + 1):
        wait()
        start = time.perf_counter()
        if variant == "plain":
            loss = plain_step(model, fixed, moving, pseudo, config, seed)
        else:
            loss = objective(fixed, moving, pseudo, Phase(True, True), 10.0, seed).total
        wait()
        middle = time.perf_counter()
        loss.backward()
        wait()
        last = time.perf_counter()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        wait()
        rows.append((middle - start, last - middle, time.perf_counter() - last))
    forward, backward, update = (median(column) for column in zip(*rows[1:], strict=True))
    total = median(sum(row) for row in rows[1:])
    return {"forward": forward, "backward": backward, "update": update, "step": total, "first": sum(rows[0]),
            "peak_mb": peak_mb(device) - base}  # fmt: skip


def peak_mb(device):
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", type=int, nargs=3, default=[80, 96, 112])
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--variant", choices=["plain", "paper", "ours", "lean"])
    args = parser.parse_args()
    device = torch.device(args.device)
    if args.variant:
        passes = (8, 4) if args.variant in ("ours", "lean") else (8,)
        print(json.dumps(measure(args.variant, args.shape, args.steps, device, passes)))
        return
    print(f"corereg {corereg.__version__}, torch {torch.__version__}, {platform.machine()}, {os.cpu_count()} cores, "
          f"load {os.getloadavg()[0]:.1f}, {device}, {args.shape}, batch {BATCH}")  # fmt: skip
    print("| step | forward s | backward s | update s | step s | first s | peak MB | times faster | memory |")
    print("|---|---|---|---|---|---|---|---|---|")
    plain = None
    for variant in ("plain", "paper", "lean", "ours"):
        command = [sys.executable, __file__, "--variant", variant, "--device", args.device, "--steps", str(args.steps),
                   "--shape", *map(str, args.shape)]  # fmt: skip
        found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1])
        plain = plain or found
        seconds = " | ".join(f"{found[k]:.2f}" for k in ("forward", "backward", "update", "step", "first"))
        ratios = f"{plain['step'] / found['step']:.1f} | {found['peak_mb'] / plain['peak_mb']:.2f}"
        print(f"| {variant} | {seconds} | {found['peak_mb']:.0f} | {ratios} |", flush=True)


if __name__ == "__main__":
    main()
