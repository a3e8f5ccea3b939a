"""Right and wrong pairs of all regions, with which the verdict is calibrated and checked.

A pair belongs to one half: "calibration" or "held out". No patient takes part in both, except `abdomen/patient_b`. The
share-alike cohorts, hippocampi and abdominal MR, are held out as a whole.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise, permutations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from painted_heads import add_scanner, paint, read_head
from scipy import ndimage

from corereg.io.images.image import Image, read_image

__all__ = ["CALIBRATION", "HELD_OUT", "MIRRORED_LEFT_RIGHT", "PARTLY", "RIGHT", "Case", "all_cases"]

CALIBRATION, HELD_OUT = "calibration", "held out"

RIGHT = "right"
OTHER, NOISE = "other body part", "noise"
MIRRORED_LEFT_RIGHT, CUT, STRANGER = "mirrored left-right", "cut", "other patient, CT to MR"
MIRRORED = {(0,): MIRRORED_LEFT_RIGHT, (1,): "mirrored front-back", (2,): "mirrored head-feet"}
TURNED = {(0, 1): "turned about head-feet", (0, 2): "turned about front-back", (1, 2): "turned about left-right"}
PARTLY = (CUT, STRANGER)
"""Neither right nor wrong: part of the moving image is missing, or the limb may be another one."""

SPOILT = {"neck CT": 0, "head and neck CT": 2, "sarcoma CT-MR": 2, "abdomen MR": 2, "hippocampus MR": 2}
"""How many right pairs of a region are also spoilt, one in the others."""
STRANGERS = 4
CUT_SHARES = (0.5, 0.25)
SMOOTH_NOISE_VOXELS = 2.0

Load = Callable[[], Image]


@dataclass(frozen=True)
class Case:
    """A pair to register and what it is."""

    half: str
    region: str
    kind: str
    name: str
    fixed: Load
    moving: Load


@dataclass(frozen=True)
class Scan:
    name: str
    load: Load


Couples = list[tuple[Scan, Scan]]


def all_cases(data: Path) -> Iterator[Case]:
    """All pairs, in a fixed order that mixes regions and kinds."""
    cases: list[Case] = []
    for half in (CALIBRATION, HELD_OUT):
        right = _right(data, half)
        for region, couples in right.items():
            cases += [_case(half, region, RIGHT, *couple) for couple in couples]
            for number, couple in enumerate(couples[: SPOILT.get(region, 1)]):
                cases += [_case(half, region, *spoilt) for spoilt in _spoil(*couple, number + len(region))]
        cases += [_case(half, "several", OTHER, *couple) for couple in _other_parts(data, half)]
        strangers = right["sarcoma CT-MR"]
        shifted = zip(strangers, strangers[4:] + strangers[:4], strict=True)
        cases += [_case(half, "sarcoma CT-MR", STRANGER, ct, mr) for (ct, _), (_, mr) in list(shifted)[:STRANGERS]]
    return iter([cases[n] for n in np.random.default_rng(0).permutation(len(cases))])


def _case(half: str, region: str, kind: str, fixed: Scan, moving: Scan) -> Case:
    return Case(half, region, kind, f"{fixed.name} {moving.name}", fixed.load, moving.load)


def _spoil(fixed: Scan, moving: Scan, number: int) -> Iterator[tuple[str, Scan, Scan]]:
    """One pair mirrored in two ways, turned in two ways, cut, and with noise in place of the moving image."""
    mirrored, turned = list(MIRRORED.items()), list(TURNED.items())
    for axes, kind in (mirrored[0], mirrored[1 + number % 2], turned[number % 3], turned[(number + 1) % 3]):
        yield kind, fixed, _changed(moving, kind, partial(_flipped, axes=axes))
    share = CUT_SHARES[number % 2]
    yield CUT, fixed, _changed(moving, f"{share:.0%}", partial(_cut, share=share))
    width = SMOOTH_NOISE_VOXELS * (number % 2)
    yield NOISE, fixed, _changed(moving, f"noise {width:g}", partial(_noise, width=width))


def _changed(scan: Scan, words: str, change: Callable[[Image], Image]) -> Scan:
    return Scan(f"{scan.name} ({words})", lambda: change(scan.load()))


def _flipped(image: Image, axes: tuple[int, ...]) -> Image:
    """Flip the voxels along the array axes closest to these axes of the patient, and keep the header."""
    letters = ("LR", "PA", "IS")
    places = [next(n for n, c in enumerate(image.grid.orientation) if c in letters[axis]) for axis in axes]
    return _with(image, np.flip(image.array, places))


def _cut(image: Image, share: float) -> Image:
    place = next(n for n, c in enumerate(image.grid.orientation) if c in "IS")
    kept = max(3, round(share * image.grid.shape[place]))
    first = (image.grid.shape[place] - kept) // 2
    affine = image.grid.affine.copy()
    affine[:3, 3] += first * affine[:3, place]
    array = np.take(image.array, range(first, first + kept), place)
    return _with(image, array, replace(image.grid, shape=array.shape, affine=affine))


def _noise(image: Image, width: float) -> Image:
    values = np.random.default_rng(0).standard_normal(image.grid.shape)
    values = ndimage.gaussian_filter(values, width) if width else values
    low, high = np.percentile(image.array, (1, 99))
    return _with(image, low + (high - low) * (0.5 + 0.2 * values / values.std()))


def _with(image: Image, array: NDArray[Any], grid: Any = None) -> Image:
    kept = image.array.dtype if image.array.dtype != np.uint8 else np.int16
    return Image(np.ascontiguousarray(array).astype(kept), grid or image.grid, name=image.name)


def _file(path: Path, name: str = "") -> Scan:
    return Scan(name or path.name.removesuffix(".nii.gz"), partial(read_image, path))


def _painted(path: Path, contrast: str) -> Scan:
    def load() -> Image:
        head, seed = read_head(path), int(path.name[5:7])
        return Image(add_scanner(paint(head.labels, contrast, seed), head.grid, seed), head.grid, name=path.name)

    return Scan(f"{path.name[:7]}_{contrast}", load)


def _scans(data: Path, half: str) -> dict[str, list[Scan]]:
    """The scans of a half, by region."""

    def part(paths: list[Path]) -> list[Path]:
        return paths[: len(paths) // 2] if half == CALIBRATION else paths[len(paths) // 2 :]

    def named(folder: str, *names: str) -> list[Scan]:
        return [_file(data / folder / f"{name}.nii.gz") for name in names]

    first = half == CALIBRATION
    numbers = ((5, 6), (1, 2, 3)) if first else ((8, 10), (4, 7, 9))
    trunk, neck = (named("whole_body_ct", *(f"hnsc_{n:04d}" for n in group)) for group in numbers)
    return {
        "head and neck CT": [_file(p) for p in part(sorted((data / "headneck" / "imagesTr").glob("*.nii.gz")))],
        "trunk CT": trunk,
        "neck CT": neck,
        "abdomen CT": named("abdomen", *(("patient_a", "patient_b") if first else ("patient_b", "patient_c"))),
        "chest CT": [] if first else named("chest", "patient_d"),
        "sarcoma CT-MR": [_file(p) for p in part(sorted((data / "sarcoma_ct_mr").glob("*_ct.nii.gz")))],
        "head MR": [_painted(p, "t1") for p in part(sorted((data / "brain_labelmaps").glob("head_*.nii.gz")))],
        "brain templates": named("brain", "mni152", "colin27") if first else [],
        "brain MR, several contrasts": named("brain_multicontrast", "ms01_t0_t1w")
        if first
        else named("brain_multicontrast", "xms07_t1", "xms19_t1"),
        "abdomen MR": [] if first else [_file(p) for p in sorted((data / "abdomen_mr" / "images").glob("*.nii.gz"))],
        "hippocampus MR": []
        if first
        else [_file(p) for p in sorted((data / "hippocampus_mr" / "images").glob("*.nii.gz"))[:17]],
    }


def _right(data: Path, half: str) -> dict[str, Couples]:
    scans = _scans(data, half)
    sarcoma = [(ct, _file(data / "sarcoma_ct_mr" / f"{ct.name[:-2]}mr.nii.gz")) for ct in scans["sarcoma CT-MR"]]
    heads = scans["head MR"]
    first = half == CALIBRATION
    brains = ("ms01_t0_t1w", "ms01_t1_t1w", "ms01_t0_t2w", "ms01_t1_flair") if first else (
        "xms07_t1", "xms19_t1", "xms19_t2", "xms07_flair"
    )  # fmt: skip
    a, b, c, d = (_file(data / "brain_multicontrast" / f"{name}.nii.gz") for name in brains)
    return {
        "head and neck CT": _neighbours(scans["head and neck CT"])[::6],
        "trunk CT": list(permutations(scans["trunk CT"], 2))[:1],
        "neck CT": list(permutations(scans["neck CT"], 2))[::2],
        "abdomen CT": list(permutations(scans["abdomen CT"], 2)),
        "sarcoma CT-MR": sarcoma,
        "head MR": _neighbours(heads)[::3],
        "head T1 to T2": [
            (one, _painted(data / "brain_labelmaps" / f"{other.name[:7]}.nii.gz", "t2"))
            for one, other in _neighbours(heads)[1::5]
        ],
        "brain templates": list(permutations(scans["brain templates"], 2))[:1],
        "brain MR, several contrasts": [(a, b), (a, c), (b, d), (c, d)],
        "abdomen MR": _neighbours(scans["abdomen MR"])[::2],
        "hippocampus MR": _neighbours(scans["hippocampus MR"])[::2],
    }


def _neighbours(scans: list[Scan]) -> Couples:
    return list(pairwise(scans))


DIFFERENT = (
    ("head and neck CT", "abdomen CT"),
    ("abdomen CT", "head and neck CT"),
    ("abdomen CT", "chest CT"),
    ("chest CT", "abdomen CT"),
    ("head and neck CT", "chest CT"),
    ("head and neck CT", "sarcoma CT-MR"),
    ("sarcoma CT-MR", "head and neck CT"),
    ("sarcoma CT-MR", "abdomen CT"),
    ("neck CT", "abdomen CT"),
    ("abdomen CT", "neck CT"),
    ("abdomen MR", "head MR"),
    ("head MR", "abdomen MR"),
    ("hippocampus MR", "abdomen MR"),
    ("brain MR, several contrasts", "sarcoma CT-MR"),
    ("sarcoma CT-MR", "brain MR, several contrasts"),
    ("head MR", "abdomen CT"),
    ("abdomen CT", "brain templates"),
    ("head and neck CT", "abdomen MR"),
)
"""Regions that have nothing in common."""


def _other_parts(data: Path, half: str) -> Couples:
    scans = _scans(data, half)
    couples = []
    for one, other in DIFFERENT:
        firsts, seconds = scans.get(one, []), scans.get(other, [])
        couples += list(zip(firsts[::3], seconds[1::2] + seconds[::2], strict=False))[:2]
    return couples
