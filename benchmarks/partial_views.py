"""Affine step of scans that show other parts of the body: distance to the map of the whole scans.

    python benchmarks/partial_views.py FOLDER

Pairs of trunks (CT) and abdomens (T2 MR) of different people are cut along the body, so that 40 to 90 % of the shorter
one is in both, and the moving header is shifted. The map of the uncut scans, whose own error between two people is 10
to 20 mm, stands for the truth over what both parts show of the fixed body.
"""

import argparse
import time
from collections.abc import Iterator
from itertools import permutations
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from corereg.geometry.grid import Grid, Matrix, transform_points
from corereg.io.images.image import Image, read_image
from corereg.method.affine.align import Alignment, align
from corereg.method.affine.coarse_copies import coarse_copy
from corereg.preprocessing.detection import find_intensities

SCANS = {
    "trunk CT": [f"whole_body_ct/hnsc_00{n}.nii.gz" for n in ("05", "06", "08", "10")],
    "abdomen MR": [f"abdomen_mr/images/chaos_{n}.nii.gz" for n in ("01", "02", "03", "05", "08")],
}
SHARES = (0.4, 0.55, 0.7, 0.9)
"""Of the shorter part, in both."""
TALL_MM, LOW_MM, LARGEST_MM = 350.0, 180.0, 400.0
"""From this common height on, parts of `LOW_MM` to `LARGEST_MM`; below it, parts of half to three quarters of it."""
SHIFT_MM, RIGHT_MM = 150.0, 30.0
FEWEST_POINTS = 200


class Case(NamedTuple):
    kind: str
    name: str
    share: float
    fixed: Image
    moving: Image
    truth: Matrix
    points: NDArray[np.float64]


def aligned(fixed: Image, moving: Image, **options: bool) -> Alignment:
    copies = [coarse_copy(image, find_intensities([image], "auto")[0]) for image in (fixed, moving)]
    return align(copies[0], copies[1], **options)


def cut(image: Image, low: float, high: float, shift: NDArray[np.float64]) -> Image:
    """The slices between two heights in the world, the header shifted."""
    grid = image.grid
    axis = int(np.abs(grid.affine[2, :3]).argmax())
    middle = np.tile((np.array(grid.shape) - 1) / 2, (grid.shape[axis], 1))
    middle[:, axis] = np.arange(grid.shape[axis])
    heights = grid.to_world(middle)[:, 2]
    inside = np.flatnonzero((heights >= low) & (heights <= high))
    first = np.zeros(3)
    first[axis] = inside[0]
    affine = grid.affine.copy()
    affine[:3, 3] = grid.to_world(first) + shift
    array = np.ascontiguousarray(np.take(image.array, inside, axis))
    return Image(array, Grid((array.shape[0], array.shape[1], array.shape[2]), affine))


def body(image: Image, kind: str) -> NDArray[np.float64]:
    """Points (N, 3) in the body, RAS+ millimetres."""
    step = np.maximum(np.array([12.0, 12.0, 8.0]) // np.array(image.grid.spacing), 1).astype(int)
    coarse = image.array[:: step[0], :: step[1], :: step[2]]
    return image.grid.to_world(
        np.argwhere(coarse > (-300 if kind.endswith("CT") else np.percentile(coarse, 60))) * step
    )


def cases(data: Path) -> Iterator[Case]:
    rng = np.random.default_rng(5)
    for kind, names in SCANS.items():
        for one, other in permutations(names, 2):
            fixed, moving = read_image(data / one), read_image(data / other)
            truth = aligned(fixed, moving, any_gain=True).affine
            corners = fixed.grid.corners_mm()
            there = transform_points(np.linalg.inv(truth), moving.grid.corners_mm())
            bottom = max(corners[:, 2].min(), there[:, 2].min())
            common = min(corners[:, 2].max(), there[:, 2].max()) - bottom
            bounds = (LOW_MM, min(LARGEST_MM, 0.8 * common)) if common > TALL_MM else (0.5 * common, 0.75 * common)
            for share in SHARES:
                found = parts(rng, bounds, common, share)
                if found is None:
                    continue
                (low, height), (other_low, other_height) = found
                shift = rng.uniform(-SHIFT_MM, SHIFT_MM, 3)
                ends = np.tile(corners.mean(0), (2, 1))
                ends[:, 2] = bottom + np.array([other_low, other_low + other_height])
                heights = transform_points(truth, ends)[:, 2]
                parted = cut(fixed, bottom + low, bottom + low + height, np.zeros(3))
                moved = cut(moving, heights.min(), heights.max(), shift)
                placed = truth.copy()
                placed[:3, 3] += shift
                points = body(parted, kind)
                voxels = moved.grid.to_voxel(transform_points(placed, points))
                points = points[((voxels >= 0) & (voxels <= np.array(moved.grid.shape) - 1)).all(1)]
                if len(points) >= FEWEST_POINTS:
                    yield Case(kind, f"{Path(one).stem} {Path(other).stem}", share, parted, moved, placed, points)


def parts(
    rng: np.random.Generator, bounds: tuple[float, float], common: float, share: float
) -> tuple[tuple[float, float], tuple[float, float]] | None:
    """Where the two parts begin above the bottom of what is common, and their heights."""
    for _ in range(50):
        height, other = rng.uniform(*bounds, 2)
        both = share * min(height, other)
        low = rng.uniform(0, common - height)
        other_low = low + height - both if rng.random() < 0.5 else low - other + both
        if other_low >= -1 and other_low + other <= common + 1:
            return (low, height), (other_low, other)
    return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    args = parser.parse_args()
    errors: dict[tuple[str, float], list[float]] = {}
    started = time.perf_counter()
    for case in cases(args.data):
        found = transform_points(aligned(case.fixed, case.moving).affine, case.points)
        error = float(np.linalg.norm(found - transform_points(case.truth, case.points), axis=1).mean())
        errors.setdefault((case.kind, case.share), []).append(error)
    print(f"{time.perf_counter() - started:.0f} s")
    print(f"| scans | in both | pairs | within {RIGHT_MM:.0f} mm | median mm |\n|---|---|---|---|---|")
    for (kind, share), each in errors.items():
        within = sum(error < RIGHT_MM for error in each)
        print(f"| {kind} | {share:.0%} | {len(each)} | {within} | {np.median(each):.0f} |")


if __name__ == "__main__":
    main()
