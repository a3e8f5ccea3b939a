"""Affine pre-alignment of a pair: mutual information, maximised over several resolutions from several starts.

Works in world coordinates (RAS+ millimetres) on coarse copies of both images. Upstream: `coarse_copies`. Downstream:
the affine part of the transform.
"""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np

from corereg.geometry.grid import Grid, Matrix, transform_points
from corereg.geometry.kernels.threads import run_tasks
from corereg.lazy import scipy_module
from corereg.method.affine.agreement import local_agreement
from corereg.method.affine.coarse_copies import CoarseCopy
from corereg.method.affine.mutual_information import MutualInformation, Places
from corereg.method.affine.search import (
    BROAD,
    COARSE,
    FINE,
    IDENTITY,
    MIDDLE,
    PLAUSIBLE,
    START,
    Family,
    Level,
    Space,
    excess,
    middle,
    optimised,
    rotation,
    within,
)
from corereg.method.affine.translation import best_translation

__all__ = ["INITIAL", "Alignment", "align"]

INITIAL = "initial transform"
"""The start of a scan that such a transform has placed, where the identity stands for it."""

TILT_DEGREES = 15.0
"""Rotation about each axis of the additional, tilted starts."""
FINALISTS, FOLLOWED = 6, 3
"""How many results of the first and of the second search the next one continues from."""
SAME_MM = 15.0
"""Two maps count as one finalist if they send every corner of the fixed image to places this close together."""
GAIN = 0.015
"""Relative gain in mutual information below which the headers count as right. It must be small: two headers that are
both kept lead to different ends."""
LEAST_COMPARED = 0.5
"""A map is left out if it makes less than this share of what another one does appear in both images."""
MARGINS = {"rigid": -0.1, "similar": 0.12, "affine": 0.12}
"""Relative gains in local agreement for which a rigid map is preferred to the identity, and a stretching one to either.
Mutual information also rises where a stretch makes the edges of the fields of view or of blanked regions agree, and the
anatomy less. A rigid map may lose a little, since several headers that are kept lead to several ends:
benchmarks/robustness.md."""
UNDECIDED = 0.02
"""Relative agreement by which a margin may be missed or exceeded for a map between the two that it decides on, if they
are near each other: else two headers on either side of a margin would end at either map."""

Found = tuple[float, str, Matrix]
"""The value of a map, the start that led to it and the map."""


@dataclass(frozen=True)
class Alignment:
    """Result of the pre-alignment.

    Args:
        affine: (4, 4), from the fixed image's world to the moving image's, RAS+ millimetres.
        start: the start that led to it: "identity", "geometry", "moments" or "correlation", or `INITIAL`.
        metric_before, metric_after: mutual information (higher is better) of the identity and of `affine`.
        needed: False if the identity was kept.
        stretch_excess: stretches of the affine map that agrees best, relative to those plausible between patients.
            Above 1 a map without them has been taken. NaN if the identity was kept.
    """

    affine: Matrix
    start: str
    metric_before: float
    metric_after: float
    needed: bool
    stretch_excess: float = np.nan


def align(
    fixed: CoarseCopy,
    moving: CoarseCopy,
    *,
    seed: int = 0,
    rigid: bool = False,
    only_from_identity: bool = False,
    any_gain: bool = False,
) -> Alignment:
    """Search a similarity from several starts, then an affine and a rigid map from the best; prefer the simplest of
    them and the identity that agrees about as well. Where the affine map is implausible, a similarity stands for it.

    Args:
        fixed, moving: copies in one unit.
        seed: shifts the places at which the images are compared.
        rigid: search rigid maps throughout.
        only_from_identity: search near the identity alone.
        any_gain: move the image even if that gains little, because no deformation follows.
    """
    search = _Search(fixed, moving, seed)
    space = search.space
    starts = _starts(fixed, moving, space)[: 1 if only_from_identity else None]
    found = search.near(starts, space.rigid if rigid else space.similar)
    if not found:
        warnings.warn(
            "no start of the affine pre-alignment makes the images overlap, so it is skipped; check the headers and "
            "the masks",
            stacklevel=2,
        )
        return Alignment(IDENTITY.copy(), "identity", -np.inf, -np.inf, False)
    families = {"rigid": space.rigid} if rigid else {"rigid": space.rigid, "affine": space.affine}
    maps = search.best(found, families)
    if not all(within(PLAUSIBLE, matrix) for _, matrix in maps.values()):
        maps = {"rigid": maps["rigid"], **search.best(found, {"similar": space.similar}), "affine": maps["affine"]}
    plausible = {name: each for name, each in maps.items() if within(PLAUSIBLE, each[1])}

    def chosen(among: Mapping[str, tuple[str, Matrix]]) -> tuple[str, Matrix]:
        return list(among.values())[-1] if any_gain else _simplest(among, fixed, moving, space)

    name, kept = chosen(plausible)
    fine = search.metric(FINE, kept)
    before, after = fine(np.asarray(np.linalg.inv(kept))), fine(IDENTITY)
    if after <= before * (1 if any_gain else 1 + GAIN):
        return Alignment(IDENTITY.copy(), "identity", before, before, False)
    wanted = kept if len(plausible) == len(maps) else chosen(maps)[1]
    stretch_excess = excess(PLAUSIBLE, wanted)
    if stretch_excess > 1:
        _warn_of_stretches(wanted, kept)
    return Alignment(fixed.map_in_mm(kept), name, before, after, True, stretch_excess)


class _Search:
    """Searches for the map that maximises the mutual information of two images, which are prepared once."""

    def __init__(self, fixed: CoarseCopy, moving: CoarseCopy, seed: int) -> None:
        self.space = Space(fixed.grid)
        self._fixed, self._moving, self._seed = fixed, moving, seed
        self._places: dict[Level, Places] = {}

    def metric(self, level: Level, moved_by: Matrix = IDENTITY) -> MutualInformation:
        """The mutual information once the map has moved the moving image."""
        samples, smoothing_mm = level
        if level not in self._places:
            self._places[level] = Places.of(self._fixed, samples=samples, smoothing_mm=smoothing_mm, seed=self._seed)
        # The moving image is placed where the map puts it, so that its smoothing does not depend on a header in error.
        grid = Grid(self._moving.grid.shape, np.linalg.inv(moved_by) @ self._moving.grid.affine)
        placed = self._moving._replace(grid=grid)
        return MutualInformation(
            self._fixed, placed, samples=samples, smoothing_mm=smoothing_mm, places=self._places[level]
        )

    def near(self, starts: list[tuple[str, Matrix]], family: Family) -> list[Found]:
        """The best maps of the family near the starts, the best first."""
        metric = self.metric(START)
        known: list[Matrix] = []

        def searched(start: tuple[str, Matrix]) -> Found:
            name, matrix = start
            stop = partial(self.space.near, others=known)
            value, there = optimised(metric, matrix, family, START, stop=stop)
            return value, name, there

        found = run_tasks(searched, starts[:1])
        # Most starts lead to one place, so the later ones end as soon as they come near that of the first.
        known += [there for value, _, there in found if np.isfinite(value)]
        found += run_tasks(searched, starts[1:])
        return _distinct([each for each in found if np.isfinite(each[0])], self._fixed.grid)[:FINALISTS]

    def best(self, found: list[Found], families: Mapping[str, Family]) -> dict[str, tuple[str, Matrix]]:
        """The best map of each family near the results of an earlier search, and the start that led to it."""
        coarse = self.metric(COARSE)

        def followed(family: str, result: Found) -> Found:
            value, matrix = optimised(coarse, result[2], families[family], COARSE)
            return value, result[1], matrix

        def continued(family: str, result: Found, *levels: Level) -> Found:
            value, name, matrix = result
            for level in levels:
                matrix = matrix @ optimised(self.metric(level, matrix), IDENTITY, families[family], level, matrix)[1]
            return value, name, np.asarray(matrix)

        def finished(family: str, result: Found) -> Found:
            _, name, matrix = continued(family, result, COARSE, MIDDLE)
            return self.metric(MIDDLE, matrix)(IDENTITY), name, matrix

        def settled(family: str, result: Found) -> Found:
            # The broad search mostly has one optimum where the fine one has several, and leads all starts to the same.
            return continued(family, result, BROAD, FINE)

        followers = _of_each(followed, {family: found for family in families})
        finalists = {family: _distinct(results, self._fixed.grid)[:FOLLOWED] for family, results in followers.items()}
        best = {
            family: [max(results, key=lambda result: (within(PLAUSIBLE, result[2]), result[0]))]
            for family, results in _of_each(finished, finalists).items()
        }
        return {family: result[1:] for family, [result] in _of_each(settled, best).items()}


def _of_each(function: Callable[[str, Found], Found], results: Mapping[str, list[Found]]) -> dict[str, list[Found]]:
    """`function(family, result)` of the results of every family, all at once."""
    done = iter(run_tasks(lambda task: function(*task), [(name, each) for name in results for each in results[name]]))
    return {name: [next(done) for _ in each] for name, each in results.items()}


def _simplest(
    maps: Mapping[str, tuple[str, Matrix]], fixed: CoarseCopy, moving: CoarseCopy, space: Space
) -> tuple[str, Matrix]:
    """Start with the identity and try maps of growing freedom; keep each that agrees better by its margin."""
    every = {"identity": ("identity", IDENTITY), **maps}
    agreements = {name: local_agreement(fixed, moving, matrix) for name, (_, matrix) in every.items()}
    most = max(agreement.compared for agreement in agreements.values())
    kept, least = list(every.values())[-1], -np.inf
    for name, (odds, compared) in agreements.items():
        if compared < LEAST_COMPARED * most:
            continue
        share = 1.0 if np.isinf(least) else _share(odds, least, MARGINS[name])
        if 0 < share < 1 and not space.near(every[name][1], [kept[1]]):
            share = float(share > 1 / 2)
        if share > 0:
            kept = every[name][0], _between(kept[1], every[name][1], share)
            least = max(odds, least)
    return kept


def _share(odds: float, least: float, margin: float) -> float:
    """How much of the way to a map of these odds to go: 0 or 1 unless they differ from `least` by about the margin."""
    beyond = odds - least * (1 + margin)
    return float(np.clip(1 / 2 + beyond / (2 * UNDECIDED * max(abs(least), np.finfo(float).tiny)), 0, 1))


def _between(first: Matrix, second: Matrix, share: float) -> Matrix:
    """The map that share of the way from one map to another: a part of the turn, the stretches and the shift."""
    if share == 1:
        return second
    linalg = scipy_module("linalg")
    return np.asarray(first @ linalg.expm(share * linalg.logm(np.linalg.inv(first) @ second).real))


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


def _warn_of_stretches(affine: Matrix, instead: Matrix) -> None:
    stretches = np.linalg.svd(affine[:3, :3], compute_uv=False)
    scale = f"{np.cbrt(np.linalg.det(instead[:3, :3])):.2f}"
    used = "does not stretch it" if scale == "1.00" else f"stretches it by {scale} in all directions"
    warnings.warn(
        "the affine pre-alignment would stretch the moving image implausibly, by "
        f"{', '.join(f'{stretch:.2f}' for stretch in stretches)} along three directions, so a map that {used} is used "
        "instead; check that both scans show the same body part",
        stacklevel=3,
    )
