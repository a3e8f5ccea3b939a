"""Matched landmarks: reading and checking them, and the error of a registration at each.

Upstream: files of points. Downstream: point_guide, and the result. Legend: N pairs, in the worlds of the images.
"""

import os
import warnings
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from corereg.errors import InputError
from corereg.geometry.grid import Grid
from corereg.geometry.positions import finite_points
from corereg.io.images.image import Image
from corereg.io.points.points import Points, read_points

__all__ = ["Landmarks", "read_landmarks"]

UNMATCHED = 4, 5000
"""Fewest and most points of a cloud: fewer could be paired in any way, more take gigabytes and minutes."""

BESIDE_MM = 10.0
"""A landmark may lie this far beside its image, as markers on the skin do."""

SAME_POINT_MM, ONE_PARTNER_MM = 0.1, 10.0
"""Points so near each other are one, whose partners may lie this far apart, as those of two observers do."""


class Landmarks(NamedTuple):
    """Pairs of landmarks; before `matched`, clouds without an order."""

    fixed_mm: NDArray[np.float64]
    """(N, 3), RAS+ millimetres."""
    moving_mm: NDArray[np.float64]
    names: list[str]
    """The names of the fixed landmarks, N of them."""


def read_landmarks(
    fixed: object, moving: object, images: Sequence[Image], *, unmatched: bool = False
) -> Landmarks | None:
    """Landmarks of both images, or None without any.

    Args:
        fixed, moving: paths, Points, or arrays (N, 3) in RAS+ millimetres. Row n of one matches row n of the other;
            names in another order match by name.
        unmatched: rows and names do not match, and the numbers may differ; see `correspondences`.

    Raises:
        InputError: one is missing or cannot be used, they differ in number, some names stand on other rows, all points
            of a side lie beside its image, or a pair outside both.
    """
    if fixed is None and moving is None:
        if unmatched:
            raise InputError("got --unmatched-points without points; add --fixed-points and --moving-points")
        return None
    if fixed is None or moving is None:
        side = "moving" if fixed is None else "fixed"
        raise InputError(f"got {side} points alone, expected their partners too; add the points of the other image")
    first, second = _points(fixed), _points(moving)
    counts = len(first.coords_mm), len(second.coords_mm)
    if unmatched:
        return _unmatched(first, second, images)
    if counts[0] != counts[1]:
        raise InputError(
            f"got {counts[0]} fixed and {counts[1]} moving points, expected one partner for each; remove those "
            "without, or add --unmatched-points"
        )
    names, order = _names_and_order(first, second)
    pairs = Landmarks(first.coords_mm, second.coords_mm[order], names)
    outside = [_outside(points, image.grid) for points, image in zip(pairs[:2], images, strict=True)]
    lost = outside[0] & outside[1]
    if lost.any():
        raise InputError(
            f"got {lost.sum()} of {counts[0]} pairs of points outside both images, first {names[lost.argmax()]} at "
            f"{np.round(pairs.fixed_mm[lost.argmax()], 1).tolist()} mm (RAS), expected points on the images; check "
            "their coordinate system"
        )
    for points, image in zip(pairs[:2], images, strict=True):
        _check_some_lie_on(image, points, margin_mm=BESIDE_MM)
    _check_partners(pairs)
    return pairs


def _check_partners(pairs: Landmarks) -> None:
    """Warn of one point with two partners far from each other, which no transform meets."""
    for side, (points, partners) in {"fixed": pairs[:2], "moving": pairs[1::-1]}.items():
        place = np.unique(np.round(points / SAME_POINT_MM), axis=0, return_inverse=True)[1].ravel()
        order = np.argsort(place, kind="stable")
        for first, second in pairwise(order):
            apart = float(np.linalg.norm(partners[first] - partners[second]))
            if place[first] == place[second] and apart > ONE_PARTNER_MM:
                warnings.warn(
                    f"the points {pairs.names[first]} and {pairs.names[second]} lie at one place of the {side} image, "
                    f"their partners {apart:.1f} mm apart, of which a transform meets one at most; remove the other",
                    stacklevel=3,
                )
                return


def _names_and_order(fixed: Points, moving: Points) -> tuple[list[str], NDArray[np.intp]]:
    """The names of pairs, and for each the row of its moving landmark.

    Raises:
        InputError: some names, but not all, stand on other rows in the other file.
    """
    rows = np.arange(len(fixed.coords_mm))
    names = fixed.labels or []
    own, other = ([name.strip() for name in labels or []] for labels in (names, moving.labels))
    if len({name.casefold() for name in own}) == len(set(own)):
        own, other = ([name.casefold() for name in each] for each in (own, other))
    counts, there = (Counter(own), Counter(other)), {name: row for row, name in enumerate(other)}
    once = [(row, name) for row, name in enumerate(own) if name and counts[0][name] == 1 == counts[1][name]]
    if len(once) == len(rows):
        return names, np.array([there[name] for name in own])
    moved = [(row, there[name]) for row, name in once if row != there[name]]
    if moved:
        row, partner = moved[0]
        raise InputError(
            f"got the point {names[row]} in row {row + 1} of one side and in row {partner + 1} of the other, and names "
            "without a partner, expected the same names or matching rows; rename or reorder the points"
        )
    return names if len(set(names)) == len(rows) else [str(n + 1) for n in rows], rows


def _points(points: object) -> Points:
    if isinstance(points, Points):
        return points
    if isinstance(points, str | os.PathLike):
        return read_points(points)
    coords = finite_points(points)  # type: ignore[arg-type]
    if coords.ndim != 2 or not len(coords):
        raise InputError(f"got points of shape {coords.shape}, expected (N, 3) in RAS+ millimetres; reshape them")
    return Points(coords)


def _unmatched(fixed: Points, moving: Points, images: Sequence[Image]) -> Landmarks:
    for points, image in zip((fixed.coords_mm, moving.coords_mm), images, strict=True):
        if not UNMATCHED[0] <= len(points) <= UNMATCHED[1]:
            raise InputError(
                f"got {len(points)} unmatched points of {image.name}, expected {UNMATCHED[0]} to {UNMATCHED[1]} to "
                "find out which belong together; add or remove points, or give pairs without --unmatched-points"
            )
        _check_some_lie_on(image, points)
    names = fixed.labels or []
    unique = len(set(names)) == len(fixed.coords_mm)
    return Landmarks(
        fixed.coords_mm, moving.coords_mm, names if unique else [str(n + 1) for n in range(len(fixed.coords_mm))]
    )


def _check_some_lie_on(image: Image, points_mm: NDArray[np.float64], *, margin_mm: float = 0.0) -> None:
    if _outside(points_mm, image.grid, margin_mm=margin_mm).all():
        raise InputError(
            f"got {len(points_mm)} points, all outside {image.name}, expected points on it; check their coordinate "
            "system"
        )


def _outside(points_mm: NDArray[np.float64], grid: Grid, *, margin_mm: float = 0.0) -> NDArray[np.bool_]:
    vox, margin = grid.to_voxel(points_mm), 0.5 + margin_mm / np.array(grid.spacing)
    return np.asarray(((vox < -margin) | (vox > np.array(grid.shape) - 1 + margin)).any(1))
