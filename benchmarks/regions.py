"""Every labelled region with corereg and other tools: Dice, error where the motion is known, regularity, time, memory.

    python benchmarks/regions.py --data FOLDER --csv regions.csv
    python benchmarks/regions.py --data FOLDER --csv regions.csv --regions headneck,hippocampus_mr --pairs 3 \\
        --methods corereg,greedy --setting "" --setting "regularisation=1 spacing=1"
    python benchmarks/regions.py --data FOLDER --csv regions.csv --limit-seconds 3000      # rerun to resume
    python benchmarks/regions.py --csv regions.csv --table-only

Every pair goes from files to a field in a process of its own; one program scores all fields. A row is kept for each
region, pair, method, setting, affine choice, number of threads and, for corereg, state of its code; kept rows are not
run again, failed ones are with --retry. Other tools: `corereg peers install greedy ants-syn convexadam niftyreg`.
Run one process per CSV.
"""

import argparse
import csv
import hashlib
import os
import subprocess
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
from cohorts import REGIONS, Files, Pair, pairs_of, spread
from known_truth import settings_of
from numpy.typing import NDArray
from regions_table import print_tables

import corereg
from corereg.evaluation.benchmark.peers.catalogue import OWN, Method, find_method
from corereg.evaluation.benchmark.peers.environments import is_installed
from corereg.evaluation.benchmark.peers.running import run_method
from corereg.evaluation.field_files import read_field
from corereg.evaluation.metrics import fold_percent, mean_dice, sdlogj, warp_labels
from corereg.geometry.grid import HEADER_TOLERANCE_MM, Grid
from corereg.io.atomic import atomic_path

METHODS = (OWN, "greedy", "ants-syn", "convexadam", "niftyreg")
ONE_GRID = ("convexadam",)
"""Methods that compare voxel with voxel: the moving image is first resampled onto the fixed grid, without an affine."""

KEY = ("region", "pair", "method", "setting", "affine", "threads", "code")
MEASURES = ("dice_before", "dice", "error_before_mm", "error_mm", "error_p95_mm", "sdlogj", "folds_percent",
            "seconds", "process_seconds", "peak_memory_mb")  # fmt: skip
COLUMNS = (*KEY, "status", *MEASURES, "version", "date", "load")

Row = dict[str, str]


def code_state() -> str:
    """The commit, and a hash of what differs from it in the package."""
    root = Path(__file__).parents[1]

    def git(*words: str) -> str:
        return subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True).stdout.strip()

    changes = git("diff", "HEAD", "--", "src")
    commit = git("rev-parse", "--short", "HEAD") or "unknown"
    return f"{commit}+{hashlib.sha256(changes.encode()).hexdigest()[:6]}" if changes else commit


def choose(methods: Iterable[str], settings: Sequence[str]) -> list[tuple[Method, str]]:
    """Methods that are installed, ours once for each setting; says which are missing."""
    chosen = []
    for name in methods:
        method = find_method(name)
        if not is_installed(method):
            print(f"left out: {method.name} is not installed (corereg peers install {method.name})", flush=True)
        elif method.name == OWN:
            chosen += [(method, " ".join(sorted(setting.split()))) for setting in settings]
        else:
            chosen.append((method, ""))
    return chosen


def run(method: Method, setting: str, files: Files, args: argparse.Namespace) -> Row:
    """One method on one pair: the measured part of its row, whatever happens."""
    own = settings_of(setting)
    affine = str(own.pop("affine", args.affine))
    if method.name == OWN:
        method = replace(method, own=tuple(own.items()))
    fixed, moving = corereg.read_image(files.fixed).grid, corereg.read_image(files.moving).grid
    with tempfile.TemporaryDirectory(prefix="corereg-regions-") as scratch:
        folder, given = Path(scratch), files.moving
        resampled = method.name in ONE_GRID and not fixed.close_to(moving, HEADER_TOLERANCE_MM)
        if resampled:
            given = folder / "moving.nii.gz"
            onto_fixed = corereg.Transform((np.eye(4),), fixed=fixed).apply(corereg.read_image(files.moving))
            corereg.write_image(given, onto_fixed.array, onto_fixed)
        done = run_method(
            method,
            files.fixed,
            given,
            folder / "field.nii.gz",
            affine=affine,
            threads=args.threads,
            seed=1,
            budget_seconds=args.budget,
            log=folder / "log",
        )
        row: dict[str, Any] = {
            "status": done.status if done.ok else f"{done.status}: {' / '.join(done.tail.splitlines()[-1:])}",
            "seconds": done.seconds,
            "process_seconds": done.process_seconds,
            "peak_memory_mb": done.peak_memory_mb,
            "version": done.version,
        }
        if done.ok:
            try:
                field = read_field(folder / "field.nii.gz", fixed, fixed if resampled else moving)
            except corereg.InputError as error:
                row["status"] = f"wrote a field that cannot be used: {error}"
            else:
                row |= score(files, field.own_vox, fixed, moving)
    return {name: written(value) for name, value in row.items()}


def score(files: Files, own_vox: NDArray[Any], fixed: Grid, moving: Grid) -> dict[str, float]:
    """Measures of a displacement (3, I, J, K) in voxels of the fixed grid."""
    row = {"sdlogj": sdlogj(own_vox), "folds_percent": fold_percent(own_vox)}
    if files.labels is not None:
        target, source = (corereg.read_image(path).array for path in files.labels)
        for name, disp_vox in (("dice_before", np.zeros_like(own_vox)), ("dice", own_vox)):
            warped = warp_labels(source, into_moving(disp_vox, fixed, moving), other_shape=True)
            row[name] = mean_dice(target, warped, source)
    if files.truth is not None:
        with np.load(files.truth) as truth:
            inside, true_vox = truth["inside"], truth["disp_vox"]
        spacing = np.reshape(fixed.spacing, (3, 1))
        for name, found in (("error_before", np.zeros_like(own_vox)), ("error", own_vox)):
            error_mm = np.linalg.norm((found - true_vox)[:, inside] * spacing, axis=0)
            row[f"{name}_mm"] = float(error_mm.mean())
        row["error_p95_mm"] = float(np.percentile(error_mm, 95))
    return row


def into_moving(own_vox: NDArray[Any], fixed: Grid, moving: Grid) -> NDArray[Any]:
    """u in voxels of the fixed grid -> v with index x of the fixed grid at index x + v(x) of the moving grid."""
    if fixed.close_to(moving, HEADER_TOLERANCE_MM):
        return own_vox
    matrix, index = fixed.to_voxels_of(moving), np.indices(fixed.shape, np.float64)
    there = np.einsum("ac,cijk->aijk", matrix[:3, :3], index + own_vox) + matrix[:3, 3].reshape(3, 1, 1, 1)
    return np.asarray(there - index)


def written(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.5g}" if isinstance(value, float) else str(value)


def read_rows(path: Path) -> list[Row]:
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    with atomic_path(path) as staged, staged.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, restval="")
        writer.writeheader()
        writer.writerows(rows)


def key_of(pair: Pair, method: Method, setting: str, code: str, args: argparse.Namespace) -> Row:
    affine = str(settings_of(setting).get("affine", args.affine))
    own_code = code if method.name == OWN else ""
    values = (pair.region, pair.name, method.name, setting, affine, str(args.threads), own_code)
    return dict(zip(KEY, values, strict=True))


def run_missing(rows: list[Row], chosen: list[tuple[Method, str]], code: str, args: argparse.Namespace) -> None:
    """Run what has no row yet, pair by pair, until the time is up; `rows` and the CSV grow."""
    deadline = time.monotonic() + args.limit_seconds
    kept = {tuple(row[name] for name in KEY) for row in rows if row["status"] == "ok" or not args.retry}
    for region in args.regions:
        for pair in spread(pairs_of(region, args.data), args.pairs):
            keys = [(method, setting, key_of(pair, method, setting, code, args)) for method, setting in chosen]
            for method, setting, key in keys:
                if tuple(key.values()) in kept:
                    continue
                if time.monotonic() > deadline:
                    print("the time is up; rerun to resume", flush=True)
                    return
                found = run(method, setting, pair.files(args.cache), args)
                moment = {"date": datetime.now(timezone.utc).date().isoformat(), "load": f"{os.getloadavg()[0]:.1f}"}
                rows[:] = [row for row in rows if any(row[name] != key[name] for name in KEY)]
                rows.append({**dict.fromkeys(COLUMNS, ""), **key, **found, **moment})
                write_rows(args.csv, rows)
                scores = (f"{name} {found[name]}" for name in ("dice", "error_mm", "seconds") if found.get(name))
                print(f"{region}, {pair.name}, {method.name} {setting}:", found["status"], *scores, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with the real scans")
    parser.add_argument("--csv", type=Path, default=Path("regions.csv"), help="where rows are kept")
    parser.add_argument("--regions", default=",".join(REGIONS))
    parser.add_argument("--pairs", type=int, help="at most this many pairs of each region, evenly spread")
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument(
        "--setting", action="append", help='for corereg, e.g. "model=mind regularisation=1"; repeatable'
    )
    parser.add_argument("--affine", choices=("auto", "none"), default="auto", help="auto: each tool's own affine first")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--budget", type=float, default=1800.0, help="seconds for one pair and method")
    parser.add_argument("--limit-seconds", type=float, default=float("inf"), help="start no further pair after this")
    parser.add_argument("--retry", action="store_true", help="run failed pairs again")
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache" / "corereg" / "regions")
    parser.add_argument("--table-only", action="store_true", help="run nothing")
    parser.add_argument("--all-rows", action="store_true", help="show every kept row, not only those of this call")
    args = parser.parse_args()
    args.regions = args.regions.split(",")
    unknown = set(args.regions) - set(REGIONS)
    if unknown:
        parser.error(f"unknown regions {', '.join(sorted(unknown))}; choose from {', '.join(REGIONS)}")
    if args.data is None and not args.table_only:
        parser.error("give the folder of the scans with --data, or --table-only")
    rows, code = read_rows(args.csv), code_state()
    chosen = choose(args.methods.split(","), args.setting or [""])
    if not args.table_only:
        run_missing(rows, chosen, code, args)
    names = {(method.name, setting) for method, setting in chosen}
    shown = [
        row
        for row in rows
        if row["region"] in args.regions
        and (args.all_rows or ((row["method"], row["setting"]) in names and row["code"] in ("", code)))
    ]
    print_tables(shown, args.regions)


if __name__ == "__main__":
    main()
