"""Phantom, stage 2 of 4: smooth analytic maps of position: textures, the shape of a subject, breathing.

`SubjectMap` takes a patient's world positions to the atlas, in which the organs are described. `Breathing` moves
positions of one patient. Both are checked to be one-to-one (det J > 0) when they are drawn.
Upstream: shapes. Downstream: images.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from corereg.data.phantom.shapes import Array, Coords
from corereg.data.phantom.torso import spine_y

__all__ = ["Breathing", "SubjectMap", "Waves", "draw_breathing", "draw_subject_map", "draw_texture", "smallest_det"]

SUBJECT_WAVES, SUBJECT_WAVELENGTH_MM, SUBJECT_RMS_MM = 14, (150.0, 420.0), 6.0
"""Differences between patients beyond organ sizes: number of waves, wavelengths longer than an organ, and standard
deviation per component."""

SUBJECT_SCALE_SD = (0.035, 0.045, 0.04)
"""Standard deviation of a patient's width, depth and height relative to the atlas."""

TEXTURE_WAVES = 18

MIN_DET = 0.35
"""Smallest local volume ratio of a drawn map. Stronger maps are scaled down, as they would tear thin organs apart."""

CHECK_STEP_MM, CHECK_REACH_MM = 14.0, (170.0, 135.0, 330.0)
"""Raster of the check. The shortest wave is 10 times as long, so no fold can hide between the points."""

DIFFERENCE_MM = 0.5
"""Half the step of the check's central differences."""

DIAPHRAGM_DROP_MM = (20.0, 23.0)
"""Craniocaudal excursion of a deep breath: usually 20-30 mm in breath-hold CT, up to 60 mm in full inspiration."""

WALL_RISE_MM = (17.0, 20.0)
"""Anteroposterior excursion of the anterior wall of chest and belly."""

RIB_FLARE_MM = (3.0, 5.0)
"""Outward excursion of the flanks."""

WANDER_RMS_MM, WANDER_WAVELENGTH_MM, WANDER_WAVES = 1.2, (120.0, 260.0), 8
"""Irregular part of the organs' motion in breathing."""

REST_RADII_MM = (36.0, 44.0, 120.0)
"""Distances from the spine (to the side, in front, behind) within which breathing fades to zero: the back rests on the
table."""

BELLOWS_CENTRE_MM, BELLOWS_REACH_MM = 55.0, (100.0, 115.0)
"""Height of the largest craniocaudal motion, and its reach downwards and upwards (Gaussian deviations)."""

WALL_REACH_MM = 75.0
"""Distance in front of the spine at which the anteroposterior motion has half its size."""

LATERAL_REACH_MM, LATERAL_LOSS = (150.0, 115.0), 0.6
"""Half axes of the trunk, and the share of the craniocaudal motion lost there, since ribs do not sink."""


@dataclass(frozen=True)
class Waves:
    """A sum of N sine waves with C components: vectors (N, 3) in 1/mm, phases (N,), amplitudes (N, C)."""

    vectors: NDArray[np.float32]
    phases: NDArray[np.float32]
    amplitudes: NDArray[np.float32]

    def at(self, coords: Coords) -> list[Array]:
        """The C components at the given positions (millimetres)."""
        # Plain sums instead of matrix products: the order in which a BLAS adds depends on the number of threads.
        x, y, z = coords
        totals = [np.zeros(x.shape, np.float32) for _ in range(self.amplitudes.shape[1])]
        for (kx, ky, kz), phase, amplitudes in zip(self.vectors, self.phases, self.amplitudes, strict=True):
            wave = np.sin(kx * x + ky * y + kz * z + phase)
            for total, amplitude in zip(totals, amplitudes, strict=True):
                total += amplitude * wave
        return totals

    def scaled(self, factor: float) -> "Waves":
        return Waves(self.vectors, self.phases, np.float32(factor) * self.amplitudes)


def _draw_waves(
    rng: np.random.Generator, count: int, wavelengths_mm: tuple[float, float], rms: float, components: int
) -> Waves:
    directions = rng.standard_normal((count, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    shortest, longest = wavelengths_mm
    lengths = shortest * (longest / shortest) ** rng.uniform(size=count)
    amplitudes = rng.standard_normal((count, components))
    amplitudes *= rms * np.sqrt(2 / (amplitudes**2).sum(0))
    vectors = 2 * np.pi * directions / lengths[:, np.newaxis]
    phases = rng.uniform(0, 2 * np.pi, count)
    return Waves(vectors.astype(np.float32), phases.astype(np.float32), amplitudes.astype(np.float32))


def draw_texture(rng: np.random.Generator, wavelengths_mm: tuple[float, float]) -> Waves:
    """Draw a scalar field of unit standard deviation."""
    return _draw_waves(rng, TEXTURE_WAVES, wavelengths_mm, 1.0, 1)


@dataclass(frozen=True)
class SubjectMap:
    """World positions of one patient (millimetres) -> positions in the atlas: (x + waves(x)) / scale."""

    waves: Waves
    scale: tuple[float, float, float]

    def __call__(self, coords: Coords) -> Coords:
        x, y, z = (
            (c + offset) / np.float32(s) for c, offset, s in zip(coords, self.waves.at(coords), self.scale, strict=True)
        )
        return x, y, z


def draw_subject_map(rng: np.random.Generator) -> SubjectMap:
    """Draw a patient's body shape, a one-to-one map."""
    scale = 1 + np.clip(rng.standard_normal(3), -2, 2) * SUBJECT_SCALE_SD
    waves = _draw_waves(rng, SUBJECT_WAVES, SUBJECT_WAVELENGTH_MM, SUBJECT_RMS_MM, 3)
    size = (float(scale[0]), float(scale[1]), float(scale[2]))
    while smallest_det(SubjectMap(waves, size)) < MIN_DET:
        waves = waves.scaled(0.85)
    return SubjectMap(waves, size)


@dataclass(frozen=True)
class Breathing:
    """Positions of one patient after breathing out -> the same points of the body after breathing in.

    The offset u(x) depends on the anatomy at x: the spine rests, the diaphragm and the organs attached to it sink, the
    anterior wall rises, the flanks widen.
    """

    subject: SubjectMap
    drop_mm: float
    rise_mm: float
    flare_mm: float
    wander: Waves

    def displacement(self, coords: Coords) -> Coords:
        """u(x) in world millimetres (RAS+) at world positions x."""
        x, y, z = self.subject(coords)
        front = y - spine_y(z)
        aside_mm, ahead_mm, behind_mm = (np.float32(radius) for radius in REST_RADII_MM)
        radius2 = (x / aside_mm) ** 2 + (front / np.where(front > 0, ahead_mm, behind_mm)) ** 2
        moves = 1 - np.exp(-radius2 * radius2)
        above = z > BELLOWS_CENTRE_MM
        reach = np.where(above, np.float32(BELLOWS_REACH_MM[1]), np.float32(BELLOWS_REACH_MM[0]))
        bellows = np.exp(np.float32(-0.5) * ((z - np.float32(BELLOWS_CENTRE_MM)) / reach) ** 2)
        rim = ((x / LATERAL_REACH_MM[0]) ** 2 + (y / LATERAL_REACH_MM[1]) ** 2) ** 2
        held = 1 - np.float32(LATERAL_LOSS) * rim / (1 + rim)
        ahead2 = (np.maximum(front, 0) / np.float32(WALL_REACH_MM)) ** 2
        aside = x / np.float32(LATERAL_REACH_MM[0])
        wander = self.wander.at(coords)
        u_x = self.flare_mm * bellows * aside / (1 + aside * aside) * 2 + wander[0]
        u_y = self.rise_mm * np.sqrt(bellows) * ahead2 / (1 + ahead2) + wander[1]
        u_z = -self.drop_mm * bellows * held + wander[2]
        u_x, u_y, u_z = (np.asarray(moves * u, np.float32) for u in (u_x, u_y, u_z))
        return u_x, u_y, u_z

    def __call__(self, coords: Coords) -> Coords:
        """x + u(x)."""
        x, y, z = (c + u for c, u in zip(coords, self.displacement(coords), strict=True))
        return x, y, z


def draw_breathing(rng: np.random.Generator, subject: SubjectMap) -> Breathing:
    """Draw a breath of one patient, a one-to-one map."""
    drop, rise, flare = (float(rng.uniform(*span)) for span in (DIAPHRAGM_DROP_MM, WALL_RISE_MM, RIB_FLARE_MM))
    wander = _draw_waves(rng, WANDER_WAVES, WANDER_WAVELENGTH_MM, WANDER_RMS_MM, 3)
    breathing = Breathing(subject, drop, rise, flare, wander)
    while smallest_det(breathing) < MIN_DET:
        drop, rise, flare, wander = 0.9 * drop, 0.9 * rise, 0.9 * flare, wander.scaled(0.9)
        breathing = Breathing(subject, drop, rise, flare, wander)
    return breathing


def smallest_det(mapping: Callable[[Coords], Coords]) -> float:
    """Smallest Jacobian determinant of a map of positions over the trunk, by central differences."""
    axes = [np.arange(-reach, reach + 1, CHECK_STEP_MM, dtype=np.float32) for reach in CHECK_REACH_MM]
    points = np.stack(np.meshgrid(*axes, indexing="ij")).reshape(3, -1)
    columns = []
    for axis in range(3):
        step = np.zeros((3, 1), np.float32)
        step[axis] = DIFFERENCE_MM
        ahead, behind = (np.stack(mapping(_coords(points + s))) for s in (step, -step))
        columns.append((ahead - behind) / (2 * DIFFERENCE_MM))
    (a, d, g), (b, e, h), (c, f, i) = columns
    return float((a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g)).min())


def _coords(points: Array) -> Coords:
    return points[0], points[1], points[2]
