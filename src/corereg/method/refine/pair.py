"""Stage 4 as a pair goes through it: one direction or both, on the 1/2 grid and then on the full one.

Upstream: coarse displacements. Uses: refine, refine_velocity, inverse_consistent.

Legend: a way is one direction of a pair, fixed to moving; the second, if there is one, is the first turned round.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from torch import Tensor

from corereg.geometry.displacement import Disp, inverse_consistent, unfold
from corereg.geometry.strided import subsample
from corereg.geometry.velocity import exponential, logarithm
from corereg.geometry.warp import identity_coords, sample
from corereg.method.coarse.passes import FINAL_SMOOTHING, full_grid_displacement
from corereg.method.refine.energy import DIFFEOMORPHIC, Compared, RefineConfig
from corereg.method.refine.optimise import refine
from corereg.method.refine.velocity import refine_velocity

__all__ = ["Way", "refine_ways"]


SYMMETRY_STEPS = 15
"""Fixed-point steps between the two directions, as many as in the coarse stage."""

FINE_SHARE = 0.6
"""Steps on the full grid for each on the 1/2 grid."""

FINE_LEARNING_RATE = 1.0
"""In voxels of the full grid; half of that, as far as on the 1/2 grid, ends less accurate: benchmarks/accuracy.md."""


class Way(NamedTuple):
    """One direction of a pair: where its refinement starts and what it compares."""

    coarse: Disp
    """1/2 grid."""
    half: tuple[Tensor, Tensor]
    """Features of the fixed and of the moving image on the 1/2 grid."""
    full: tuple[Tensor, Tensor] | None
    """The same on the full grid; None ends on the 1/2 grid."""
    counts: tuple[Tensor | None, Tensor | None]
    """Where the fixed and the moving image have data that counts, full grid; None: everywhere."""


def refine_ways(ways: Sequence[Way], config: RefineConfig) -> tuple[Disp, tuple[float, ...]]:
    """The displacement of the first way on the full grid, and the energy before each step.

    With two ways both are refined and made inverse to each other, or one velocity is for both; what folds is smoothed.
    """
    found, losses = _refine_level(ways, _starts(ways, config), 2, config)
    if ways[0].full is None:
        full = full_grid_displacement(_displacements(found, config)[0], smoothing=FINAL_SMOOTHING)
    else:
        starts = [full_grid_displacement(u, smoothing=1) for u in found]
        steps = math.ceil(FINE_SHARE * config.steps)
        found, fine_losses = _refine_level(
            ways, starts, 1, replace(config, steps=steps, learning_rate=FINE_LEARNING_RATE)
        )
        full, losses = _displacements(found, config)[0], losses + fine_losses
    return full if len(ways) == 1 else unfold(full), losses


def _starts(ways: Sequence[Way], config: RefineConfig) -> list[Disp]:
    coarse = [way.coarse for way in ways]
    if config.parametrisation != DIFFEOMORPHIC:
        return coarse
    forward, backward = inverse_consistent(*coarse, steps=SYMMETRY_STEPS)
    return [logarithm(forward, backward)]


def _refine_level(
    ways: Sequence[Way], starts: list[Disp], stride: int, config: RefineConfig
) -> tuple[list[Disp], tuple[float, ...]]:
    """Displacements of all ways, or the velocity of both, on the grid of this stride."""
    compared = []
    for way, disp_vox in zip(ways, _displacements(starts, config), strict=True):
        features = way.half if stride > 1 else way.full
        assert features is not None
        compared.append(Compared(*features, weight=_weight(disp_vox, *way.counts, stride=stride)))
    if config.parametrisation == DIFFEOMORPHIC:
        velocity, losses = refine_velocity(compared, starts[0], config)
        return [velocity], losses
    found = [refine(c.fixed, c.moving, u, config, weight=c.weight) for c, u in zip(compared, starts, strict=True)]
    fields = [disp_vox for disp_vox, _ in found]
    if len(fields) > 1:
        fields = list(inverse_consistent(*fields, steps=SYMMETRY_STEPS))
    return fields, found[0][1]


def _displacements(found: list[Disp], config: RefineConfig) -> list[Disp]:
    if config.parametrisation != DIFFEOMORPHIC:
        return found
    return [exponential(found[0]), exponential(-found[0])]


def _weight(disp_vox: Disp, fixed_counts: Tensor | None, moving_counts: Tensor | None, *, stride: int) -> Tensor | None:
    """Voxels that count: those of the fixed image whose match so far lies in the moving one's data."""
    weight = fixed_counts if fixed_counts is None or stride == 1 else subsample(fixed_counts, stride)
    if moving_counts is not None:
        coords = stride * (identity_coords(disp_vox.shape[2:], like=disp_vox) + disp_vox)
        reached = sample(moving_counts, coords)
        weight = reached if weight is None else weight * reached
    return weight
