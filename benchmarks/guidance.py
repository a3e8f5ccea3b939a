"""What guidance by labels, landmarks, masks and rigid structures gains: the tables of guidance.md.

    python benchmarks/guidance.py DATA [headneck abdomen landmarks keypoints clouds masks slab rigid] [--every N]

DATA is the folder of the shared scans. All is seeded.
"""

import argparse
import json
import time
import warnings
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from known_motion import body, warped_pair
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial.distance import cdist

from corereg import register
from corereg.data.phantom import make_breathing_pair
from corereg.data.phantom.images import NOISE_HU
from corereg.evaluation.metrics import dice, mean_over_labels
from corereg.geometry.displacement import invert
from corereg.geometry.grid import Grid
from corereg.io.images.image import Image, read_image, read_labels
from corereg.method.guidance.correspondences import corresponding_points
from corereg.method.guidance.rigid import RigidGuide, largest_deviation_mm
from corereg.method.guidance.scattered import fit_offsets, wrong_offsets

HEADNECK_TWO = (2, 7)
"""Spinal cord and mandible."""
ORGANS = (3, 27, 28, 29, 50)
"""Labels of patient_a that guide: aorta, both kidneys, liver, spleen."""
ALL: dict[str, Any] = {"guide_labels": True}
HEADNECK_GUIDES: dict[str, Any] = {"nothing": {}, "these two": {"guide_only": HEADNECK_TWO}, "all seven": ALL}
ABDOMEN_GUIDES: dict[str, Any] = {"nothing": {}, "five organs": {"guide_only": ORGANS}, "all 59": ALL}
LUNG_SPACING_MM = 1.5
LANDMARKS, NOISE_MM, WRONG, WRONG_MM, NEAR_MM = 20, 1.0, 2, 30.0, 20.0
BLINDING_HU = 400.0
RIGID_MM, RIGID_HU = 15.0, 150.0

Rows = Iterator[tuple[object, ...]]


def headneck(data: Path, every: int) -> Rows:
    """Validation pairs unguided, guided by two structures, and by all."""
    yield "guided by", "Dice of cord and mandible", "of the other five", "of all", "SDlogJ", "folds %", "time"
    folder = data / "headneck"
    pairs = json.loads((folder / "HeadNeckCT_dataset.json").read_text("utf-8"))["registration_val"][::every]
    found: dict[str, list[list[float]]] = {}
    for pair in pairs:
        paths = [folder / pair[side] for side in ("fixed", "moving")]
        labels = [read_labels(str(path).replace("imagesTr", "labelsTr")) for path in paths]
        for name, settings in (
            ("nothing", {}),
            ("these two", {"guide_only": HEADNECK_TWO}),
            ("all seven", {"guide_labels": True}),
        ):
            both: Any = {"fixed_labels": labels[0], "moving_labels": labels[1], **settings}
            started = time.process_time()
            result = register(*paths, affine="none", **both)
            seconds = time.process_time() - started
            scores = dice(labels[0].array, result.transform.apply(labels[1], labels=True).array, labels[1].array)
            two = mean_over_labels({n: s for n, s in scores.items() if n in HEADNECK_TWO})
            five = mean_over_labels({n: s for n, s in scores.items() if n not in HEADNECK_TWO})
            metrics = result.metrics["sdlogj"], result.metrics["fold_percent"]
            found.setdefault(name, []).append([two, five, mean_over_labels(scores), *metrics, seconds])
    for name, rows in found.items():
        *means, seconds = np.mean(rows, 0)
        yield name, *(f"{mean:.3f}" for mean in means), f"{seconds / np.mean(found['nothing'], 0)[-1]:.2f}"


def abdomen(data: Path, every: int) -> Rows:
    """A CT with 59 labels, and the same CT in another contrast, moved by a known field."""
    yield "guided by", "error mm, body", "error mm, organs that do not guide", "Dice of these", "folds %", "time"
    scan = read_image(data / "abdomen" / "patient_a.nii.gz")
    labels = read_labels(next((data / "abdomen").glob("patient_a_labels.nii*")))
    pair = warped_pair(scan, 1, labels.array)
    assert pair.labels is not None
    inside = body(pair.fixed)
    moving = Image(other_contrast(pair.moving), scan.grid)
    maps = [Image(array, scan.grid) for array in pair.labels]
    others = np.isin(maps[0].array, [n for n in np.unique(maps[0].array) if n and n not in ORGANS])
    unguided = 0.0
    for name, settings in ABDOMEN_GUIDES.items():
        both: Any = {"fixed_labels": maps[0], "moving_labels": maps[1], **settings}
        started = time.process_time()
        result = register(scan, moving, affine="none", **both)
        seconds = time.process_time() - started
        unguided = unguided or seconds
        error = error_mm(result.transform, scan.grid, pair.disp_vox)
        scores = dice(maps[0].array, result.transform.apply(maps[1], labels=True).array, maps[1].array)
        left = mean_over_labels({n: s for n, s in scores.items() if n not in ORGANS})
        folds = f"{result.metrics['fold_percent']:.4f}"
        yield (
            name,
            f"{error[inside].mean():.2f}",
            f"{error[others].mean():.2f}",
            f"{left:.3f}",
            folds,
            f"{seconds / unguided:.2f}",
        )


def landmarks(data: Path, every: int) -> Rows:
    """Phantoms that breathe, with noise that is usual or misleads; 20 landmarks, 1 mm off, two of them wrong."""
    columns = "error mm near landmarks", "guided", "in the body", "guided", "SDlogJ", "guided", "folds %"
    yield "phantom", "noise", *columns, "TRE mm", "left out", "wrong pairs", "named wrong"
    for seed, noise in product(range(0, 3, every), (NOISE_HU, BLINDING_HU)):
        pair = make_breathing_pair(seed, "chest", 4.0, noise_hu=noise)
        rng = np.random.default_rng([seed, 7])
        inside = pair.fixed_labels > 0
        picked = np.argwhere(inside)[rng.permutation(inside.sum())[:LANDMARKS]]
        fixed_mm = pair.grid.to_world(picked)
        moving_mm = pair.grid.to_world(picked + pair.disp_vox[:, picked[:, 0], picked[:, 1], picked[:, 2]].T)
        moving_mm += rng.normal(0, NOISE_MM / np.sqrt(3), moving_mm.shape)
        directions = rng.normal(size=(WRONG, 3))
        moving_mm[:WRONG] += WRONG_MM * directions / np.linalg.norm(directions, axis=1, keepdims=True)
        images = [Image(array, pair.grid) for array in (pair.fixed, pair.moving)]
        points: Any = {"fixed_points": fixed_mm, "moving_points": moving_mm}
        near = inside & (distance_mm(pair.grid, picked[WRONG:]) < NEAR_MM)
        errors: list[list[float]] = []
        for guide in (False, True):
            result = register(*images, affine="none", **points, guide_points=guide)
            error = error_mm(result.transform, pair.grid, pair.disp_vox)
            errors.append([error[near].mean(), error[inside].mean(), result.metrics["sdlogj"]])
        named = ", ".join(one.name for one in result.landmarks if one.wrong)
        tre = (f"{result.metrics[key]:.2f}" for key in ("tre_mm", "tre_left_out_mm"))
        compared = (f"{each:.{3 if n == 2 else 2}f}" for n in range(3) for each in (errors[0][n], errors[1][n]))
        yield seed, noise, *compared, f"{result.metrics['fold_percent']:.4f}", *tre, "1, 2", named


def keypoints(data: Path, every: int) -> Rows:
    """Key-points of lungs alone: a third is left out and predicted from the others."""
    yield (
        "cohort",
        "pairs",
        "TRE mm of the third before",
        "inverse distance",
        "its 8 nearest",
        "corereg",
        "called wrong %",
    )
    found: dict[str, list[list[float]]] = {}
    for path in sorted((data / "lung_keypoints" / "correspondences").glob("*.csv"))[::every]:
        points = LUNG_SPACING_MM * np.loadtxt(path, delimiter=",")[::2]
        held = np.random.default_rng(0).random(len(points)) < 1 / 3
        start, offsets = points[:, :3], points[:, 3:] - points[:, :3]
        settings: Any = {"bound_mm": 2.0, "trend": True}
        wrong = wrong_offsets(start[~held], offsets[~held], **settings)
        fit = fit_offsets(start[~held][~wrong], offsets[~held][~wrong], **settings)
        apart = cdist(start[held], start[~held]).clip(1e-6)
        kinds = [
            np.zeros_like(offsets[held]),
            inverse_distance(apart, offsets[~held]),
            inverse_distance(apart, offsets[~held], 8),
        ]
        errors = [np.linalg.norm(kind - offsets[held], axis=1).mean() for kind in (*kinds, fit(start[held]))]
        found.setdefault(path.name.split("_")[0], []).append([*errors, 100 * wrong.mean()])
    for cohort, rows in found.items():
        yield cohort, len(rows), *(f"{mean:.2f}" for mean in np.mean(rows, 0))


def clouds(data: Path, every: int) -> Rows:
    """Key-points of lungs in another order, a fifth of either side lost: error at all true pairs."""
    yield "cohort", "lungs", "right pairs %", "found %", "TRE mm before", "unmatched", "matched", "folds %", "s"
    found: dict[str, list[list[float]]] = {}
    for path in sorted((data / "lung_keypoints" / "correspondences").glob("*.csv"))[::every]:
        points = LUNG_SPACING_MM * np.loadtxt(path, delimiter=",")[::2]
        fixed, moving = points[:, :3], points[:, 3:]
        rng = np.random.default_rng(0)
        left, right = (rng.permutation(len(points))[: round(0.8 * len(points))] for _ in range(2))
        started = time.process_time()
        first, second = corresponding_points(fixed[left], moving[right], bound_mm=2.0).T
        seconds = time.process_time() - started
        same = left[first] == right[second]
        both = np.intersect1d(left, right)
        shape = np.ceil(points.reshape(-1, 3).max(0) / LUNG_SPACING_MM).astype(int) + 1
        ramp = np.broadcast_to(np.arange(shape[0], dtype=np.float32)[:, None, None], shape)  # any image
        image = Image(np.ascontiguousarray(ramp), Grid(tuple(shape.tolist()), np.diag([*[LUNG_SPACING_MM] * 3, 1.0])))
        results = [
            register(image, image, points_only=True, spacing=4.0, **pair)
            for pair in (
                {"fixed_points": fixed[left], "moving_points": moving[right], "unmatched_points": True},
                {"fixed_points": fixed[both], "moving_points": moving[both]},
            )
        ]
        errors = [np.linalg.norm(r.transform.apply_points(fixed) - moving, axis=1).mean() for r in results]
        before = np.linalg.norm(fixed - moving, axis=1).mean()
        folds = results[0].metrics["fold_percent"]
        row = [100 * same.mean(), 100 * same.sum() / len(both), before, *errors, folds, seconds]
        found.setdefault(path.name.split("_")[0], []).append(row)
    for cohort, rows in found.items():
        yield cohort, len(rows), *(f"{mean:.2f}" for mean in np.mean(rows, 0))


def masks(data: Path, every: int) -> Rows:
    """A mask of the chest's inside against none: the error inside it."""
    yield "pair", "error mm inside the mask without it", "with it"
    for name, fixed, moving, grid, truth in chests(data):
        inside = ndimage.binary_erosion(body(fixed), iterations=max(1, round(15 / grid.spacing[0])))
        images = Image(fixed, grid), Image(moving, grid)
        errors = []
        for mask in (None, inside):
            result = register(*images, affine="none", fixed_mask=mask)
            errors.append(error_mm(result.transform, grid, truth)[inside].mean())
        yield name, *(f"{error:.2f}" for error in errors)


def slab(data: Path, every: int) -> Rows:
    """Two slices cut out of a volume, registered onto it."""
    yield "slices of", "largest displacement in voxels"
    pair = make_breathing_pair(0, "abdomen", 4.0)
    for axis in range(3):
        at = [slice(None)] * 3
        at[axis] = slice(pair.grid.shape[axis] // 2, pair.grid.shape[axis] // 2 + 2)
        affine = pair.grid.affine.copy()
        affine[:3, 3] = pair.grid.to_world([s.start or 0 for s in at])
        part = np.ascontiguousarray(pair.fixed[tuple(at)])
        grid = Grid(part.shape, affine)
        result = register(Image(part, grid), Image(pair.fixed, pair.grid), affine="none")
        moved = np.linalg.norm(result.transform.total_mm(), axis=0) / np.array(grid.spacing).min()
        yield f"axis {axis}", f"{moved.max():.2f}"


def rigid(data: Path, every: int) -> Rows:
    """A sphere of 3 cm that moves rigidly in a phantom that breathes, at two places."""
    yield (
        "phantom",
        "place",
        "deviation mm, free",
        "rigid",
        "error mm in it",
        "",
        "within 2 cm",
        "",
        "body",
        "",
        "folds %",
    )
    for seed, place in product(range(0, 2, every), ((12.0, 0.0, -8.0), (-12.0, -4.0, 0.0))):
        pair = make_breathing_pair(seed, "chest", 4.0, noise_hu=0.0)
        inside = body(pair.fixed)
        centre = ndimage.center_of_mass(inside) + np.array(place)
        sphere = distance_mm(pair.grid, centre[None]) < RIGID_MM
        structure = Image(sphere.astype(np.uint8), pair.grid)
        truth = stiff_truth(pair.disp_vox, sphere, pair.grid)
        back = invert(torch.as_tensor(truth)[None])[0][0].numpy()
        fixed = np.where(sphere, RIGID_HU, pair.fixed)
        moved = ndimage.map_coordinates(fixed, np.indices(fixed.shape) + back, order=1, mode="nearest")
        rng = np.random.default_rng(seed)
        noisy = ((a + NOISE_HU * rng.standard_normal(a.shape)).astype(np.float32) for a in (fixed, moved))
        images = [Image(array, pair.grid) for array in noisy]
        near = (ndimage.distance_transform_edt(~sphere, sampling=4.0) < NEAR_MM) & ~sphere & inside
        results = [register(*images, affine="none", rigid_labels=labels) for labels in (None, structure)]
        errors = [error_mm(result.transform, pair.grid, truth) for result in results]
        deviations = [f"{largest_deviation_mm(structure, result.transform):.3f}" for result in results]
        means = [f"{error[where].mean():.2f}" for where in (sphere, near, inside & ~sphere) for error in errors]
        yield seed, place, *deviations, *means, f"{results[1].metrics['fold_percent']:.4f}"


def stiff_truth(disp_vox: NDArray[Any], sphere: NDArray[np.bool_], grid: Grid) -> NDArray[Any]:
    """A motion that is rigid in a sphere, the same from 32 mm on, and harmonic between."""
    truth = disp_vox.astype(np.float64)
    stiffen = RigidGuide(sphere.astype(np.int64), grid, ()).stiffener()
    truth[:, sphere] = stiffen(torch.as_tensor(truth)[None])[0].numpy()[:, sphere]
    distance = ndimage.distance_transform_edt(~sphere, sampling=grid.spacing)
    between = (distance > 0) & (distance < 32)
    kernel = ndimage.generate_binary_structure(3, 1) / 6.0
    kernel[1, 1, 1] = 0
    [box] = ndimage.find_objects((distance < 40).astype(int))
    for component in truth:
        part = component[box]  # a view
        for _ in range(600):
            part[between[box]] = ndimage.convolve(part, kernel, mode="nearest")[between[box]]
    return truth


def other_contrast(hu: NDArray[np.float32]) -> NDArray[np.float32]:
    """Tissues in another order of brightness, as in another modality."""
    return np.interp(hu, (-1024, -200, -80, 0, 60, 200, 1000, 3071), (0, 20, 700, 90, 300, 500, 60, 40)).astype(
        np.float32
    )


def error_mm(transform: Any, grid: Grid, disp_vox: NDArray[Any]) -> NDArray[Any]:
    """Distance between a transform and the known displacement, at every voxel."""
    truth = np.einsum("ac,cijk->aijk", grid.linear, disp_vox)
    return np.asarray(np.linalg.norm(transform.total_mm() - truth, axis=0))


def distance_mm(grid: Grid, points_vox: NDArray[Any]) -> NDArray[Any]:
    """Distance of every voxel from the nearest of some."""
    index = np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing="ij"), -1).reshape(-1, 3)
    apart = cdist(grid.to_world(index), grid.to_world(points_vox)).min(1)
    return apart.reshape(grid.shape)


def inverse_distance(apart: NDArray[Any], offsets: NDArray[Any], nearest: int | None = None) -> NDArray[Any]:
    """Offsets weighted by the inverse square of the distance, of all points or of the nearest."""
    weights = apart**-2
    if nearest is not None:
        weights = np.where(apart <= np.sort(apart, 1)[:, nearest - 1 : nearest], weights, 0.0)
    return np.asarray((weights @ offsets) / weights.sum(1, keepdims=True))


def chests(data: Path) -> Iterator[tuple[str, Any, Any, Grid, Any]]:
    """A phantom that breathes, and a CT with a known warp."""
    pair = make_breathing_pair(0, "chest", 4.0)
    yield "phantom", pair.fixed, pair.moving, pair.grid, pair.disp_vox
    scan = read_image(next((data / "chest").glob("patient_d.nii*")))
    coarse = Image(scan.array[::2, ::2, ::2], scan.grid.strided(2))
    warped = warped_pair(coarse, 1)
    yield "patient_d at 4 mm", warped.fixed, warped.moving, warped.grid, warped.disp_vox


SECTIONS = {f.__name__: f for f in (headneck, abdomen, landmarks, keypoints, clouds, masks, slab, rigid)}


def warm_up() -> None:
    """Load what only the first registration of a process loads, so that times compare."""
    pair = make_breathing_pair(0, "abdomen", 8.0)
    images, labels = (
        [Image(array, pair.grid) for array in arrays]
        for arrays in ((pair.fixed, pair.moving), (pair.fixed_labels, pair.moving_labels))
    )
    for guided in (False, True):
        register(*images, affine="none", guide_labels=guided, fixed_labels=labels[0], moving_labels=labels[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("sections", nargs="*", default=list(SECTIONS), choices=[*SECTIONS, []])
    parser.add_argument("--every", type=int, default=1, help="take every N-th pair of a cohort")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    warm_up()
    for name in arguments.sections or SECTIONS:
        print(f"\n## {name}\n\n{SECTIONS[name].__doc__}\n", flush=True)
        for n, row in enumerate(SECTIONS[name](arguments.data, arguments.every)):
            print("| " + " | ".join(map(str, row)) + " |", flush=True)
            if n == 0:
                print("|" + " --- |" * len(row), flush=True)


if __name__ == "__main__":
    main()
