"""Label maps of whole heads painted as MR scans: brain pairs whose labels are exact.

Each label has a grey value in each contrast, which varies from head to head. The painted image has blurred borders
(partial volume), texture within a tissue, a smooth bias field and noise.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from corereg.geometry.grid import Grid
from corereg.io.images.image import Image, read_labels

__all__ = ["CONTRASTS", "Head", "add_scanner", "paint", "read_head", "structures"]

WHITE, GREY, DEEP, FLUID = (2, 7, 16, 28, 41, 46, 60, 85), (3, 8, 42, 47), (10, 49), (4, 5, 14, 15, 24, 43, 44, 72)
STRIATUM, PALLIDUM, LIMBIC = (11, 12, 26, 50, 51, 58), (13, 52), (17, 18, 53, 54)
SOFT, SKIN, BONE, MARROW, EYES = (507, 508, 509, 514), (511,), (515,), (516,), (506,)
TISSUES = (WHITE, GREY, DEEP, FLUID, STRIATUM, PALLIDUM, LIMBIC, SOFT, SKIN, BONE, MARROW, EYES)
CONTRASTS = {
    "t1": (800.0, 560.0, 650.0, 180.0, 580.0, 720.0, 540.0, 450.0, 850.0, 120.0, 700.0, 200.0),
    "t2": (380.0, 560.0, 450.0, 1000.0, 480.0, 340.0, 580.0, 350.0, 600.0, 60.0, 420.0, 950.0),
}
"""Grey value of each tissue: the usual order in scans at 1.5 to 3 T. Labels of no tissue are painted as soft tissue."""

FIRST_OUTSIDE_THE_BRAIN = 500
UNSCORED = (24, 25, 30, 57, 62, 72, 77, 80, 136, 137, 163, 164)
"""Fluid around the brain, lesions, vessels: not structures with a border of their own."""
MARGIN_VOXELS = 6

HEAD_TO_HEAD, BORDER_VOXELS = 0.05, 0.6
"""Relative deviation of a tissue's value between heads, and the blur of borders."""
TEXTURE, TEXTURE_VOXELS = 0.04, 1.5
BIAS, BIAS_MM, NOISE = 0.10, 50.0, 0.03
"""Largest part and width of the scanner's bias field, and its noise relative to white matter in T1."""
REFERENCE_VALUE = 800.0


@dataclass(frozen=True)
class Head:
    """A label map cropped to the head."""

    labels: NDArray[np.int16]
    grid: Grid


def read_head(path: Path) -> Head:
    whole: Image = read_labels(path)
    inside = np.argwhere(whole.array > 0)
    first = np.maximum(inside.min(0) - MARGIN_VOXELS, 0)
    last = np.minimum(inside.max(0) + MARGIN_VOXELS + 1, whole.array.shape)
    i, j, k = (slice(a, b) for a, b in zip(first, last, strict=True))
    affine = whole.grid.affine.copy()
    affine[:3, 3] = whole.grid.to_world(first)
    labels = whole.array[i, j, k].astype(np.int16)
    return Head(labels, Grid(labels.shape, affine))


def structures(labels: NDArray[Any]) -> NDArray[np.int16]:
    """The label map with nothing but the brain structures that are scored."""
    scored = (labels < FIRST_OUTSIDE_THE_BRAIN) & ~np.isin(labels, UNSCORED)
    return np.where(scored, labels, 0).astype(np.int16)


def paint(labels: NDArray[Any], contrast: str, seed: int) -> NDArray[np.float32]:
    """The head in a contrast, before the scanner adds bias and noise."""
    rng = np.random.default_rng([seed, 0])
    soft = TISSUES.index(SOFT)
    values = np.zeros(int(labels.max()) + 1)
    values[1:] = CONTRASTS[contrast][soft]
    for tissue, value in zip(TISSUES, CONTRASTS[contrast], strict=True):
        mixed = value * (1 + HEAD_TO_HEAD * rng.standard_normal())
        for label in (label for label in tissue if label < len(values)):
            values[label] = mixed
    noise = ndimage.gaussian_filter(rng.standard_normal(labels.shape, np.float32), TEXTURE_VOXELS)
    image = values[labels] * (1 + TEXTURE / noise.std() * noise)
    return ndimage.gaussian_filter(image.astype(np.float32), BORDER_VOXELS)


def add_scanner(image: NDArray[Any], grid: Grid, seed: int) -> NDArray[np.int16]:
    """A bias field and Rician noise."""
    rng = np.random.default_rng([seed, 1])
    coarse = rng.standard_normal(
        [max(2, round(n * s / BIAS_MM)) for n, s in zip(grid.shape, grid.spacing, strict=True)]
    )
    zoom = np.divide(grid.shape, coarse.shape)
    bias = ndimage.zoom(coarse, zoom, order=3, mode="nearest", grid_mode=True)
    biased = image * (1 + BIAS * bias / np.abs(bias).max())
    first, second = (NOISE * REFERENCE_VALUE * rng.standard_normal(image.shape, np.float32) for _ in range(2))
    return np.hypot(biased + first, second).round().clip(0, 32767).astype(np.int16)
