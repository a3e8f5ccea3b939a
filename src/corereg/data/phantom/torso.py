"""Phantom, stage 3 of 4: the frame of the atlas that holds all organs: spine curve, trunk outlines, diaphragm.

Atlas millimetres, RAS+: x = 0 in the midline, y = 0 half-way through the trunk, z = 0 at the first lumbar vertebra.
The tables describe an adult of about 170 cm; levels and diameters were read off CT scans, rounded to millimetres.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np

from corereg.data.phantom.shapes import Array, Coords, smooth_max

__all__ = [
    "PITCH_MM",
    "VERTEBRA_Z",
    "Frame",
    "Habitus",
    "abdominal_space",
    "cavity",
    "diaphragm",
    "draw_habitus",
    "level",
    "spine_y",
]

VERTEBRA_Z = (
    *(-215.0, -180.0, -146.0, -110.0, -73.0, -36.0, 0.0),  # S2 S1 L5 L4 L3 L2 L1
    *(32.0, 60.0, 86.0, 111.0, 135.0, 158.0, 181.0, 203.0, 224.0, 245.0, 265.0, 284.0),  # T12 ... T1
    *(302.0, 319.0, 335.0, 350.0, 365.0, 380.0),  # C7 ...
)
"""Heights of the centres of the vertebral bodies."""

SPINE_Z = (-215, -180, -146, -110, -73, -36, 0, 32, 86, 135, 181, 224, 265, 284, 320, 380)
SPINE_SIZE_Z = (-180, -110, 0, 86, 181, 284, 340)
TRUNK_Z = (-200, -150, -100, -50, 0, 50, 100, 150, 200, 240, 270, 300, 340)
LEVELS = {
    "spine_y": (SPINE_Z, (-62, -44, -28, -22, -23, -28, -34, -38, -43, -46, -47, -44, -36, -30, -20, -12)),
    "spine_half_width": (SPINE_SIZE_Z, (26, 25, 22, 18, 15, 14, 13)),
    "spine_half_depth": (SPINE_SIZE_Z, (17, 17.5, 16, 15, 14, 10, 9)),
    "cavity_a": (TRUNK_Z, (118, 124, 126, 124, 124, 128, 130, 128, 118, 100, 80, 46, 24)),
    "cavity_b": (TRUNK_Z, (80, 82, 84, 86, 88, 90, 92, 90, 81, 67, 50, 30, 20)),
    "cavity_y": (TRUNK_Z, (14, 15, 16, 16, 15, 12, 8, 4, -3, -9, -11, -9, -4)),
    "muscle_a": (TRUNK_Z, (140, 141, 140, 137, 137, 141, 145, 147, 149, 155, 160, 158, 150)),
    "muscle_b": (TRUNK_Z, (99, 100, 102, 104, 106, 107, 108, 107, 102, 92, 80, 66, 56)),
    "muscle_y": (TRUNK_Z, (4, 6, 8, 8, 8, 5, 1, -3, -9, -14, -17, -17, -14)),
}
"""Curves along z: heights and values. Each outline of the trunk in the transverse plane has half axes a (along x) and b
(along y) and a centre at y."""

LEVEL_STEP_MM = 1.0

OUTLINE_POWER = 2.4
"""Power of the superellipses: a trunk is slightly squarer than an ellipse."""

DOME_BASE_MM, DOME_X_MM, DOME_WIDTH_MM = 79.0, (66.0, -68.0), 46.0
"""Height of the middle of the diaphragm, lateral positions and width of its two domes."""

RECESS_MM, RECESS_TILT, RECESS_TURN_MM = 82.0, 0.42, 55.0
"""Depth of the costophrenic recess below the dome at the flanks, its relative increase towards the back, and the
distance over which that changes."""

FAT_SHARE = {"side": 0.9, "depth": 0.75, "forward": 0.2}
"""Distribution of the fat under the skin, as shares of the habitus' thickness."""


@cache
def _curve(name: str) -> tuple[float, Array, Array]:
    """Lowest height of a curve, and its values and differences at steps of LEVEL_STEP_MM from there."""
    from scipy.interpolate import PchipInterpolator  # scipy.interpolate takes long to import

    z, values = LEVELS[name]
    fine = np.arange(z[0], z[-1] + LEVEL_STEP_MM / 2, LEVEL_STEP_MM, dtype=np.float64)
    table = PchipInterpolator(z, values)(fine).astype(np.float32)
    return float(z[0]), table, np.diff(table)


def level(name: str, z: Array) -> Array:
    """Value of one of the curves at heights z, constant beyond its ends."""
    lowest, table, steps = _curve(name)
    # Even steps make this several times faster than np.interp, which has to search.
    position = np.clip((z - lowest) / LEVEL_STEP_MM, 0, len(steps) - 1e-3)
    index = position.astype(np.int32)
    return np.asarray(table[index] + (position - index).astype(np.float32) * steps[index], np.float32)


def spine_y(z: Array) -> Array:
    """Anteroposterior position of the centres of the vertebral bodies."""
    return level("spine_y", z)


PITCH_MM = tuple(float(p) for p in np.gradient(np.asarray(VERTEBRA_Z)))
"""Distance between the centres of neighbouring vertebrae."""


@dataclass(frozen=True)
class Habitus:
    """Differences between trunks beyond their size."""

    fat_mm: float
    """Thickness of the fat under the skin."""
    dome_mm: tuple[float, float]
    """Heights of the right and left dome above the middle of the diaphragm."""


def draw_habitus(rng: np.random.Generator) -> Habitus:
    fat = float(np.clip(np.exp(rng.normal(2.65, 0.4)), 7, 24))
    return Habitus(fat, (float(rng.normal(22, 5)), float(rng.normal(9, 4))))


class Frame:
    """Surfaces of the trunk at given atlas positions: signed distances (I, J, K), each computed on first use."""

    def __init__(self, coords: Coords, habitus: Habitus):
        self.coords = coords
        self.habitus = habitus

    @cached_property
    def cavity(self) -> Array:
        """The inner surface of the chest and belly wall."""
        return cavity(self.coords)

    @cached_property
    def muscle(self) -> Array:
        """The outer surface of the muscles."""
        return _outline(self.coords, "muscle", 0.0, 0.0, 0.0)[0]

    @cached_property
    def skin(self) -> Array:
        fat = self.habitus.fat_mm
        side, depth, forward = (FAT_SHARE[key] * fat for key in ("side", "depth", "forward"))
        return _outline(self.coords, "muscle", side, depth, forward)[0]

    @cached_property
    def diaphragm(self) -> Array:
        """The diaphragm; negative below it."""
        return diaphragm(self.coords, self.habitus)


def cavity(coords: Coords) -> Array:
    """Signed distance to the inner surface of the chest and belly wall."""
    return _outline(coords, "cavity", 0.0, 0.0, 0.0)[0]


def diaphragm(coords: Coords, habitus: Habitus) -> Array:
    """Signed distance to the diaphragm, negative below."""
    x, y, z = coords
    fullness = np.minimum(_outline(coords, "cavity", 0.0, 0.0, 0.0)[1], np.float32(1.2))
    height = np.full_like(x, DOME_BASE_MM)
    for dome_x, dome in zip(DOME_X_MM, habitus.dome_mm, strict=True):
        height += np.float32(dome) * np.exp(-(((x - np.float32(dome_x)) / np.float32(DOME_WIDTH_MM)) ** 2))
    recess = RECESS_MM * (1 - RECESS_TILT * np.tanh(y / np.float32(RECESS_TURN_MM)))
    cube = fullness**3
    height -= recess * cube * fullness
    # The cavity is about 100 mm wide from its middle: the slope of the fourth power, to turn heights into distances.
    slope = 4 * recess * cube / np.float32(100)
    return np.asarray((z - height) / np.sqrt(1 + slope * slope), np.float32)


def abdominal_space(habitus: Habitus, gap_mm: float) -> Callable[[Coords], Array]:
    """Signed distance to the space below the diaphragm and inside the wall, `gap_mm` away from both."""
    return lambda coords: smooth_max(cavity(coords), diaphragm(coords, habitus), 8.0) + np.float32(gap_mm)


def _outline(coords: Coords, name: str, side: float, depth: float, forward: float) -> tuple[Array, Array]:
    """Signed distance to a superellipse whose axes change with z, and the position relative to its size (1 on it)."""
    x, y, z = coords
    a = level(f"{name}_a", z) + np.float32(side)
    b = level(f"{name}_b", z) + np.float32(depth)
    u = np.abs(x) / a
    v = np.abs(y - level(f"{name}_y", z) - np.float32(forward)) / b
    power = np.float32(OUTLINE_POWER)
    pu, pv = u ** (power - 1), v ** (power - 1)
    size = np.maximum((u * pu + v * pv) ** (1 / power), np.float32(1e-3))
    gradient = np.maximum(np.sqrt((pu / a) ** 2 + (pv / b) ** 2) * size ** (1 - power), np.float32(1e-3))
    return np.asarray((size - 1) / gradient, np.float32), size
