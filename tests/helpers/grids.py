"""Grids of unequal shapes and spacings, in four orientations."""

import numpy as np
from scipy.spatial.transform import Rotation

from corereg.geometry.grid import Grid

ORIENTATIONS = ["RAS", "LPS", "PIR", "oblique"]


def make_grid(
    shape: tuple[int, int, int] = (12, 16, 20),
    spacing_mm: tuple[float, float, float] = (1.0, 1.5, 3.0),
    orientation: str = "RAS",
    origin_mm: tuple[float, float, float] = (-31.0, 17.5, 204.25),
) -> Grid:
    """A grid whose array axes follow the letters of `orientation`, or are rotated off all axes for "oblique"."""
    if orientation == "oblique":
        directions = Rotation.from_euler("xyz", [12.0, -17.0, 25.0], degrees=True).as_matrix()
    else:
        letters = {"R": (0, 1), "L": (0, -1), "A": (1, 1), "P": (1, -1), "S": (2, 1), "I": (2, -1)}
        directions = np.zeros((3, 3))
        for axis, letter in enumerate(orientation):
            world, sign = letters[letter]
            directions[world, axis] = sign
    affine = np.eye(4)
    affine[:3, :3] = directions * np.asarray(spacing_mm)
    affine[:3, 3] = origin_mm
    return Grid(shape, affine)
