"""A made-up patient as a function of world position, so that images of it on any grid, moved by any map, are exact."""

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from corereg.geometry.grid import Grid
from corereg.io.images.image import Image
from helpers.grids import make_grid

Positions = NDArray[np.float64]
Map = Callable[[Positions], Positions]

BODY_RADII_MM = np.array([62.0, 50.0, 52.0])
AIR_HU, MUSCLE_HU = -1000.0, 40.0

_RNG = np.random.default_rng(7)
_CENTRES_MM = _RNG.uniform(-0.85, 0.85, (60, 3)) * BODY_RADII_MM
_RADII_MM = _RNG.uniform(5, 12, 60)
_CONTRASTS_HU = _RNG.uniform(-150, 250, 60)


def centred_grid(
    shape: tuple[int, int, int],
    spacing_mm: tuple[float, float, float],
    orientation: str = "RAS",
    centre_mm: tuple[float, float, float] = (0.0, 0.0, 0.0),
) -> Grid:
    """A grid with its middle at a given place."""
    grid = make_grid(shape, spacing_mm, orientation, (0.0, 0.0, 0.0))
    affine = grid.affine.copy()
    affine[:3, 3] = np.array(centre_mm) - grid.to_world((np.array(shape) - 1) / 2)
    return Grid(shape, affine)


def voxels_mm(grid: Grid) -> Positions:
    """(I, J, K, 3), world positions of the voxels."""
    return grid.to_world(np.stack(np.meshgrid(*(np.arange(n) for n in grid.shape), indexing="ij"), -1))


def hounsfield(points_mm: Positions) -> NDArray[np.float32]:
    """Blobs of fat to contrast-filled vessels in an ellipsoid of muscle, in air."""
    body = 1 / (1 + np.exp(12 * ((points_mm / BODY_RADII_MM) ** 2).sum(-1) - 12))
    tissue = np.full(points_mm.shape[:-1], MUSCLE_HU)
    for centre, radius, contrast in zip(_CENTRES_MM, _RADII_MM, _CONTRASTS_HU, strict=True):
        tissue += contrast * np.exp(-((points_mm - centre) ** 2).sum(-1) / (2 * radius**2))
    return (AIR_HU + body * (tissue - AIR_HU)).astype(np.float32)


def in_body(points_mm: Positions) -> NDArray[np.bool_]:
    """True inside the ellipsoid."""
    return np.asarray(((points_mm / BODY_RADII_MM) ** 2).sum(-1) < 1)


@cache
def scan(grid: Grid, into_patient: Map = lambda points_mm: points_mm, name: str = "the scan") -> Image:
    """The patient on a grid; `into_patient` says which of its points is seen at a world position. Not to be changed."""
    return Image(hounsfield(into_patient(voxels_mm(grid))), grid, name=name)


def wave(points_mm: Positions) -> Positions:
    """A smooth invertible motion of up to 4 mm along each axis."""
    x, y, z = np.moveaxis(points_mm, -1, 0)
    return points_mm + np.stack([4 * np.sin(y / 20), 3 * np.cos(z / 18), 3 * np.sin(x / 22)], -1)


def affine_map(matrix: NDArray[Any]) -> Map:
    """Points through a 4x4 matrix."""
    return lambda points_mm: np.asarray(points_mm @ matrix[:3, :3].T + matrix[:3, 3])
