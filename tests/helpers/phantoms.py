"""Phantom subjects and pairs, each made once."""

from functools import cache

import numpy as np
from scipy import ndimage

from corereg.data.phantom import BreathingPair, make_breathing_pair, make_subject
from corereg.geometry.grid import Grid

KINDS = ["abdomen", "chest"]

COARSE_MM = 5.0

Subject = tuple[np.ndarray, np.ndarray, Grid]


@cache
def subject_of(seed: int, kind: str) -> Subject:
    return make_subject(seed, kind, COARSE_MM)


@cache
def pair_of(kind: str) -> BreathingPair:
    return make_breathing_pair(0, kind, COARSE_MM, noise_hu=0.0)


def body(image: np.ndarray) -> np.ndarray:
    """Largest soft tissue part, lungs and gas filled."""
    parts, _ = ndimage.label(image > BODY_HU)
    trunk = parts == np.bincount(parts.ravel())[1:].argmax() + 1
    return np.stack([ndimage.binary_fill_holes(trunk[:, :, k]) for k in range(trunk.shape[2])], -1)


BODY_HU = -300.0


def coords_of(pair: BreathingPair) -> np.ndarray:
    return np.indices(pair.grid.shape) + pair.disp_vox


DEFAULT_MM = 3.0
