"""How far apart registrations end when random affine maps change the moving image's header.

    python benchmarks/robustness.py FOLDER [--starts 10] [--affine-only] [--setting NAME=VALUE ...]

A start multiplies the matrix of the moving image and leaves its voxels untouched: a rotation of up to 15 degrees about
a random axis through the middle, a shift of up to 40 mm, a scale within 10 %, isotropic for every other start. The map
that is found, followed by the inverse of the start, leads from the fixed world to that of the original moving image
and should not depend on the start. Printed over the fixed body: the mean distance of the maps to their mean, and the
mean distance of the two maps that lie farthest apart.
"""

import argparse
import ast
import os
from collections.abc import Callable
from functools import partial
from itertools import combinations
from pathlib import Path

import numpy as np
from known_motion import body, warped_pair
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

import corereg
from corereg.geometry.grid import Grid, transform_points
from corereg.io.images.image import Image, read_image

DEGREES, SHIFT_MM, SCALE = 15.0, 40.0, 0.10
POINTS = 20_000

Matrix = NDArray[np.float64]


def random_start(rng: np.random.Generator, centre_mm: NDArray[np.float64], *, isotropic: bool) -> Matrix:
    """A random affine map (4, 4) of the moving world."""
    axis, direction = (v / np.linalg.norm(v) for v in rng.standard_normal((2, 3)))
    rotation = Rotation.from_rotvec(np.radians(rng.uniform(-DEGREES, DEGREES)) * axis).as_matrix()
    scale = 1 + rng.uniform(-SCALE, SCALE, 1 if isotropic else 3) * np.ones(3)
    start = np.eye(4)
    start[:3, :3] = rotation * scale
    start[:3, 3] = centre_mm - start[:3, :3] @ centre_mm + rng.uniform(0, SHIFT_MM) * direction
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
    parser.add_argument("--only", default="", help="only pairs whose name contains this")
    parser.add_argument("--setting", action="append", default=[], metavar="NAME=VALUE")
    args = parser.parse_args()
    settings = {name: ast.literal_eval(value) for name, _, value in (s.partition("=") for s in args.setting)}
    if args.affine_only:
        settings |= {"refine_steps": 0}
    print(f"load {os.getloadavg()[0]:.1f}, seed {args.seed}, {args.starts} starts, mm")
    print("| pair | before: mean, largest | affine: mean, largest | final: mean, largest | kept | affine s |")
    print("|---|---|---|---|---|---|", flush=True)
    for name, made in pairs(args.data).items():
        if args.only not in name:
            continue
        fixed, moving = made()
        rng = np.random.default_rng(args.seed)
        inside = np.argwhere(body(fixed.array.astype(np.float32)))
        points = fixed.grid.to_world(rng.permutation(inside)[:POINTS])
        centre = moving.grid.to_world((np.array(moving.grid.shape) - 1) / 2)
        found: dict[str, list[NDArray[np.float64]]] = {"before": [], "affine": [], "final": []}
        kept, seconds = 0, []
        for number in range(args.starts):
            start = random_start(rng, centre, isotropic=number % 2 == 1)
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
        cells = " | ".join("{:.2f}, {:.2f}".format(*spread(np.stack(maps))) for maps in found.values())
        print(f"| {name} | {cells} | {kept} | {np.median(seconds):.1f} |", flush=True)


if __name__ == "__main__":
    main()
