"""How often the verdict is right: right and wrong pairs of all regions, half to calibrate, half held out.

    python benchmarks/verdict.py FOLDER --rows rows.jsonl [--limit-seconds 2400]     # rerun to resume
    python benchmarks/verdict.py --rows rows.jsonl --table-only

Registers each pair on a coarse grid with few steps, so that the set is affordable, and keeps its measures as a row. The
tables pass the verdict on the rows again, so that thresholds can be tried without registering again.
"""

import argparse
import json
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from verdict_pairs import CALIBRATION, HELD_OUT, MIRRORED_LEFT_RIGHT, PARTLY, RIGHT, Case, all_cases

import corereg
from corereg.method.quality.quality import FAIL, VERDICTS
from corereg.method.quality.verdict import doubt, quality_of
from corereg.preprocessing.working_grid import choose_working_grid

VOXELS, STEPS = 120_000, 10
"""Size of the working grid, at most that of the default one, and steps of the refinement."""

Row = dict[str, Any]


def measured(case: Case) -> Row:
    fixed, moving = case.fixed(), case.moving()
    own = min(choose_working_grid(fixed.grid, moving.grid).spacing)
    coarse = float(np.prod(fixed.grid.extent_mm) / VOXELS) ** (1 / 3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = corereg.register(fixed, moving, spacing=max(own, coarse), refine_steps=STEPS)
    return {"measures": dict(found.quality.measures)}


def key(case: Case) -> Row:
    return {name: getattr(case, name) for name in ("half", "region", "kind", "name")}


def read(path: Path) -> list[Row]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.is_file() else []


def run_missing(data: Path, path: Path, limit_seconds: float) -> None:
    end = time.monotonic() + limit_seconds
    done = [{name: row[name] for name in ("half", "region", "kind", "name")} for row in read(path)]
    for case in all_cases(data):
        if key(case) in done:
            continue
        if time.monotonic() > end:
            print("the time is up; rerun to resume")
            return
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(key(case) | measured(case)) + "\n")


def area_under_roc(right: Sequence[float], wrong: Sequence[float]) -> float:
    """Probability that a wrong pair raises more doubt than a right one."""
    first, second = np.asarray(wrong)[:, None], np.asarray(right)
    return float((first > second).mean() + (first == second).mean() / 2)


def print_tables(rows: list[Row]) -> None:
    judged = [row | {"quality": quality_of(row["measures"]), "doubt": doubt(row["measures"])} for row in rows]
    print("| half | right pairs | wrong pairs | AUC | right: fail | wrong: fail | all but mirrored left-right |")
    print("|---|---|---|---|---|---|---|")
    for half in (CALIBRATION, HELD_OUT):
        mine = [row for row in judged if row["half"] == half]
        right = [row for row in mine if row["kind"] == RIGHT]
        wrong = [row for row in mine if row["kind"] != RIGHT and row["kind"] not in PARTLY]
        visible = [row for row in wrong if row["kind"] != MIRRORED_LEFT_RIGHT]
        areas = [area_under_roc([r["doubt"] for r in right], [w["doubt"] for w in some]) for some in (wrong, visible)]
        print(
            f"| {half} | {len(right)} | {len(wrong)} | {areas[0]:.3f} | {_failed(right)} | {_failed(wrong)} | "
            f"{areas[1]:.3f}, {_failed(visible)} |"
        )
    print("\n| kind | half | pairs | fail | warn | pass |\n|---|---|---|---|---|---|")
    for kind, half in sorted({(row["kind"], row["half"]) for row in judged}):
        mine = [row for row in judged if (row["kind"], row["half"]) == (kind, half)]
        counts = [sum(row["quality"].verdict == verdict for row in mine) for verdict in VERDICTS]
        print(f"| {kind} | {half} | {len(mine)} | {' | '.join(map(str, counts))} |")
    print("\n| surprise | region, kind, pair | half | doubt | reasons |\n|---|---|---|---|---|")
    for row in judged:
        quality, right = row["quality"], row["kind"] == RIGHT
        if row["kind"] in PARTLY or (quality.verdict == FAIL) is not right:
            continue
        what = f"{row['region']}, {row['kind']}, {row['name']}"
        print(f"| {quality.verdict} | {what} | {row['half']} | {row['doubt']:.2f} | {'; '.join(quality.reasons)} |")


def _failed(rows: list[Row]) -> str:
    failed = sum(row["quality"].verdict == FAIL for row in rows)
    return f"{failed} of {len(rows)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("--rows", type=Path, required=True)
    parser.add_argument("--limit-seconds", type=float, default=np.inf)
    parser.add_argument("--table-only", action="store_true")
    args = parser.parse_args()
    if not args.table_only:
        run_missing(args.data, args.rows, args.limit_seconds)
    print_tables(read(args.rows))


if __name__ == "__main__":
    main()
