"""Stage 4 for a whole pair: one direction or both, on the 1/2 grid and then, optionally, on the full one.

Upstream: coarse displacements. Uses: optimise, velocity, inverse_consistent.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import reduce
from typing import NamedTuple

import torch
from torch import Tensor

from corereg.geometry.displacement import Disp, compose, inverse_consistent, unfold
from corereg.geometry.strided import box_mean, subsample
from corereg.geometry.velocity import exponential, logarithm
from corereg.geometry.warp import identity_coords, sample
from corereg.method.coarse.passes import FINAL_SMOOTHING, full_grid_displacement
from corereg.method.config import DIFFEOMORPHIC, RefineConfig
from corereg.method.refine.energy import Compared
from corereg.method.refine.optimise import refine
from corereg.method.refine.velocity import refine_velocity

__all__ = ["Direction", "Refined", "compared_at_start", "refine_pair"]

SYMMETRY_SMOOTHING, SYMMETRY_STEPS = 1, 3
"""3x3x3 means of the two directions, and fixed-point steps that then make them inverse to each other. What more steps
would add is smoothing, which a mean does at once: benchmarks/history/refine-speed.md."""

LARGE_GRID, LARGE_SHARE = 3_000_000, 0.7
"""Above this many voxels, the full grid takes this share of the steps, since each takes a second, and of R, since it
shows more detail: benchmarks/history/refine-speed.md. Below, as many steps as the 1/2 grid and all of R."""

FINE_LEARNING_RATE = 1.0
"""Learning rate in voxels of the full grid. With half of it, the same distance as on the 1/2 grid, the result is less
accurate: benchmarks/history/accuracy.md."""

FINE_SMOOTHING = 3
"""3x3x3 means of the full grid at most, where details are found."""


class Direction(NamedTuple):
    """One direction of a pair: the start of its refinement and what it compares."""

    coarse: Disp
    """Displacement to start from, on the 1/2 grid."""
    half: Compared
    """What the 1/2 grid compares, without the weights of `counts`."""
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
        fine = replace(
            config,
            steps=math.ceil(share * config.steps),
            regularisation=share * config.smoothness,
            learning_rate=FINE_LEARNING_RATE,
            smoothing=min(config.smoothing, FINE_SMOOTHING),
        )
        found, fine_losses, _ = _refine_level(directions, starts, 1, fine)
        full, losses = _displacements(found, config)[0], losses + fine_losses
    return Refined(full if len(directions) == 1 else unfold(full), losses, disagreement)


def compared_at_start(direction: Direction) -> Compared:
    """What the 1/2 grid compares, with the weights that the coarse displacement gives its voxels."""
    return _compared(direction, direction.coarse, 2)


def _starts(directions: Sequence[Direction], config: RefineConfig) -> list[Disp]:
    coarse = [direction.coarse for direction in directions]
    if config.parametrisation != DIFFEOMORPHIC:
        return coarse
    return [logarithm(*_agreed(*coarse))]


def _refine_level(
    directions: Sequence[Direction], starts: list[Disp], stride: int, config: RefineConfig
) -> tuple[list[Disp], tuple[float, ...], Tensor | None]:
    """The displacement of each direction, or the one velocity of both, on the grid of this stride; and their
    disagreement."""
    compared = [
        _compared(direction, disp_vox, stride)
        for direction, disp_vox in zip(directions, _displacements(starts, config), strict=True)
    ]
    if config.parametrisation == DIFFEOMORPHIC:
        velocity, losses = refine_velocity(compared, starts[0], config)
        return [velocity], losses, None
    found = [refine(one, start, config) for one, start in zip(compared, starts, strict=True)]
    fields = [disp_vox for disp_vox, _ in found]
    disagreement = None
    if len(fields) > 1:
        forward, backward = fields
        disagreement = stride * compose(backward, forward).square().sum(1).sqrt()
        fields = list(_agreed(forward, backward))
    return fields, found[0][1], disagreement


def _agreed(forward: Disp, backward: Disp) -> tuple[Disp, Disp]:
    """Two displacements of opposite directions, made inverse to each other."""
    smooth = (box_mean(each, times=SYMMETRY_SMOOTHING) for each in (forward, backward))
    return inverse_consistent(*smooth, steps=SYMMETRY_STEPS)


def _displacements(found: list[Disp], config: RefineConfig) -> list[Disp]:
    if config.parametrisation != DIFFEOMORPHIC:
        return found
    return [exponential(found[0]), exponential(-found[0])]


def _compared(direction: Direction, disp_vox: Disp, stride: int) -> Compared:
    """What a direction compares on the grid of this stride. A voxel counts if the fixed image's does and its match by
    `disp_vox` lies in the moving image's data."""
    given = direction.half if stride > 1 else direction.full
    assert given is not None
    fixed_counts, moving_counts = direction.counts
    weights = [] if given.weight is None else [given.weight]
    if fixed_counts is not None:
        weights.append(subsample(fixed_counts, stride))
    if moving_counts is not None:
        coords = stride * (identity_coords(disp_vox.shape[2:], like=disp_vox) + disp_vox)
        weights.append(sample(moving_counts, coords))
    return given._replace(weight=reduce(torch.mul, weights) if weights else None)
