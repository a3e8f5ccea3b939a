"""Mean error in millimetres where the motion is known, and Dice, for corereg and other tools.

    python benchmarks/known_truth.py --data FOLDER --methods corereg,greedy,convexadam --setting "" \\
        --setting "symmetric=True regularisation=15" --csv known_truth.csv

Runs each kind of pair with each seed: phantom breathing (`corereg.data.phantom`, the truth is its formula) and, if
`--data` has the scans, a real CT and the same CT warped by a random diffeomorphism (`warped_pair`). Rows in the CSV are
kept; `--again corereg` repeats those of a method. Prints a Markdown table and the rows that ended worse than they
began.
"""

import argparse
import ast
import csv
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from known_motion import Pair, body, warped_pair
from numpy.typing import NDArray

from corereg.data.phantom import make_breathing_pair
from corereg.evaluation.benchmark.peers.catalogue import OWN, Method, find_method
from corereg.evaluation.benchmark.peers.running import run_method
from corereg.evaluation.field_files import read_field
from corereg.evaluation.metrics import fold_percent, mean_dice, sdlogj, warp_labels
from corereg.io.images.image import read_image, read_labels, write_image

PHANTOM_SPACING_MM = 3.0
SCANS = {"patient_a": "abdomen/patient_a", "patient_d": "chest/patient_d"}
LABELLED = ("patient_a",)

COLUMNS = ("kind", "seed", "method", "setting", "status", "before_mm", "error_mm", "p95_mm", "max_mm", "dice_before",
           "dice", "sdlogj", "folds_percent", "seconds", "version")  # fmt: skip


def pairs_of(kind: str, seed: int, data: Path | None) -> Pair:
    """The pair of a kind ("abdomen", "chest" of the phantom, or one of SCANS) and a seed."""
    if kind not in SCANS:
        made = make_breathing_pair(seed, kind, PHANTOM_SPACING_MM)
        return Pair(made.fixed, made.moving, made.grid, made.disp_vox, (made.fixed_labels, made.moving_labels))
    assert data is not None
    scan = read_image(data / f"{SCANS[kind]}.nii.gz")
    labels = read_labels(data / f"{SCANS[kind]}_labels.nii.gz").array if kind in LABELLED else None
    return warped_pair(scan, seed, labels)


def settings_of(words: str) -> dict[str, Any]:
    """ "symmetric=True regularisation=15 model=mind" as settings of `corereg.register`."""
    settings = {}
    for name, _, value in (word.partition("=") for word in words.split()):
        try:
            settings[name] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            settings[name] = value
    return settings


def score(pair: Pair, disp_vox: NDArray[Any]) -> dict[str, float]:
    """Errors over the fixed body where the true match lies in the moving image; Dice of labels in both images."""
    index = np.indices(pair.grid.shape)
    sizes = np.reshape(pair.grid.shape, (3, 1, 1, 1))
    there = index + pair.disp_vox
    counts = body(pair.fixed) & ((there >= 0) & (there <= sizes - 1)).all(0)
    spacing = np.reshape(pair.grid.spacing, (3, 1))
    before = np.linalg.norm(pair.disp_vox[:, counts] * spacing, axis=0)
    error = np.linalg.norm((disp_vox - pair.disp_vox)[:, counts] * spacing, axis=0)
    row = {
        "before_mm": before.mean(),
        "error_mm": error.mean(),
        "p95_mm": np.percentile(error, 95),
        "max_mm": error.max(),
        "sdlogj": sdlogj(disp_vox),
        "folds_percent": fold_percent(disp_vox),
    }
    if pair.labels is not None:
        fixed, moving = pair.labels
        row["dice_before"] = mean_dice(fixed, moving, moving)
        row["dice"] = mean_dice(fixed, warp_labels(moving, disp_vox), moving)
    return {name: float(value) for name, value in row.items()}


def run(method: Method, settings: dict[str, Any], pair: Pair, *, threads: int, budget_seconds: float) -> dict[str, Any]:
    """One method on one pair, in a process of its own."""
    own = {"affine": "none"} | settings
    affine = own.pop("affine")
    if method.name == OWN:
        method = replace(method, own=tuple(own.items()))
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for name, array in (("fixed", pair.fixed), ("moving", pair.moving)):
            write_image(folder / f"{name}.nii.gz", array.astype(np.int16), pair.grid)
        done = run_method(
            method,
            folder / "fixed.nii.gz",
            folder / "moving.nii.gz",
            folder / "field.nii.gz",
            affine=affine,
            threads=threads,
            seed=1,
            budget_seconds=budget_seconds,
            log=folder / "log",
        )
        row: dict[str, Any] = {"status": done.status, "seconds": done.seconds, "version": done.version}
        if done.ok:
            row |= score(pair, read_field(folder / "field.nii.gz", pair.grid, pair.grid).own_vox)
    return row


def table(rows: Sequence[dict[str, Any]], kinds: Sequence[str]) -> Iterator[str]:
    """Means over the seeds, in Markdown."""
    yield "| kind | method | pairs | before mm | error mm | 95 % | max | Dice before | Dice | SDlogJ | folds % | s |"
    yield "|---|---|---|---|---|---|---|---|---|---|---|---|"
    shown = ("before_mm", "error_mm", "p95_mm", "max_mm", "dice_before", "dice", "sdlogj", "folds_percent", "seconds")
    for kind in kinds:
        for label in dict.fromkeys((row["method"], row["setting"]) for row in rows if row["kind"] == kind):
            these = [
                r for r in rows if r["kind"] == kind and (r["method"], r["setting"]) == label and r["status"] == "ok"
            ]
            means = [np.mean([float(r[c]) for r in these]) if these and these[0].get(c) else np.nan for c in shown]
            digits = (2, 2, 2, 1, 3, 3, 3, 3, 1)
            cells = ["" if np.isnan(mean) else f"{mean:.{d}f}" for mean, d in zip(means, digits, strict=True)]
            yield f"| {kind} | {' '.join(label).strip()} | {len(these)} | {' | '.join(cells)} |"


def worse(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows that end with a larger error or less overlap than they began with."""
    return [
        row
        for row in rows
        if row["status"] == "ok"
        and (
            float(row["error_mm"]) > float(row["before_mm"])
            or (row["dice"] and float(row["dice"]) < float(row["dice_before"]))
        )
    ]


def read_rows(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, restval="")
        writer.writeheader()
        writer.writerows(
            {c: f"{v:.5g}" if isinstance(v := row.get(c, ""), float) else v for c in COLUMNS} for row in rows
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with the real scans; without it the phantoms alone")
    parser.add_argument("--kinds", default="abdomen,chest,patient_a,patient_d")
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds, from 0")
    parser.add_argument("--methods", default="corereg")
    parser.add_argument(
        "--setting", action="append", help='settings of corereg, e.g. "symmetric=True regularisation=15"; repeatable'
    )
    parser.add_argument("--again", action="append", default=[], help="method whose rows in the CSV are repeated")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--budget", type=float, default=1800.0, help="seconds for a pair and method")
    parser.add_argument("--csv", type=Path, default=Path("known_truth.csv"))
    args = parser.parse_args()
    kinds = [kind for kind in args.kinds.split(",") if args.data or kind not in SCANS]
    wanted = [
        (find_method(name), setting)
        for name in args.methods.split(",")
        for setting in ((args.setting or [""]) if name == OWN else [""])
    ]
    again = {(m.name, setting) for m, setting in wanted if m.name in args.again}
    rows = [row for row in read_rows(args.csv) if (row["method"], row["setting"]) not in again]
    for kind, seed in ((kind, seed) for kind in kinds for seed in range(args.seeds)):
        done = {(r["method"], r["setting"]) for r in rows if (r["kind"], r["seed"]) == (kind, str(seed))}
        missing = [(method, setting) for method, setting in wanted if (method.name, setting) not in done]
        pair = pairs_of(kind, seed, args.data) if missing else None
        for method, setting in missing:
            assert pair is not None
            found = run(method, settings_of(setting), pair, threads=args.threads, budget_seconds=args.budget)
            rows.append({"kind": kind, "seed": str(seed), "method": method.name, "setting": setting, **found})
            write_rows(args.csv, rows)
    rows = read_rows(args.csv)
    print(f"load {os.getloadavg()[0]:.1f}, {args.threads} threads, seeds 0 to {args.seeds - 1}\n")
    print("\n".join(table(rows, kinds)))
    bad = worse(rows)
    print(
        f"\nworse than before: {len(bad)} of {len(rows)} rows",
        *(f"- {list(row.values())[:9]}" for row in bad),
        sep="\n",
    )


if __name__ == "__main__":
    main()
