"""What a transform is made of: maps of the patient, each a matrix or a displacement, that a point passes in order."""

from collections.abc import Sequence
from functools import reduce

import numpy as np
import torch
from torch import Tensor

from corereg.errors import InputError
from corereg.geometry.displacement import Displacement, compose
from corereg.geometry.grid import Matrix
from corereg.geometry.positions import inverse_matrix, linear_map
from corereg.geometry.warp import inside, sample

__all__ = [
    "Part",
    "beyond",
    "check_matrix",
    "displacements",
    "distinct",
    "inverse_part",
    "kind",
    "remainder",
    "through",
    "through_all",
]

SINGULAR = 1e-9
"""Volume ratio below which a matrix maps the patient onto a plane."""

SPLIT_STEPS, SPLIT_SHARE, SPLIT_TOLERANCE_VOX = 50, 0.75, 1e-3
"""Damped fixed-point iteration, as in `displacement.invert`."""

Part = Matrix | Displacement
"""A (4, 4) matrix of RAS+ millimetres, or a displacement, held constant beyond its grid."""


def through(part: Part, positions: Tensor) -> Tensor:
    """Where a part sends positions (1, 3, X, Y, Z), float64 RAS+ millimetres."""
    if not isinstance(part, Displacement):
        return linear_map(part, positions)
    coords = linear_map(part.grid.inverse_affine, positions).to(part.disp_vox.dtype)
    linear = np.eye(4)
    linear[:3, :3] = part.grid.linear
    return positions + linear_map(linear, sample(part.disp_vox[None], coords).to(positions.dtype))


def beyond(part: Part, positions: Tensor) -> Tensor:
    """(1, 1, X, Y, Z), true where a position lies outside of the grid of a displacement."""
    if isinstance(part, Displacement):
        return ~inside(linear_map(part.grid.inverse_affine, positions), part.grid.shape)
    return torch.zeros(1, 1, *positions.shape[2:], dtype=torch.bool)


def inverse_part(part: Part) -> Part:
    """The part that leads back."""
    return part.inverse()[0] if isinstance(part, Displacement) else inverse_matrix(part)


def remainder(whole: Displacement, coarse: Displacement) -> Displacement:
    """What a point must pass before `coarse`, for both together to do what `whole` does; all on one grid."""
    held, target = coarse.disp_vox[None], whole.disp_vox[None]
    rest = target - held
    for _ in range(SPLIT_STEPS):
        excess = compose(held, rest) - target
        if float(excess.abs().amax()) < SPLIT_TOLERANCE_VOX:
            break
        rest = rest - SPLIT_SHARE * excess
    return Displacement(rest[0], whole.grid)


def check_matrix(matrix: Matrix) -> None:
    """Raise InputError unless it is 4x4, finite and can be inverted."""
    usable = np.shape(matrix) == (4, 4) and np.isfinite(matrix).all() and abs(np.linalg.det(matrix[:3, :3])) > SINGULAR
    if not usable:
        raise InputError(
            f"got the affine part {np.asarray(matrix).round(6).tolist()}, expected a 4x4 matrix of finite numbers that "
            "can be inverted; repair it"
        )


def kind(part: Part) -> str:
    """The name of a part that was given none."""
    return "deformation" if isinstance(part, Displacement) else "affine"


def distinct(names: Sequence[str]) -> tuple[str, ...]:
    """The same names, with -2, -3, ... behind those that were there before."""
    given: list[str] = []
    for name in names:
        others = (f"{name}-{n}" for n in range(2, len(names) + 2))
        given.append(name if name not in given else next(other for other in others if other not in given))
    return tuple(given)


def through_all(parts: Sequence[Part], positions: Tensor) -> Tensor:
    """Where parts send positions (1, 3, X, Y, Z), float64 RAS+ millimetres, one after the other."""
    return reduce(lambda moved, part: through(part, moved), parts, positions)


def displacements(parts: Sequence[Part]) -> list[Tensor]:
    """Those among the parts, in voxels."""
    return [part.disp_vox for part in parts if isinstance(part, Displacement)]
