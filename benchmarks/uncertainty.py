"""Whether the uncertainty map tells the error: known motion, some pairs to fit its law on and others to check it.

    python benchmarks/uncertainty.py FOLDER --rows rows/ [--limit-seconds 2400]     # rerun to resume
    python benchmarks/uncertainty.py --rows rows/ --table-only [--fit]

Registers phantoms before and after a breath, and scans that were warped by random diffeomorphisms (`known_motion`). Of
each pair, the signs and the true error at random voxels of the body are kept, so that the law can be fitted and checked
again without registering.
"""

import argparse
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import torch
from known_motion import Pair, body, warped_pair
from numpy.typing import NDArray
from scipy import ndimage
from scipy.optimize import nnls
from scipy.stats import spearmanr

import corereg
from corereg.data.phantom import make_breathing_pair
from corereg.io.images.image import Image, read_image
from corereg.method.quality import uncertainty
from corereg.method.quality.uncertainty import DISAGREEMENT, LEAST, OFFSET, Law, bound_vox
from corereg.preprocessing.working_grid import shrink

FITTED, HELD_OUT = "fitted", "held out"
SAMPLES = 6000
SHARE = 0.95

Row = dict[str, NDArray[Any]]


class Case(NamedTuple):
    half: str
    name: str
    make: Callable[[], Any]
    """A pair of `known_motion`, or of breathing."""


def all_cases(data: Path) -> Iterator[Case]:
    """Pairs, both halves in turn. No patient, and no kind of real scan but abdominal CT, is in both."""
    heads = sorted((data / "headneck" / "imagesTr").glob("*.nii.gz"))
    scans = {
        FITTED: [(data / "abdomen" / "patient_a.nii.gz", 3.0), (heads[3], 3.0)],
        HELD_OUT: [(data / "chest" / "patient_d.nii.gz", 3.5), (data / "abdomen" / "patient_b.nii.gz", 3.0)],
    }
    for n in range(4):
        for half, seed in ((FITTED, 10 + n), (HELD_OUT, 20 + n)):
            kind = ("abdomen", "chest")[n % 2]
            yield Case(half, f"phantom {kind} {seed}", lambda s=seed, k=kind: make_breathing_pair(s, k, 4.0))
            path, spacing_mm = scans[half][n % 2]
            yield Case(half, f"{path.name[:-7]} {seed}", lambda p=path, mm=spacing_mm, s=seed: _warped(p, mm, s))


def _warped(path: Path, spacing_mm: float, seed: int) -> Pair:
    scan = read_image(path)
    volume, grid = shrink(scan.array, scan.grid, spacing_mm, device=torch.device("cpu"))
    return warped_pair(Image(volume[0, 0].numpy().round(), grid), seed)


def measured(pair: Any) -> Row:
    kept: list[torch.Tensor] = []
    signs_of = uncertainty.signs_of

    def keeping(judged: Any) -> torch.Tensor:
        kept.append(signs_of(judged))
        return kept[-1]

    with warnings.catch_warnings(), mock.patch.object(uncertainty, "signs_of", keeping):
        warnings.simplefilter("ignore")
        fixed, moving = (Image(array, pair.grid) for array in (pair.fixed, pair.moving))
        found = corereg.register(fixed, moving, uncertainty=True)
    truth = np.einsum("ab,bijk->aijk", pair.grid.linear, pair.disp_vox.astype(np.float64))
    error = np.linalg.norm(found.transform.total_mm() - truth, axis=0)
    inside = np.random.default_rng(0).permutation(np.argwhere(body(pair.fixed)))[:SAMPLES]
    at = found.refined.grid.strided(uncertainty.STRIDE).to_voxel(pair.grid.to_world(inside)).T
    signs = [ndimage.map_coordinates(sign.numpy(), at, order=1, mode="nearest") for sign in kept[0][0]]
    where = tuple(inside.T)
    return {
        "error_mm": error[where],
        "signs": np.stack(signs),
        "spacing_mm": np.array(max(found.refined.grid.spacing)),
        "seconds": np.array([found.seconds["uncertainty"], sum(found.seconds.values())]),
    }


def run_missing(data: Path, rows: Path, limit_seconds: float) -> None:
    rows.mkdir(exist_ok=True)
    end = time.monotonic() + limit_seconds
    for case in all_cases(data):
        path = rows / f"{case.half}, {case.name}.npz"
        if path.exists():
            continue
        if time.monotonic() > end:
            print("the time is up; rerun to resume")
            return
        np.savez(path, **measured(case.make()))


def fit(rows: list[Row], *, one_way: bool) -> Law:
    """The law's powers by non-negative least squares on the logarithm of the error; its factor covers 95 %."""
    used = [s for s in range(len(LEAST)) if not (one_way and s == DISAGREEMENT)]
    least = tuple(LEAST[s] for s in used)
    logs = [np.log(np.concatenate([row["signs"][s] for row in rows]) + LEAST[s]) for s in used]
    error = np.log(np.concatenate([row["error_mm"] / row["spacing_mm"] for row in rows]) + OFFSET)
    powers = nnls(np.stack([*logs, np.ones_like(error), -np.ones_like(error)], 1), error)[0][: len(used)]
    rest = error - sum(power * log for power, log in zip(powers, logs, strict=True))
    return Law(float(np.exp(np.quantile(rest, SHARE))), tuple(map(float, powers)), least)


def bound_mm(row: Row, law: Law | None) -> NDArray[np.float64]:
    signs = torch.as_tensor(row["signs"]).float()[None, :, :, None, None]
    if law is not None and len(law.powers) < signs.shape[1]:
        signs = signs[:, [s for s in range(len(LEAST)) if s != DISAGREEMENT]]
    return row["spacing_mm"] * bound_vox(signs, law)[0, 0, :, 0, 0].double().numpy()


def print_table(rows: dict[str, Row], law: Law | None) -> None:
    print("| half | pair | error, mean (mm) | bound, mean (mm) | voxels inside | Spearman |\n|---|---|---|---|---|---|")
    lines = {name: _line(row, law) for name, row in rows.items()}
    for name, line in lines.items():
        print(f"| {' | '.join(name.split(', '))} | {' | '.join(_cells(line))} |")
    for half in (FITTED, HELD_OUT):
        mine = [line for name, line in lines.items() if name.startswith(half)]
        if mine:
            print(f"| {half} | all {len(mine)} | {' | '.join(_cells(np.mean(mine, 0)))} |")


def _line(row: Row, law: Law | None) -> list[float]:
    error, bound = row["error_mm"], bound_mm(row, law)
    return [error.mean(), bound.mean(), 100 * (error <= bound).mean(), spearmanr(error, bound).statistic]


def _cells(line: Any) -> list[str]:
    return [
        f"{value:.{digits}f}{unit}" for value, digits, unit in zip(line, (1, 1, 1, 2), ("", "", " %", ""), strict=True)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("--rows", type=Path, required=True)
    parser.add_argument("--limit-seconds", type=float, default=np.inf)
    parser.add_argument("--table-only", action="store_true")
    parser.add_argument("--fit", action="store_true", help="print the laws of the fitted half, and use them")
    args = parser.parse_args()
    if not args.table_only:
        run_missing(args.data, args.rows, args.limit_seconds)
    rows = {path.stem: dict(np.load(path)) for path in sorted(args.rows.glob("*.npz"))}
    laws: list[Law | None] = [None]
    if args.fit:
        fitted = [row for name, row in rows.items() if name.startswith(FITTED)]
        laws = [fit(fitted, one_way=one_way) for one_way in (False, True)]
    for law in laws:
        print(law or "the law on board", end="\n\n")
        print_table(rows, law)
    seconds = np.array([row["seconds"] for row in rows.values()])
    print(f"\nThe map takes {np.median(seconds[:, 0] / seconds[:, 1]):.1%} of a registration (median).")


if __name__ == "__main__":
    main()
