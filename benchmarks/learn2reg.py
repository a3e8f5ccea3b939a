"""Dice, SDlogJ, folds and seconds of the package on the validation pairs of a Learn2Reg data set.

    python benchmarks/learn2reg.py DATASET.json --model mind --model random --point R=1 --point S=0.065 --point S=0.10

Works on the images as they are (`affine="none"`), as the challenge does. Prints one Markdown row per model and
working point and, with --rows FILE, writes one JSON line per pair. A working point is R=<regularisation>,
S=<target SDlogJ of each pair>, or "default".
"""

import argparse
import json
import os
import platform
import subprocess
import time
from pathlib import Path

import numpy as np
import torch

import corereg
from corereg.evaluation.metrics import dice, fold_percent, mean_over_labels, sdlogj
from corereg.io.images.image import read_image, read_labels


def settings_of(point: str) -> dict[str, float]:
    if point == "default":
        return {}
    name, value = point.split("=")
    return {{"R": "regularisation", "S": "target_sdlogj"}[name]: float(value)}


def run_pair(folder: Path, pair: dict[str, str], settings: dict[str, object]) -> dict[str, object]:
    paths = {side: folder / pair[side] for side in ("fixed", "moving")}
    images = {side: read_image(path) for side, path in paths.items()}
    labels = {
        side: read_labels(path.parent.parent / path.parent.name.replace("images", "labels") / path.name)
        for side, path in paths.items()
    }
    start = time.perf_counter()
    result = corereg.register(images["fixed"], images["moving"], **settings)
    seconds = time.perf_counter() - start
    fixed, moving = labels["fixed"].array, labels["moving"].array
    row = {"fixed": paths["fixed"].name, "moving": paths["moving"].name, "seconds": seconds}
    row |= {"regularisation": result.regularisation, "dice_before": mean_over_labels(dice(fixed, moving, moving))}
    for stage, displacement in (("coarse", result.coarse), ("refined", result.refined)):
        field = displacement.at(images["fixed"].grid)
        parts = (displacement,) if result.alignment is None else (displacement, result.alignment.affine)
        warped = corereg.Transform(parts, fixed=images["fixed"]).apply(labels["moving"], labels=True).array
        disp_vox = field.disp_vox.numpy()
        row |= {
            f"dice_{stage}": mean_over_labels(dice(fixed, warped, moving)),
            f"sdlogj_{stage}": sdlogj(disp_vox),
            f"folds_percent_{stage}": fold_percent(disp_vox),
        }
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--model", action="append", default=[])
    parser.add_argument("--point", action="append", default=[])
    parser.add_argument("--affine", default="none")
    parser.add_argument("--modality", default="auto")
    parser.add_argument("--passes", default=None)
    parser.add_argument("--one-way", action="store_true")
    parser.add_argument("--no-fine", action="store_true")
    parser.add_argument("--parametrisation", default=None)
    parser.add_argument("--volume-preservation", type=float, default=None)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--pairs", type=int, default=None, help="only the first N pairs", metavar="N")
    parser.add_argument("--rows", type=Path, default=None)
    args = parser.parse_args()
    pairs = json.loads(args.dataset.read_text())["registration_val"][: args.pairs]
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    print(
        f"corereg {commit}, torch {torch.__version__}, {platform.machine()}, {os.cpu_count()} cores, "
        f"{torch.get_num_threads()} threads, load {os.getloadavg()[0]:.1f}, seed {args.seed}, {len(pairs)} pairs"
    )
    stages = "coarse: Dice / SDlogJ / folds % | refined: Dice +- sd / SDlogJ / folds %"
    print(f"| model | point | Dice before | {stages} | R | s |")
    print("|---|---|---|---|---|---|---|", flush=True)
    for model in args.model or ["mind"]:
        for point in args.point or ["default"]:
            settings = {
                "model": model,
                "affine": args.affine,
                "modality": args.modality,
                "seed": args.seed,
                "symmetric": not args.one_way,
                "fine": False if args.no_fine else None,
                "parametrisation": args.parametrisation,
                "volume_preservation": args.volume_preservation,
            }
            settings |= settings_of(point) | (
                {"passes": tuple(map(int, args.passes.split(",")))} if args.passes else {}
            )
            rows = [run_pair(args.dataset.parent, pair, settings) for pair in pairs]
            if args.rows:
                with args.rows.open("a") as file:
                    file.writelines(json.dumps({"model": model, "point": point, **row}) + "\n" for row in rows)
            mean = {k: float(np.mean([r[k] for r in rows])) for k in rows[0] if k not in ("fixed", "moving")}
            seconds = float(np.median([r["seconds"] for r in rows]))
            spread = float(np.std([r["dice_refined"] for r in rows], ddof=1))
            worse = sum(r["dice_refined"] < r["dice_before"] for r in rows)
            print(
                f"| {model} | {point} | {mean['dice_before']:.3f} "
                f"| {mean['dice_coarse']:.3f} / {mean['sdlogj_coarse']:.3f} / {mean['folds_percent_coarse']:.2f} "
                f"| {mean['dice_refined']:.3f} +- {spread:.3f} / {mean['sdlogj_refined']:.3f} / "
                f"{mean['folds_percent_refined']:.2f} ({worse} worse) | {mean['regularisation']:.3g} | {seconds:.1f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
