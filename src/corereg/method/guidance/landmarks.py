"""Matched landmarks: reading and checking them, and the error of a registration at each.

Upstream: files of points. Downstream: point_guide, and the result. Legend: N pairs, in the worlds of the images.
"""

import os
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from corereg.errors import InputError
from corereg.geometry.grid import Grid
from corereg.geometry.positions import finite_points
from corereg.io.images.image import Image
from corereg.io.points.points import Points, read_points

__all__ = ["Landmarks", "read_landmarks"]


class Landmarks(NamedTuple):
    """Pairs of landmarks."""

    fixed_mm: NDArray[np.float64]
    """(N, 3), RAS+ millimetres."""
    moving_mm: NDArray[np.float64]
    names: list[str]


def read_landmarks(fixed: object, moving: object, images: Sequence[Image]) -> Landmarks | None:
    """Matched landmarks of both images, or None without any.

    Args:
        fixed, moving: paths, Points, or arrays (N, 3) in RAS+ millimetres. Row n of one matches row n of the other;
            names in another order match by name.

    Raises:
        InputError: one is missing, they differ in number, or a pair lies outside both images.
    """
    if fixed is None and moving is None:
        return None
    if fixed is None or moving is None:
        side = "moving" if fixed is None else "fixed"
        raise InputError(f"got {side} points alone, expected their partners too; add the points of the other image")
    first, second = _points(fixed), _points(moving)
    counts = len(first.coords_mm), len(second.coords_mm)
    if counts[0] != counts[1]:
        raise InputError(
            f"got {counts[0]} fixed and {counts[1]} moving points, expected one partner for each; remove those without"
        )
    names, order = first.labels or [], np.arange(counts[0])
    if len(set(names)) < counts[0]:
        names = [str(n + 1) for n in order]
    elif second.labels is not None and set(names) == set(second.labels):
        order = np.array([second.labels.index(name) for name in names])
    pairs = Landmarks(first.coords_mm, second.coords_mm[order], names)
    outside = [_outside(points, image.grid) for points, image in zip(pairs[:2], images, strict=True)]
    lost = outside[0] & outside[1]
    if lost.any():
        raise InputError(
            f"got {lost.sum()} of {counts[0]} pairs of points outside both images, first {names[lost.argmax()]} at "
            f"{np.round(pairs.fixed_mm[lost.argmax()], 1).tolist()} mm (RAS), expected points on the images; check "
            "their coordinate system"
        )
    return pairs


def _points(points: object) -> Points:
    if isinstance(points, Points):
        return points
    if isinstance(points, str | os.PathLike):
        return read_points(points)
    coords = finite_points(points)  # type: ignore[arg-type]
    if coords.ndim != 2 or not len(coords):
        raise InputError(f"got points of shape {coords.shape}, expected (N, 3) in RAS+ millimetres; reshape them")
    return Points(coords)


def _outside(points_mm: NDArray[np.float64], grid: Grid) -> NDArray[np.bool_]:
    vox = grid.to_voxel(points_mm)
    return np.asarray(((vox < -0.5) | (vox > np.array(grid.shape) - 0.5)).any(1))
