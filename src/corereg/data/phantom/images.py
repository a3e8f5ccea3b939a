"""Phantom, stage 4 of 4: grids, noise and breathing pairs.

A breathing pair is one patient at x and at x + u(x), where formulas give u (see `motion`). Therefore

    fixed(x) = anatomy(x + u(x)),  moving(x) = anatomy(x),  hence  moving(x + u(x)) = fixed(x)

holds exactly before noise is added, and needs no inverse. Fixed is after breathing out, moving after breathing in.
Upstream: anatomy, motion. Downstream: cohort.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from corereg.data.phantom.anatomy import LABELS, draw_subject
from corereg.data.phantom.motion import draw_breathing
from corereg.data.phantom.shapes import Array, Coords
from corereg.errors import InputError
from corereg.geometry.grid import Grid

__all__ = ["KINDS", "LABELS", "BreathingPair", "check_phantom", "make_breathing_pair", "make_subject"]

KINDS = tuple(LABELS)

FIELD_OF_VIEW_MM = {"abdomen": (336.0, 264.0, 288.0), "chest": (336.0, 264.0, 312.0)}
CENTRE_MM = {"abdomen": (0.0, 4.0, -22.0), "chest": (0.0, 2.0, 151.0)}
"""World position (RAS+) of the centre of the field of view; z = 0 is at the first lumbar vertebra."""

SPACING_LIMITS_MM = (1.0, 8.0)
"""Finer grids need gigabytes, coarser ones lose the small organs."""

NOISE_HU = 12.0
"""Standard deviation of the noise of a standard-dose abdominal CT, smoothed to a few millimetres."""
GRAIN_VOXELS, GRAIN_SHARE = 1.0, 0.7
"""Width of the correlated part of the noise (as left by a reconstruction kernel), and its share of the amplitude."""

HU_LIMITS = (-1024.0, 3071.0)
"""Range of the 12 bits of a CT scanner."""

ANATOMY, MOTION, NOISE, PAIR_NOISE = 0, 1, 2, 3
"""Independent random streams of one seed: a subject and the same subject's breathing pair share ANATOMY."""


@dataclass(frozen=True)
class BreathingPair:
    """One patient after breathing out (fixed) and in (moving), and the exact motion: moving(x + u(x)) = fixed(x)."""

    fixed: Array
    """(I, J, K) float32, whole HU."""
    fixed_labels: NDArray[np.uint8]
    moving: Array
    moving_labels: NDArray[np.uint8]
    disp_vox: Array
    """u in voxels, (3, I, J, K) float32."""
    grid: Grid


def make_subject(
    seed: int, kind: str = "abdomen", spacing_mm: float = 3.0, *, noise_hu: float = NOISE_HU
) -> tuple[Array, NDArray[np.uint8], Grid]:
    """Make one patient.

    Returns: image (I, J, K) float32 in whole HU, labels (I, J, K) numbered as in LABELS[kind], and their grid.

    Raises:
        InputError: an unknown kind, a spacing outside 1 to 8 mm, a negative seed or noise.
    """
    check_phantom(seed, kind, spacing_mm, noise_hu)
    grid = _grid(kind, spacing_mm)
    subject = draw_subject(np.random.default_rng([seed, ANATOMY]))
    image, labels = subject.render(_positions(grid), spacing_mm, kind)
    return _with_noise(image, np.random.default_rng([seed, NOISE]), noise_hu), labels, grid


def make_breathing_pair(
    seed: int, kind: str = "abdomen", spacing_mm: float = 3.0, *, noise_hu: float = NOISE_HU
) -> BreathingPair:
    """Make the patient of the same seed after breathing out and in, each image with its own noise.

    Raises:
        InputError: as for `make_subject`.
    """
    check_phantom(seed, kind, spacing_mm, noise_hu)
    grid = _grid(kind, spacing_mm)
    subject = draw_subject(np.random.default_rng([seed, ANATOMY]))
    breathing = draw_breathing(np.random.default_rng([seed, MOTION]), subject.shape)
    positions = _positions(grid)
    disp_mm = breathing.displacement(positions)
    x, y, z = (p + u for p, u in zip(positions, disp_mm, strict=True))
    fixed, fixed_labels = subject.render((x, y, z), spacing_mm, kind)
    moving, moving_labels = subject.render(positions, spacing_mm, kind)
    rng = np.random.default_rng([seed, PAIR_NOISE])
    moving = _with_noise(moving, rng, noise_hu)
    return BreathingPair(
        fixed=_with_noise(fixed, rng, noise_hu),
        fixed_labels=fixed_labels,
        moving=moving,
        moving_labels=moving_labels,
        disp_vox=np.stack(disp_mm) / np.float32(spacing_mm),
        grid=grid,
    )


def check_phantom(seed: int, kind: str, spacing_mm: float, noise_hu: float = NOISE_HU) -> None:
    """Refuse arguments that cannot make a phantom.

    Raises:
        InputError: an unknown kind, a spacing outside 1 to 8 mm, a negative seed or noise.
    """
    if kind not in KINDS:
        raise InputError(f"got the phantom kind {kind!r}, expected one of {', '.join(KINDS)}; choose one of them")
    low, high = SPACING_LIMITS_MM
    if not low <= spacing_mm <= high:
        raise InputError(f"got a phantom spacing of {spacing_mm} mm, expected {low:g} to {high:g} mm; 3 mm is usual")
    if seed < 0:
        raise InputError(f"got the seed {seed}, expected 0 or more; drop the sign")
    if not 0 <= noise_hu < np.inf:
        raise InputError(f"got a noise of {noise_hu} HU, expected 0 or more; {NOISE_HU:g} HU is usual")


def _grid(kind: str, spacing_mm: float) -> Grid:
    """An axis-aligned RAS grid of isotropic voxels over the field of view."""
    i, j, k = (round(extent / spacing_mm) for extent in FIELD_OF_VIEW_MM[kind])
    affine = np.diag([spacing_mm, spacing_mm, spacing_mm, 1.0])
    affine[:3, 3] = np.asarray(CENTRE_MM[kind]) - spacing_mm * (np.array([i, j, k]) - 1) / 2
    return Grid((i, j, k), affine)


def _positions(grid: Grid) -> Coords:
    """World positions of the voxel centres, three arrays (I, J, K)."""
    axes = [(grid.affine[a, 3] + grid.affine[a, a] * np.arange(n)).astype(np.float32) for a, n in enumerate(grid.shape)]
    x, y, z = np.meshgrid(*axes, indexing="ij")
    return x, y, z


def _with_noise(image: Array, rng: np.random.Generator, noise_hu: float) -> Array:
    """The image with white and correlated noise of deviation `noise_hu`, in whole HU within the scanner's range."""
    from scipy.ndimage import gaussian_filter

    white, grain = (rng.standard_normal(image.shape, np.float32) for _ in range(2))
    grain = gaussian_filter(grain, GRAIN_VOXELS, mode="wrap", truncate=3.0)
    grain *= GRAIN_SHARE / grain.std()
    noise = np.float32(np.sqrt(1 - GRAIN_SHARE**2)) * white + grain
    return np.asarray(np.clip(np.round(image + np.float32(noise_hu) * noise), *HU_LIMITS), np.float32)
