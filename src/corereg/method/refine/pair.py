"""Stage 4 for a whole pair: one direction or both, on the 1/2 grid and then, optionally, on the full one.

Upstream: coarse displacements. Uses: optimise, velocity, inverse_consistent.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from torch import Tensor

from corereg.geometry.displacement import Disp, compose, inverse_consistent, unfold
from corereg.geometry.strided import subsample
from corereg.geometry.velocity import exponential, logarithm
from corereg.geometry.warp import identity_coords, sample
from corereg.method.coarse.passes import FINAL_SMOOTHING, full_grid_displacement
from corereg.method.config import DIFFEOMORPHIC, RefineConfig
from corereg.method.refine.energy import Compared
from corereg.method.refine.optimise import refine
from corereg.method.refine.velocity import refine_velocity

__all__ = ["Direction", "Refined", "compared_at_start", "refine_pair"]

SYMMETRY_STEPS = 15
"""Fixed-point steps that make the two directions inverse to each other, as many as in the coarse stage. They smooth as
well: with 7 on the full grid, the chest phantom's error is 1.23 mm instead of 1.19."""

LARGE_GRID, LARGE_SHARE = 3_000_000, 0.5
"""The full grid takes as many steps as the 1/2 grid, or this share of them above this many voxels, where each takes a
second: benchmarks/history/refine-speed.md."""

FINE_LEARNING_RATE = 1.0
"""Learning rate in voxels of the full grid. With half of it, the same distance as on the 1/2 grid, the result is less
accurate: benchmarks/history/accuracy.md."""


class Direction(NamedTuple):
    """One direction of a pair: the start of its refinement and what it compares."""

    coarse: Disp
    """Displacement to start from, on the 1/2 grid."""
    half: Compared
    """What the 1/2 grid compares, without weights."""
    full: Compared | None
    """What the full grid compares; None ends the refinement on the 1/2 grid."""
    counts: tuple[Tensor | None, Tensor | None]
    """1 where the fixed and the moving image have data that counts, on the full grid; None counts all."""


class Refined(NamedTuple):
    """A refined pair."""

    disp_vox: Disp
    """The first direction's displacement on the full grid."""
    losses: tuple[float, ...]
    """The energy before each step."""
    disagreement_vox: Tensor | None
    """(B, X, Y, Z), voxels of the full grid: by how much the two directions, refined apart, missed being each other's
    inverse on the 1/2 grid; None if they were not refined apart."""


def refine_pair(directions: Sequence[Direction], config: RefineConfig) -> Refined:
    """Refine a pair.

    Given both directions, refines both and makes them inverse to each other, or optimises one velocity for both;
    remaining folds are smoothed away.
    """
    found, losses, disagreement = _refine_level(directions, _starts(directions, config), 2, config)
    if directions[0].full is None:
        full = full_grid_displacement(_displacements(found, config)[0], smoothing=FINAL_SMOOTHING)
    else:
        starts = [full_grid_displacement(u, smoothing=1) for u in found]
        share = 1.0 if starts[0][0, 0].numel() <= LARGE_GRID else LARGE_SHARE
        fine = replace(config, steps=math.ceil(share * config.steps), learning_rate=FINE_LEARNING_RATE)
        found, fine_losses, _ = _refine_level(directions, starts, 1, fine)
        full, losses = _displacements(found, config)[0], losses + fine_losses
    return Refined(full if len(directions) == 1 else unfold(full), losses, disagreement)


def compared_at_start(direction: Direction) -> Compared:
    """What the 1/2 grid compares, with the weights that the coarse displacement gives its voxels."""
    return direction.half._replace(weight=_weight(direction.coarse, *direction.counts, stride=2))


def _starts(directions: Sequence[Direction], config: RefineConfig) -> list[Disp]:
    coarse = [direction.coarse for direction in directions]
    if config.parametrisation != DIFFEOMORPHIC:
        return coarse
    forward, backward = inverse_consistent(*coarse, steps=SYMMETRY_STEPS)
    return [logarithm(forward, backward)]


def _refine_level(
    directions: Sequence[Direction], starts: list[Disp], stride: int, config: RefineConfig
) -> tuple[list[Disp], tuple[float, ...], Tensor | None]:
    """The displacement of each direction, or the one velocity of both, on the grid of this stride; and their
    disagreement."""
    compared = []
    for direction, disp_vox in zip(directions, _displacements(starts, config), strict=True):
        weight = _weight(disp_vox, *direction.counts, stride=stride)
        given = direction.half if stride > 1 else direction.full
        assert given is not None
        compared.append(given._replace(weight=weight))
    if config.parametrisation == DIFFEOMORPHIC:
        velocity, losses = refine_velocity(compared, starts[0], config)
        return [velocity], losses, None
    found = [refine(one, start, config) for one, start in zip(compared, starts, strict=True)]
    fields = [disp_vox for disp_vox, _ in found]
    disagreement = None
    if len(fields) > 1:
        forward, backward = fields
        disagreement = stride * compose(backward, forward).square().sum(1).sqrt()
        fields = list(inverse_consistent(forward, backward, steps=SYMMETRY_STEPS))
    return fields, found[0][1], disagreement


def _displacements(found: list[Disp], config: RefineConfig) -> list[Disp]:
    if config.parametrisation != DIFFEOMORPHIC:
        return found
    return [exponential(found[0]), exponential(-found[0])]


def _weight(disp_vox: Disp, fixed_counts: Tensor | None, moving_counts: Tensor | None, *, stride: int) -> Tensor | None:
    """Weight of each voxel of the fixed image: 1 if it counts and its current match lies in the moving image's data."""
    weight = fixed_counts if fixed_counts is None or stride == 1 else subsample(fixed_counts, stride)
    if moving_counts is not None:
        coords = stride * (identity_coords(disp_vox.shape[2:], like=disp_vox) + disp_vox)
        reached = sample(moving_counts, coords)
        weight = reached if weight is None else weight * reached
    return weight
