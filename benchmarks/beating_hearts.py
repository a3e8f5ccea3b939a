"""A painted heart at the end of diastole and of systole, as a stack of thick short-axis slices of cine MR.

The walls thicken, the base moves towards the apex and the cavities shrink, as in healthy hearts; what surrounds the
heart hardly moves. Trabeculae, flow and noise differ between the frames.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from corereg.geometry.grid import Grid

__all__ = ["Heart", "beating_heart"]

SIZE, SPACING_MM, SLICE_MM, LAYERS = (208, 176), 1.5, 10.0, 4
"""In-plane size and spacing, slice distance, and how many layers are painted and averaged in a slice."""
BLOOD, MUSCLE, FAT, LUNG, ORGAN = 200.0, 80.0, 230.0, 15.0, 110.0
LENGTH_MM, SHORTENING_MM = 90.0, 12.0
RIGHT, WALL, LEFT = 1, 2, 3
"""The labels: cavity of the right ventricle, wall and cavity of the left one."""
TRABECULAE_MM, TRABECULAE_SHARE = 5.0, 0.3
"""Width of the rim of a cavity in which muscle strands lie, and the part of the rim that they fill."""
BIAS, NOISE = 0.4, 6.0

Array = NDArray[np.float64]


class Frame(NamedTuple):
    """Sizes in mm at the middle of the heart."""

    cavity: float
    wall: float
    right_radius: float
    right_offset: float
    """Distance of the right ventricle's middle from the left one's."""
    base: float
    """How far the base has moved towards the apex."""


DIASTOLE = Frame(25.0, 9.0, 33.0, 33.0, 0.0)
SYSTOLE = Frame(15.0, 13.5, 25.0, 27.0, SHORTENING_MM)


@dataclass(frozen=True)
class Heart:
    """Both frames on one grid."""

    diastole: NDArray[np.int16]
    systole: NDArray[np.int16]
    labels: tuple[NDArray[np.int16], NDArray[np.int16]]
    """Of diastole and systole."""
    grid: Grid


def beating_heart(seed: int, slices: int = 10) -> Heart:
    """Paint the heart of a patient.

    Args:
        slices: how many of 10 mm, around the middle of the heart.
    """
    rng = np.random.default_rng([seed, 4])
    size = rng.normal(1.0, 0.08)
    position = rng.normal(0.0, 8.0, 2)
    x, y, z = np.meshgrid(
        *((np.arange(n) - (n - 1) / 2) * SPACING_MM for n in SIZE),
        (np.arange(slices * LAYERS) - (slices * LAYERS - 1) / 2) * SLICE_MM / LAYERS,
        indexing="ij",
    )
    around = _surroundings(x, y, rng)
    bias = 1 + BIAS * np.exp(-((x + 60) ** 2 + (y - 90) ** 2) / (2 * 90**2)) - BIAS * (y + 130) / 520
    images, maps = [], []
    for frame in (DIASTOLE, SYSTOLE):
        moved = np.stack([_smooth_noise(rng, x.shape, 12.0) for _ in range(3)]) * np.reshape((1, 1, 0.2), (3, 1, 1, 1))
        scene = ndimage.map_coordinates(around, np.indices(x.shape) + moved, order=1, mode="nearest")
        labels, painted = _heart((x - position[0]) / size, (y - position[1]) / size, z / size, frame, scene, rng)
        thick = (bias * painted).reshape(*SIZE, slices, LAYERS).mean(-1)
        thick = ndimage.gaussian_filter(thick, (0.6, 0.6, 0))
        first, second = (NOISE * rng.standard_normal(thick.shape) for _ in range(2))
        images.append(np.hypot(thick + first, second).round().astype(np.int16))
        maps.append(labels[..., LAYERS // 2 :: LAYERS].astype(np.int16))
    grid = Grid(images[0].shape, _oblique(slices))
    return Heart(images[0], images[1], (maps[0], maps[1]), grid)


def _oblique(slices: int) -> Array:
    """The usual plane of a short-axis stack: turned by about 45 degrees about two axes."""
    a, b = np.radians(40.0), np.radians(35.0)
    about_z = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    about_x = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    affine = np.eye(4)
    affine[:3, :3] = about_z @ about_x * (SPACING_MM, SPACING_MM, SLICE_MM)
    affine[:3, 3] = -affine[:3, :3] @ ((np.array([*SIZE, slices]) - 1) / 2)
    return affine


def _smooth_noise(rng: np.random.Generator, shape: tuple[int, ...], width_mm: float) -> Array:
    """Of unit deviation."""
    widths = width_mm / np.array((SPACING_MM, SPACING_MM, SLICE_MM / LAYERS))
    noise = ndimage.gaussian_filter(rng.standard_normal(shape), widths, mode="wrap")
    return np.asarray(noise / noise.std())


def _surroundings(x: Array, y: Array, rng: np.random.Generator) -> Array:
    """The chest: its wall with ribs, lungs with vessels, an organ below, the spine and the aorta."""
    depth = 1 - np.hypot(x / 150, y / 115)
    scene = np.full(x.shape, 5.0)
    scene[depth > 0] = FAT
    scene[depth > 0.08] = MUSCLE
    scene[(depth > 0.12) & (_smooth_noise(rng, x.shape, 9.0) > 1.2)] = FAT
    inner = depth > 0.2
    scene[inner] = LUNG
    scene[inner & (_smooth_noise(rng, x.shape, 3.0) > 2.0)] = BLOOD
    scene[inner & (y - 0.6 * x + 12 * _smooth_noise(rng, x.shape, 20.0) < -70)] = ORGAN
    scene[np.hypot(x - 35, y + 75) < 11] = BLOOD
    scene[np.hypot(x, (y + 95) / 0.8) < 20] = ORGAN
    return scene * (1 + 0.06 * _smooth_noise(rng, x.shape, 2.5))


def _heart(
    x: Array, y: Array, z: Array, frame: Frame, scene: Array, rng: np.random.Generator
) -> tuple[NDArray[Any], Array]:
    """Labels, and the scene with the heart painted over it."""
    height = (z + LENGTH_MM / 2) / (LENGTH_MM - frame.base)
    wide = np.sqrt(np.clip(1 - (1 - np.clip(height, 0, 1)) ** 2.5, 0, 1))
    present = (height > 0) & (height < 1)
    from_left = np.hypot(x, y) * (1 + 0.03 * _smooth_noise(rng, x.shape, 15.0))
    cavity = frame.cavity * np.where(height > 0.1, wide, 0)
    outer = cavity + frame.wall * np.where(height > 0.1, 1.0, wide)
    from_right = np.hypot(x + frame.right_offset * wide, (y - 6) * 0.85)
    right = (frame.right_radius * wide) * (height > 0.2)
    labels = np.zeros(x.shape, np.int16)
    labels[present & (from_right < right)] = RIGHT
    labels[present & (from_left < outer)] = WALL
    labels[present & (from_left < cavity)] = LEFT
    painted = scene.copy()
    sac = present & ((from_left < outer + 5) | ((from_right < right + 8) & (right > 0)))
    painted[sac] = FAT
    for distance, radius in ((from_left, frame.cavity), (from_right, 0.8 * frame.right_radius)):
        painted[(height >= 1) & (distance < radius + 3)] = MUSCLE  # the atria
        painted[(height >= 1) & (distance < radius)] = BLOOD
    painted[present & (from_right < right + 3) & (right > 0)] = MUSCLE
    painted[(labels == RIGHT) | (labels == LEFT)] = BLOOD
    painted[labels == WALL] = MUSCLE
    strands = _smooth_noise(rng, x.shape, 2.5) > np.sqrt(2) * (1 - 2 * TRABECULAE_SHARE)
    rim = np.where(labels == LEFT, cavity - from_left, np.where(labels == RIGHT, right - from_right, np.inf))
    painted[(rim < TRABECULAE_MM) & strands] = MUSCLE
    for angle in (0.7, 3.4):
        middle = 0.6 * cavity
        papillary = np.hypot(x - middle * np.cos(angle), y - middle * np.sin(angle)) < 4.0
        painted[papillary & (labels == LEFT) & (height < 0.65)] = MUSCLE
    return labels, painted * (1 + 0.05 * _smooth_noise(rng, x.shape, 4.0) * sac)
