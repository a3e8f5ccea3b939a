"""Where the seconds of `corereg register` go, files to files, for scans of four sizes.

    python benchmarks/command.py --out /tmp/command                               # phantoms of the three smaller sizes
    python benchmarks/command.py --out /tmp/command --sizes 512x512x300 --runs 1  # takes minutes
    python benchmarks/command.py --out /tmp/command --pair FIXED MOVING           # real scans
    python benchmarks/command.py --out /tmp/command --against OTHER/src           # another version in turn, and ratios

Every run is a process of its own. `--cold` adds runs with an empty cache of compiled kernels, and `--report` runs that
write the report. Columns are wall seconds, medians over the runs; `processor` is user and system time of the process,
which a busy machine disturbs less. `rest` is what no stage takes: nearly all of it is imports. Imports and the loading
of kernels also happen within the stages, so their two columns add to no sum.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.ndimage import zoom

from corereg.data.phantom import make_breathing_pair
from corereg.geometry.grid import Grid
from corereg.io.images.image import write_image

SIZES = {"35x50x36": 6.0, "80x96x112": 3.0, "192x160x256": 3.0, "512x512x300": 3.0}
"""Spacing in mm at which the phantom of each size is made, before its voxels are resampled to that size."""
SMALLER = list(SIZES)[:-1]

STAGES = {
    "read": ["read"],
    "affine": ["affine"],
    "resample": ["resample"],
    "features": ["features"],
    "passes": ["coupled_convex", "warp", "upsample"],
    "refine": ["refine"],
    "judge": ["judge"],
    "inverse": ["invert"],
    "write": ["write"],
}
"""Columns, and the entries of result.json that each sums."""

CHILD = """
import builtins, importlib, json, sys, time
spent, inside = {"imports": 0.0, "kernels": 0.0}, []
def timed(name, function):
    def run(*arguments, **settings):
        begun = time.perf_counter()
        inside.append(name)
        try:
            return function(*arguments, **settings)
        finally:
            inside.pop()
            if name not in inside:
                spent[name] += time.perf_counter() - begun
            if not inside and "numba.core.dispatcher" in sys.modules and not patched:
                patched.append(sys.modules["numba.core.dispatcher"].Dispatcher)
                patched[0].compile = timed("kernels", patched[0].compile)
    return run
whole_import, patched = builtins.__import__, []
builtins.__import__ = timed("imports", whole_import)
importlib.import_module = timed("imports", importlib.import_module)
from corereg.cli import main
place, *sys.argv[1:] = sys.argv[1:]
try:
    main()
finally:
    json.dump(spent, open(place, "w"))
"""
"""The command, with the time that imports and kernels take. Compiling one kernel includes those it calls."""

Row = dict[str, float]


def make_pair(size: str, folder: Path) -> tuple[Path, Path]:
    """Files of a breathing phantom of this size."""
    shape = [int(n) for n in size.split("x")]
    paths = folder / f"fixed_{size}.nii.gz", folder / f"moving_{size}.nii.gz"
    if not all(path.exists() for path in paths):
        pair = make_breathing_pair(0, spacing_mm=SIZES[size])
        factors = np.array(shape) / pair.fixed.shape
        affine = pair.grid.affine @ np.diag([*1 / factors, 1.0])
        for path, array in zip(paths, (pair.fixed, pair.moving), strict=True):
            resized = zoom(array, factors, order=1, grid_mode=True, mode="nearest")
            write_image(path, np.round(resized).astype(np.int16), Grid(resized.shape, affine))
    return paths


def run(pair: Sequence[Path], folder: Path, source: str, *, threads: int, cold: bool, report: bool) -> Row:
    """Register a pair in a process of its own; seconds by column."""
    out, place = folder / "result", folder / "seconds.json"
    shutil.rmtree(out, ignore_errors=True)
    words = ["register", *map(str, pair), "-o", str(out)]
    with tempfile.TemporaryDirectory() as empty:
        variables = {"PYTHONPATH": source, "OMP_NUM_THREADS": str(threads)} | (
            {"NUMBA_CACHE_DIR": empty} if cold else {}
        )
        command = [sys.executable, "-c", CHILD, str(place), *words, *([] if report else ["--no-report"])]
        started = time.perf_counter()
        process = subprocess.Popen(command, env={**os.environ, **variables}, stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        whole = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"corereg {' '.join(words)} ended with status {process.returncode}")
    seconds: dict[str, float] = json.loads((out / "result.json").read_text("utf-8"))["seconds"]
    row = {"whole": whole, "processor": usage.ru_utime + usage.ru_stime, **json.loads(place.read_text("utf-8"))}
    row |= {column: sum(seconds.get(name, 0.0) for name in names) for column, names in STAGES.items()}
    row["rest"] = whole - sum(row[column] for column in STAGES)
    return row | {"MiB": usage.ru_maxrss / 2**10}


def medians(rows: Sequence[Row]) -> Row:
    return {column: statistics.median(row[column] for row in rows) for column in rows[0]}


def line(cells: Sequence[Any]) -> str:
    return f"| {' | '.join(f'{cell:.2f}' if isinstance(cell, float) else str(cell) for cell in cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for the scans and results")
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=SMALLER)
    parser.add_argument("--pair", nargs=2, type=Path, help="register these scans instead of phantoms")
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--cold", action="store_true", help="also run once with an empty cache of kernels")
    parser.add_argument("--report", action="store_true", help="also run once with the report")
    parser.add_argument("--against", help="source folder of another version, run in turn with this one")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    here = str(Path(__file__).resolve().parents[1] / "src")
    versions = {"this": here} | ({"other": options.against} if options.against else {})
    pairs = {options.pair[0].name: options.pair} if options.pair else {}
    pairs = pairs or {size: make_pair(size, options.out) for size in options.sizes}
    header: list[str] = []
    for size, pair in pairs.items():
        for threads in options.threads:
            kinds = [("warm", False, False, options.runs)]
            kinds += [("cold", True, False, 1)] * options.cold + [("report", False, True, 1)] * options.report
            for kind, cold, report, runs in kinds:
                found: dict[str, list[Row]] = {name: [] for name in versions}
                for _ in range(runs):
                    for name, source in versions.items():
                        found[name].append(run(pair, options.out, source, threads=threads, cold=cold, report=report))
                rows = {name: medians(each) for name, each in found.items()}
                if not header:
                    header = ["size", "threads", "run", "version", *rows["this"]]
                    print(line(header), line(["---"] * len(header)), sep="\n")
                for name, row in rows.items():
                    print(line([size, threads, kind, name, *row.values()]), flush=True)
                if "other" in rows:
                    ratios = {column: rows["other"][column] / rows["this"][column] for column in ("whole", "processor")}
                    print(
                        f"{size}, {threads} threads: {ratios['whole']:.2f} times as fast, "
                        f"{ratios['processor']:.2f} times by processor time",
                        file=sys.stderr,
                    )
    print(f"load at the end: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores", file=sys.stderr)


if __name__ == "__main__":
    main()
