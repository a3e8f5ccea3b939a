"""The pairs of every region that `regions.py` measures: real scans with labels, and pairs whose motion is known.

Pairs that are made (phantoms, painted heads, scans warped by a known motion) are written once into a cache folder.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from beating_hearts import beating_heart
from breathing_lungs import breathing_pair, read_landmarks
from known_motion import body, random_diffeomorphism, warped_pair
from numpy.typing import NDArray
from painted_heads import add_scanner, paint, read_head, structures
from scipy import ndimage

from corereg.data.phantom import make_breathing_pair
from corereg.evaluation.metrics import warp_labels
from corereg.geometry.grid import Grid
from corereg.io.images.image import read_image, read_labels, write_image

__all__ = ["REGIONS", "Files", "Pair", "pairs_of", "spread"]

RECIPE = 1
"""Increment when the made pairs change: they are then made again."""

HIPPOCAMPUS_NAMES, ABDOMEN_STEP = 30, 3
PHANTOM_SPACING_MM, PHANTOM_SEEDS = 3.0, 3
HEADS_ONE_CONTRAST, HEADS_TWO_CONTRASTS, HEADS_KNOWN = 20, 10, (1, 7, 13)
KNOWN_SEEDS = 2
HEART_SLICES = (10, 9, 6, 5)
"""Number of slices of each painted heart, which is registered either way."""
LUNGS = ("l2r_001", "l2r_017", "l2r_002", "l2r_009", "l2r_005")
"""Patients whose lungs move far."""
LUNGS_CUT, CUT_PERCENTS, BLANK_HU = 2, (25.0, 90.0), -1024
"""So many of them also with an exhale scan that is blank below and above these percentiles of the lungs' height."""
SUBJECT_E_SCALE = 1000.0
"""Its intensities lie between 0 and 1; tools that store integers would lose them."""


@dataclass(frozen=True)
class Files:
    """A pair on disk."""

    fixed: Path
    moving: Path
    labels: tuple[Path, Path] | None = None
    """Fixed and moving."""
    truth: Path | None = None
    """.npz with `disp_vox` (3, I, J, K): moving(x + u(x)) = fixed(x), and `inside` (I, J, K): where errors count."""


@dataclass(frozen=True)
class Pair:
    """A pair of a region; `files` makes or finds it."""

    region: str
    name: str
    files: Callable[[Path], Files]
    """Takes the cache folder."""


def pairs_of(region: str, data: Path) -> list[Pair]:
    """All pairs of a region, in a fixed order."""
    return [Pair(region, name, files) for name, files in REGIONS[region](data)]


def spread(pairs: list[Pair], count: int | None) -> list[Pair]:
    """`count` of the pairs, evenly spread over the list."""
    if count is None or count >= len(pairs):
        return pairs
    return [pairs[i] for i in np.linspace(0, len(pairs) - 1, count).round().astype(int)]


Found = Iterator[tuple[str, Callable[[Path], Files]]]


def _on_disk(fixed: Path, moving: Path, labels: tuple[Path, Path], cache: Path) -> Files:
    return Files(fixed, moving, labels)


def _headneck(data: Path) -> Found:
    folder = data / "headneck"
    listed = json.loads((folder / "HeadNeckCT_dataset.json").read_text("utf-8"))["registration_val"]
    for pair in listed:
        fixed, moving = (folder / pair[side] for side in ("fixed", "moving"))
        labels = (folder / "labelsTr" / fixed.name, folder / "labelsTr" / moving.name)
        yield f"{_stem(fixed)} {_stem(moving)}", partial(_on_disk, fixed, moving, labels)


def _labelled(folder: Path, couples: list[tuple[Path, Path]]) -> Found:
    for fixed, moving in couples:
        labels = (folder / "labels" / fixed.name, folder / "labels" / moving.name)
        yield f"{_stem(fixed)} {_stem(moving)}", partial(_on_disk, fixed, moving, labels)


def _hippocampus(data: Path) -> Found:
    names = sorted((data / "hippocampus_mr" / "images").glob("*.nii.gz"))[:HIPPOCAMPUS_NAMES]
    return _labelled(data / "hippocampus_mr", list(pairwise(names)))


def _abdomen_mr(data: Path) -> Found:
    names = sorted((data / "abdomen_mr" / "images").glob("*.nii.gz"))
    couples = [(fixed, moving) for number, fixed in enumerate(names) for moving in names[number + 1 :]]
    return _labelled(data / "abdomen_mr", couples[::ABDOMEN_STEP])


def _heads(data: Path, count: int, contrasts: tuple[str, str]) -> Found:
    for number in range(1, count, 2):
        maps = [data / "brain_labelmaps" / f"head_{n:02d}.nii.gz" for n in (number, number + 1)]
        name = f"head {number:02d} {number + 1:02d} {' '.join(dict.fromkeys(contrasts))}"
        yield name, partial(_made, f"heads-{number:02d}-{'-'.join(contrasts)}", partial(_painted, maps, contrasts))


def _painted(maps: list[Path], contrasts: tuple[str, str], folder: Path) -> None:
    for path, contrast, side in zip(maps, contrasts, ("fixed", "moving"), strict=True):
        head, seed = read_head(path), int(path.name[5:7])
        write_image(
            folder / f"{side}.nii.gz", add_scanner(paint(head.labels, contrast, seed), head.grid, seed), head.grid
        )
        write_image(folder / f"{side}_labels.nii.gz", structures(head.labels), head.grid)


def _brain_known(data: Path) -> Found:
    for seed in range(KNOWN_SEEDS):
        yield f"subject_e {seed}", partial(_made, f"subject_e-{seed}", partial(_known_subject_e, data, seed))
    for number in HEADS_KNOWN:
        path = data / "brain_labelmaps" / f"head_{number:02d}.nii.gz"
        yield f"head {number:02d}", partial(_made, f"head-known-{number:02d}", partial(_known_head, path, number))


def _known_subject_e(data: Path, seed: int, folder: Path) -> None:
    image, labels = (
        read_image(data / "brain" / "subject_e.nii.gz"),
        read_labels(data / "brain" / "subject_e_labels.nii.gz"),
    )
    _warp_known(folder, SUBJECT_E_SCALE * image.array, labels.array, image.grid, seed)


def _known_head(path: Path, seed: int, folder: Path) -> None:
    head = read_head(path)
    _warp_known(folder, paint(head.labels, "t1", seed), head.labels, head.grid, seed)


def _warp_known(folder: Path, clean: NDArray[Any], labels: NDArray[Any], grid: Grid, seed: int) -> None:
    """A brain, and the same brain warped by a random diffeomorphism, each with bias and noise of its own."""
    inside = (labels > 0) & (structures(labels) > 0)
    disp_vox, back_vox = random_diffeomorphism(grid, inside, seed)
    there = np.indices(grid.shape) + back_vox
    warped = ndimage.map_coordinates(clean, there, order=3, mode="nearest").clip(clean.min(), clean.max())
    scored = structures(labels)
    _write(folder, grid, (add_scanner(clean, grid, seed), add_scanner(warped, grid, seed + 100)),
           (scored, warp_labels(scored, back_vox)), disp_vox, inside)  # fmt: skip


def _ct_known(data: Path, scan: str, labelled: bool) -> Found:
    for seed in range(KNOWN_SEEDS):
        made = partial(_known_ct, data / f"{scan}.nii.gz", labelled, seed)
        yield f"{Path(scan).name} {seed}", partial(_made, f"{Path(scan).name}-{seed}", made)


def _known_ct(path: Path, labelled: bool, seed: int, folder: Path) -> None:
    scan = read_image(path)
    labels = read_labels(path.with_name(f"{_stem(path)}_labels.nii.gz")).array if labelled else None
    pair = warped_pair(scan, seed, labels)
    images = (pair.fixed.astype(np.int16), pair.moving.astype(np.int16))
    _write(folder, pair.grid, images, pair.labels, pair.disp_vox, body(pair.fixed))


def _hearts(data: Path) -> Found:
    for seed, slices in enumerate(HEART_SLICES):
        for name, order in (("diastole fixed", (0, 1)), ("systole fixed", (1, 0))):
            made = partial(_heart, seed, slices, order)
            yield (
                f"heart {seed}, {slices} slices, {name}",
                partial(_made, f"heart-{seed}-{slices}-{name.split()[0]}", made),
            )


def _heart(seed: int, slices: int, order: tuple[int, int], folder: Path) -> None:
    heart = beating_heart(seed, slices)
    for number, side in zip(order, ("fixed", "moving"), strict=True):
        write_image(folder / f"{side}.nii.gz", (heart.diastole, heart.systole)[number], heart.grid)
        write_image(folder / f"{side}_labels.nii.gz", heart.labels[number], heart.grid)


def _lung_known(data: Path) -> Found:
    for name in LUNGS:
        yield name, partial(_made, f"lung-{name}", partial(_known_lung, data, name, False))
    for name in LUNGS[:LUNGS_CUT]:
        yield f"{name} cut", partial(_made, f"lung-{name}-cut", partial(_known_lung, data, name, True))


def _known_lung(data: Path, name: str, cut: bool, folder: Path) -> None:
    landmarks = read_landmarks(data / "lung_keypoints" / "correspondences" / f"{name}.csv")
    breath = breathing_pair(read_image(data / "chest" / "patient_d.nii.gz"), landmarks, LUNGS.index(name))
    exhale, lungs = breath.exhale, breath.lungs
    if cut:
        low, high = np.percentile(np.argwhere(lungs)[:, 2], CUT_PERCENTS).astype(int)
        for array, blank in ((exhale, BLANK_HU), (lungs, False)):
            array[:, :, :low] = array[:, :, high:] = blank
    _write(folder, breath.grid, (exhale, breath.inhale), None, breath.disp_vox, lungs)


def _phantoms(data: Path, kind: str) -> Found:
    for seed in range(PHANTOM_SEEDS):
        yield f"phantom {kind} {seed}", partial(_made, f"phantom-{kind}-{seed}", partial(_phantom, kind, seed))


def _phantom(kind: str, seed: int, folder: Path) -> None:
    pair = make_breathing_pair(seed, kind, PHANTOM_SPACING_MM)
    images = (pair.fixed.astype(np.int16), pair.moving.astype(np.int16))
    _write(folder, pair.grid, images, (pair.fixed_labels, pair.moving_labels), pair.disp_vox, body(pair.fixed))


def _write(
    folder: Path,
    grid: Grid,
    images: tuple[NDArray[Any], NDArray[Any]],
    labels: tuple[NDArray[Any], NDArray[Any]] | None,
    disp_vox: NDArray[Any],
    inside: NDArray[np.bool_],
) -> None:
    for number, side in enumerate(("fixed", "moving")):
        write_image(folder / f"{side}.nii.gz", images[number], grid)
        if labels is not None:
            write_image(folder / f"{side}_labels.nii.gz", labels[number].astype(np.int16), grid)
    there = np.indices(grid.shape) + disp_vox
    seen = ((there >= 0) & (there <= np.reshape(grid.shape, (3, 1, 1, 1)) - 1)).all(0)
    np.savez_compressed(folder / "truth.npz", disp_vox=disp_vox.astype(np.float32), inside=inside & seen)


def _made(name: str, make: Callable[[Path], None], cache: Path) -> Files:
    """The files of a made pair, from the cache or made now; a folder appears only when it is complete."""
    folder = cache / f"{name}-{RECIPE}"
    if not folder.is_dir():
        unfinished = cache / f".{name}-{RECIPE}"
        unfinished.mkdir(parents=True, exist_ok=True)
        make(unfinished)
        unfinished.rename(folder)
    labels = tuple(folder / f"{side}_labels.nii.gz" for side in ("fixed", "moving"))
    truth = folder / "truth.npz"
    return Files(
        folder / "fixed.nii.gz",
        folder / "moving.nii.gz",
        (labels[0], labels[1]) if labels[0].is_file() else None,
        truth if truth.is_file() else None,
    )


def _stem(path: Path) -> str:
    return path.name.removesuffix(".nii.gz")


REGIONS: dict[str, Callable[[Path], Found]] = {
    "headneck": _headneck,
    "hippocampus_mr": _hippocampus,
    "abdomen_mr": _abdomen_mr,
    "brain_heads": partial(_heads, count=HEADS_ONE_CONTRAST, contrasts=("t1", "t1")),
    "brain_t1_t2": partial(_heads, count=HEADS_TWO_CONTRASTS, contrasts=("t1", "t2")),
    "brain_known": _brain_known,
    "abdomen_known": partial(_ct_known, scan="abdomen/patient_a", labelled=True),
    "chest_known": partial(_ct_known, scan="chest/patient_d", labelled=False),
    "heart_painted": _hearts,
    "lung_known": _lung_known,
    "phantom_abdomen": partial(_phantoms, kind="abdomen"),
    "phantom_chest": partial(_phantoms, kind="chest"),
}
"""Region: lists its pairs, given the folder of the scans."""
