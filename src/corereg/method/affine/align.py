"""Affine pre-alignment of a pair: mutual information, maximised over several resolutions from several starts.

Works in world coordinates (RAS+ millimetres) on coarse copies of both images. Upstream: `coarse_copies`. Downstream:
the affine part of the transform.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from corereg.geometry.grid import Grid, Matrix, transform_points
from corereg.geometry.kernels.threads import run_tasks
from corereg.method.affine.coarse_copies import CoarseCopy
from corereg.method.affine.mutual_information import MutualInformation, Places
from corereg.method.affine.search import (
    COARSE,
    FINE,
    IDENTITY,
    MIDDLE,
    PLAUSIBLE,
    START,
    Level,
    Space,
    middle,
    optimised,
    rotation,
    within,
)
from corereg.method.affine.translation import best_translation

__all__ = ["Alignment", "align"]

TILT_DEGREES = 15.0
"""Rotation about each axis of the additional, tilted starts."""
FINALISTS, FOLLOWED = 6, 3
"""How many results of the first and of the second search the next one continues from."""
SAME_MM = 15.0
"""Two maps count as one finalist if they send every corner of the fixed image to places this close together."""
STRETCH_GAIN = 0.075
"""Relative gain in mutual information over the best rigid map below which a pair is not stretched: benchmarks/
robustness.md."""
GAIN = 0.015
"""Relative gain in mutual information below which the headers count as right. It must be small: two headers that are
both kept lead to different ends."""

Found = tuple[float, str, Matrix]
"""The value of a map, the start that led to it and the map."""


@dataclass(frozen=True)
class Alignment:
    """Result of the pre-alignment.

    Args:
        affine: (4, 4), from the fixed image's world to the moving image's, RAS+ millimetres.
        start: the start that led to it: "identity", "geometry", "moments" or "correlation".
        metric_before, metric_after: mutual information (higher is better) of the identity and of `affine`.
        needed: False if the identity was kept.
    """

    affine: Matrix
    start: str
    metric_before: float
    metric_after: float
    needed: bool


def align(
    fixed: CoarseCopy,
    moving: CoarseCopy,
    *,
    seed: int = 0,
    rigid: bool = False,
    only_from_identity: bool = False,
    any_gain: bool = False,
) -> Alignment:
    """Search a similarity from several starts, then an affine map from the best; take a rigid map or the identity if it
    is nearly as good.

    Args:
        seed: shifts the places at which the images are compared.
        rigid: search rigid maps throughout.
        only_from_identity: search near the identity alone.
        any_gain: take the map whatever it gains, because no deformation follows.
    """
    places: dict[Level, Places] = {}

    def metric(level: Level, moved_by: Matrix = IDENTITY) -> MutualInformation:
        samples, smoothing_mm = level
        if level not in places:
            places[level] = Places.of(fixed, samples=samples, smoothing_mm=smoothing_mm, seed=seed)
        # The moving image is placed where the map puts it, so that its smoothing does not depend on a header in error.
        grid = Grid(moving.grid.shape, np.linalg.inv(moved_by) @ moving.grid.affine)
        placed = moving._replace(grid=grid)
        return MutualInformation(fixed, placed, samples=samples, smoothing_mm=smoothing_mm, places=places[level])

    space = Space(fixed.grid)
    similars, affines = (space.rigid, space.rigid) if rigid else (space.similar, space.affine)
    starts = _starts(fixed, moving, space)[: 1 if only_from_identity else None]
    first, coarse = metric(START), metric(COARSE)

    def searched(start: tuple[str, Matrix]) -> Found:
        name, matrix = start
        value, similar = optimised(first, matrix, similars, START, stop=lambda near: space.near(near, known))
        return value, name, similar

    def followed(result: Found) -> Found:
        value, affine = optimised(coarse, result[2], affines, COARSE)
        return value, result[1], affine

    def finished(result: Found) -> Found:
        _, name, affine = result
        for level in (COARSE, MIDDLE):
            affine = affine @ optimised(metric(level, affine), IDENTITY, affines, level, affine)[1]
        return metric(MIDDLE, affine)(IDENTITY) if several else 0.0, name, affine

    known: list[Matrix] = []
    found = run_tasks(searched, starts[:1])
    # Most starts lead to one place, so the later ones end as soon as they come near that of the first.
    known += [similar for value, _, similar in found if np.isfinite(value)]
    found += run_tasks(searched, starts[1:])
    found = [result for result in found if np.isfinite(result[0])]
    if not found:
        warnings.warn(
            "no start of the affine pre-alignment makes the images overlap, so it is skipped; check the headers and "
            "the masks",
            stacklevel=2,
        )
        return Alignment(IDENTITY.copy(), "identity", -np.inf, -np.inf, False)
    found = run_tasks(followed, _distinct(found, fixed.grid)[:FINALISTS])
    found = _distinct(found, fixed.grid)[:FOLLOWED]
    several = len(found) > 1
    found = run_tasks(finished, found)
    _, name, affine = max(found, key=lambda result: result[0])
    affine = affine @ optimised(metric(FINE, affine), IDENTITY, affines, FINE, affine)[1]
    kept = _no_more_than_needed(affine, metric, space, 0.0 if rigid or any_gain else STRETCH_GAIN)
    fine = metric(FINE, kept)
    before, after = fine(np.asarray(np.linalg.inv(kept))), fine(IDENTITY)
    if after <= before * (1 if any_gain else 1 + GAIN):
        return Alignment(IDENTITY.copy(), "identity", before, before, False)
    _warn_of_stretches(affine)
    return Alignment(kept, name, before, after, True)


def _starts(fixed: CoarseCopy, moving: CoarseCopy, space: Space) -> list[tuple[str, Matrix]]:
    """Named maps of the fixed world; the last two also tilted about each axis."""
    centre, there = (middle(np.ones_like(image.array), image.grid) for image in (fixed, moving))
    # Moments need weights >= 0, and Hounsfield units can be negative.
    masses = [middle(image.array - image.array.min(), image.grid) for image in (fixed, moving)]
    shifts = {
        "identity": np.zeros(3),
        "geometry": there - centre,
        "moments": masses[1] - masses[0],
        "correlation": best_translation(fixed.array, fixed.grid, moving.array, moving.grid),
    }
    starts = [(name, space.matrix(np.eye(3), shift)) for name, shift in shifts.items()]
    for name in ("moments", "correlation"):
        for axis in np.concatenate([np.eye(3), -np.eye(3)]):
            tilt = rotation(np.radians(TILT_DEGREES) * axis)
            starts.append((name, space.matrix(tilt, shifts[name])))
    return starts


def _distinct(found: list[Found], grid: Grid) -> list[Found]:
    """Sort the best first and drop every map that sends the grid to about the same place as a better one."""
    kept: list[Found] = []
    corners = grid.corners_mm()
    for result in sorted(found, key=lambda result: -result[0]):
        there = transform_points(result[2], corners)
        if all(np.abs(transform_points(other[2], corners) - there).max() > SAME_MM for other in kept):
            kept.append(result)
    return kept


def _no_more_than_needed(
    affine: Matrix, metric: Callable[[Level, Matrix], MutualInformation], space: Space, gain: float
) -> Matrix:
    """The affine map, or the best rigid map near it if stretching is implausible or gains too little."""
    plausible = within(PLAUSIBLE, affine)
    if plausible and gain == 0:
        return affine
    left, _, right = np.linalg.svd(affine[:3, :3])
    rigid = space.matrix(left @ right, space.shift(affine))
    for level in (COARSE, FINE):
        rigid = rigid @ optimised(metric(level, rigid), IDENTITY, space.rigid, level, rigid)[1]
    fine = metric(FINE, affine)
    return affine if plausible and fine(IDENTITY) > (1 + gain) * fine(np.linalg.inv(affine) @ rigid) else rigid


def _warn_of_stretches(affine: Matrix) -> None:
    if within(PLAUSIBLE, affine):
        return
    stretches = np.linalg.svd(affine[:3, :3], compute_uv=False)
    warnings.warn(
        "the affine pre-alignment would stretch the moving image implausibly, by "
        f"{', '.join(f'{stretch:.2f}' for stretch in stretches)} along three directions, so it is rigid; check that "
        "both scans show the same body part",
        stacklevel=3,
    )
