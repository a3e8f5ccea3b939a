"""How far apart registrations end when random affine or rigid maps change the moving image's header.

    python benchmarks/robustness.py FOLDER [--starts 10] [--affine-only] [--setting NAME=VALUE ...]
    python benchmarks/robustness.py FOLDER --regions headneck,hippocampus_mr,phantom_chest [--degrees 5] [--shift 10]

A start multiplies the matrix of the moving image and leaves its voxels untouched: a rotation of up to 15 degrees about
a random axis through the middle, a shift of up to 40 mm, a scale within 10 %, isotropic for every other start. With
--regions, pairs of regions of `regions.py` start from rigid motions, without a scale. The map that is found, followed
by the inverse of the start, leads from the fixed world to that of the original moving image and should not depend on
the start. Printed over the fixed body: the mean distance of the maps to their mean, and the mean distance of the two
maps that lie farthest apart; then what each verdict says.
"""

import argparse
import ast
import os
from collections import Counter
from collections.abc import Callable
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

import cohorts
import numpy as np
from cohorts import REGIONS, Pair, pairs_of
from known_motion import AIR_HU, body, warped_pair
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

import corereg
from corereg.geometry.grid import Grid, transform_points
from corereg.io.images.image import Image, read_image
from corereg.preprocessing.body import body_threshold

DEGREES, SHIFT_MM, SCALE = 15.0, 40.0, 0.10
POINTS = 20_000

Matrix = NDArray[np.float64]


def random_start(
    rng: np.random.Generator, centre_mm: NDArray[np.float64], degrees: float, shift_mm: float, scale: float, *,
    isotropic: bool,
) -> Matrix:  # fmt: skip
    """A random affine map (4, 4) of the moving world."""
    axis, direction = (v / np.linalg.norm(v) for v in rng.standard_normal((2, 3)))
    rotation = Rotation.from_rotvec(np.radians(rng.uniform(-degrees, degrees)) * axis).as_matrix()
    scales = 1 + rng.uniform(-scale, scale, 1 if isotropic else 3) * np.ones(3)
    start = np.eye(4)
    start[:3, :3] = rotation * scales
    start[:3, 3] = centre_mm - start[:3, :3] @ centre_mm + rng.uniform(0, shift_mm) * direction
    return start


def pairs(data: Path) -> dict[str, Callable[[], tuple[Image, Image]]]:
    def read(*names: str) -> tuple[Image, Image]:
        fixed, moving = (read_image(data / f"{name}.nii.gz") for name in names)
        return fixed, moving

    def warped() -> tuple[Image, Image]:
        pair = warped_pair(read_image(data / "chest" / "patient_d.nii.gz"), seed=0)
        return Image(pair.fixed, pair.grid, name="d"), Image(pair.moving, pair.grid, name="d, warped")

    headneck = (f"headneck/imagesTr/HeadNeckCT_00{n}_0000" for n in (75, 76))
    return {
        "headneck 75, 76": partial(read, *headneck),
        "abdomen b, c": partial(read, "abdomen/patient_b", "abdomen/patient_c"),
        "abdomen b, a": partial(read, "abdomen/patient_b", "abdomen/patient_a"),
        "chest d, warped": warped,
    }


def pairs_of_regions(
    data: Path, cache: Path, regions: list[str], count: int
) -> dict[str, Callable[[], tuple[Image, Image]]]:
    """The first pair of each region, or `count` pairs spread over it."""

    def read(pair: Pair) -> tuple[Image, Image]:
        files = pair.files(cache)
        return read_image(files.fixed), read_image(files.moving)

    chosen = [pair for region in regions for pair in cohorts.spread(pairs_of(region, data), count)]
    return {f"{pair.region} {pair.name}": partial(read, pair) for pair in chosen}


def inside_of(array: NDArray[Any]) -> NDArray[np.bool_]:
    """The body of a CT, with its air; of an MR, what is not dark."""
    values = array.astype(np.float32)
    return body(values) if values.min() < AIR_HU else values > body_threshold(values)


def spread(maps: NDArray[np.float64]) -> tuple[float, float]:
    """Mean distance to the mean map, and largest mean distance of two maps; (N, points, 3)."""
    to_mean = np.linalg.norm(maps - maps.mean(0), axis=2).mean()
    return float(to_mean), max(float(np.linalg.norm(a - b, axis=1).mean()) for a, b in combinations(maps, 2))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--starts", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--affine-only", action="store_true")
    parser.add_argument("--regions", help=f"rigid starts of pairs of {', '.join(REGIONS)}")
    parser.add_argument("--pairs", type=int, default=1, help="of each region, spread over it")
    parser.add_argument("--degrees", type=float, default=DEGREES)
    parser.add_argument("--shift", type=float, default=SHIFT_MM, metavar="MM")
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache" / "corereg" / "regions")
    parser.add_argument("--only", default="", help="only pairs whose name contains this")
    parser.add_argument("--setting", action="append", default=[], metavar="NAME=VALUE")
    args = parser.parse_args()
    settings = {name: ast.literal_eval(value) for name, _, value in (s.partition("=") for s in args.setting)}
    if args.affine_only:
        settings |= {"refine_steps": 0}
    print(f"load {os.getloadavg()[0]:.1f}, seed {args.seed}, {args.starts} starts, mm")
    print(
        "| pair | before: mean, largest | affine: mean, largest | final: mean, largest | kept | affine s | verdicts |"
    )
    print("|---|---|---|---|---|---|---|", flush=True)
    by_region = args.regions is not None
    chosen = (
        pairs_of_regions(args.data, args.cache, args.regions.split(","), args.pairs) if by_region else pairs(args.data)
    )
    for name, made in chosen.items():
        if args.only not in name:
            continue
        fixed, moving = made()
        rng = np.random.default_rng(args.seed)
        inside = np.argwhere(inside_of(fixed.array))
        points = fixed.grid.to_world(rng.permutation(inside)[:POINTS])
        centre = moving.grid.to_world((np.array(moving.grid.shape) - 1) / 2)
        found: dict[str, list[NDArray[np.float64]]] = {"before": [], "affine": [], "final": []}
        kept, seconds, verdicts = 0, [], Counter[str]()
        for number in range(args.starts):
            start = random_start(
                rng, centre, args.degrees, args.shift, 0.0 if by_region else SCALE, isotropic=number % 2 == 1
            )
            moved = Image(moving.array, Grid(moving.grid.shape, start @ moving.grid.affine), name=moving.name)
            result = corereg.register(fixed, moved, **settings)
            alignment = result.alignment
            assert alignment is not None
            maps = {
                "before": points,
                "affine": transform_points(alignment.affine, points),
                "final": result.transform.apply_points(points),
            }
            for stage, there in maps.items():
                found[stage].append(transform_points(np.linalg.inv(start), there))
            kept += not alignment.needed
            seconds.append(result.seconds["affine"])
            verdicts[": ".join((result.quality.verdict, *result.quality.reasons))] += 1
        cells = " | ".join("{:.2f}, {:.2f}".format(*spread(np.stack(maps))) for maps in found.values())
        said = ", ".join(f"{count} {verdict}" for verdict, count in verdicts.most_common())
        print(f"| {name} | {cells} | {kept} | {np.median(seconds):.1f} | {said} |", flush=True)


if __name__ == "__main__":
    main()
