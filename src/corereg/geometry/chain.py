"""A transform as a chain of parts: maps of the patient, each a matrix or a displacement, that a point passes in order.

Positions are (1, 3, X, Y, Z), float64 RAS+ millimetres.
"""

from collections.abc import Sequence
from functools import reduce

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from corereg.errors import InputError
from corereg.geometry.displacement import Displacement, compose
from corereg.geometry.grid import Grid, Matrix
from corereg.geometry.kernels.dispatch import use_kernels
from corereg.geometry.positions import fitted_affine, inverse_matrix, linear_map, slabs
from corereg.geometry.warp import inside, sample

__all__ = [
    "Part",
    "beyond",
    "check_matrix",
    "check_offsets",
    "check_parts",
    "displacements",
    "distinct",
    "inverse_parts",
    "kind",
    "offsets_mm",
    "parts_of_field",
    "remainder",
    "through",
]

SINGULAR = 1e-9
"""Volume ratio below which a matrix maps the patient onto a plane."""

LARGEST = 1e9
"""Entries of matrices, and displacements in millimetres or voxels, that no patient needs: their products overflow."""

SPLIT_STEPS, SPLIT_SHARE, SPLIT_TOLERANCE_VOX = 50, 0.75, 1e-3
"""Damped fixed-point iteration, as in `displacement.invert`."""

Part = Matrix | Displacement
"""A (4, 4) matrix of RAS+ millimetres, or a displacement, held constant beyond its grid."""


def through(parts: Sequence[Part], positions: Tensor) -> Tensor:
    """Where parts send positions, one part after the other."""
    return reduce(lambda moved, part: _through_part(part, moved), parts, positions)


def beyond(parts: Sequence[Part], positions: Tensor) -> Tensor:
    """(1, 1, X, Y, Z), true where a position meets a displacement outside its grid on the way through the parts."""
    missed = torch.zeros(1, 1, *positions.shape[2:], dtype=torch.bool)
    for part in parts:
        if isinstance(part, Displacement):
            missed |= ~inside(linear_map(part.grid.inverse_affine, positions), part.grid.shape)
        positions = _through_part(part, positions)
    return missed


def offsets_mm(parts: Sequence[Part], grid: Grid) -> NDArray[np.float32]:
    """T(p) - p at the voxels p of a grid: (3, I, J, K), RAS+ millimetres, where T passes a point through the parts."""
    if use_kernels(*displacements(parts)):
        from corereg.geometry.kernels import chain as kernels_chain

        return kernels_chain.offsets_mm(parts, grid)
    offsets = np.empty((3, *grid.shape), dtype=np.float32)
    for planes, world in slabs(grid):
        offsets[:, planes] = (through(parts, world) - world)[0].numpy()
    return offsets


def parts_of_field(total_mm: NDArray[np.float32], grid: Grid) -> tuple[Displacement, Matrix]:
    """Two parts that make up T, given T(p) - p at the voxels p of a grid: (3, I, J, K), RAS+ millimetres.

    The second part is the affine map closest to T. Only the small remainder is a displacement, so that the two extend
    sensibly beyond the grid and can be inverted however large the rotation.

    Raises:
        InputError: an offset is NaN, infinite or absurdly large.
    """
    check_offsets(total_mm, "mm")
    affine = fitted_affine(total_mm, grid)
    back = inverse_matrix(affine)
    rest = np.empty_like(total_mm)
    for planes, world in slabs(grid):
        moved = linear_map(back, world + torch.as_tensor(total_mm[None, :, planes]))
        rest[:, planes] = (moved - world)[0].numpy()
    return Displacement.from_mm(torch.as_tensor(rest), grid), affine


def inverse_parts(parts: Sequence[Part]) -> tuple[Part, ...]:
    """The parts that lead back: the inverse of each, in reverse order."""
    return tuple(
        part.inverse()[0] if isinstance(part, Displacement) else inverse_matrix(part) for part in reversed(parts)
    )


def remainder(whole: Displacement, coarse: Displacement) -> Displacement:
    """The displacement to pass before `coarse` so that both together equal `whole`; all three share a grid."""
    held, target = coarse.disp_vox[None], whole.disp_vox[None]
    rest = target - held
    for _ in range(SPLIT_STEPS):
        excess = compose(held, rest) - target
        if float(excess.abs().amax()) < SPLIT_TOLERANCE_VOX:
            break
        rest = rest - SPLIT_SHARE * excess
    return Displacement(rest[0], whole.grid)


def check_parts(parts: Sequence[Part]) -> None:
    """Check matrices, alone and multiplied, as `check_matrix` does, and displacements as `check_offsets` does.

    Raises:
        InputError: a part cannot be used.
    """
    matrices = [part for part in parts if not isinstance(part, Displacement)]
    for matrix in matrices:
        check_matrix(matrix)
    if len(matrices) > 1:
        check_matrix(reduce(np.matmul, reversed(matrices)), volume_ratio=0.0)
    for displacement in displacements(parts):
        check_offsets(displacement, "voxels")


def check_matrix(matrix: Matrix, *, volume_ratio: float = SINGULAR) -> None:
    """Check that a matrix is 4x4, finite, of moderate size, affine and invertible.

    Args:
        volume_ratio: the ratio of volumes that it must exceed.

    Raises:
        InputError: it is not.
    """
    usable = np.shape(matrix) == (4, 4) and bool(np.abs(matrix).max() <= LARGEST)  # false for NaN
    usable = usable and np.allclose(matrix[3], (0, 0, 0, 1))
    if not usable or abs(np.linalg.det(matrix[:3, :3])) <= volume_ratio:
        shown = np.array2string(np.asarray(matrix), precision=6, separator=", ", max_line_width=10**6, threshold=16)
        raise InputError(
            f"got the affine part {' '.join(shown.split())}, expected a 4x4 matrix of finite numbers with the "
            "last row 0, 0, 0, 1 that can be inverted; repair it"
        )


def check_offsets(offsets: NDArray[np.generic] | Tensor, unit: str) -> None:
    """Check that offsets can be computed with: a patient is not moved by a thousand kilometres.

    Raises:
        InputError: one is NaN, infinite or absurdly large.
    """
    largest = float(np.abs(offsets).max() if isinstance(offsets, np.ndarray) else offsets.abs().max())
    if not largest <= LARGEST:  # true for NaN
        raise InputError(
            f"got a field with displacements of up to {largest:.3g} {unit}, expected finite ones that fit a patient; "
            "make it again"
        )


def kind(part: Part) -> str:
    """The default name of a part."""
    return "deformation" if isinstance(part, Displacement) else "affine"


def distinct(names: Sequence[str]) -> tuple[str, ...]:
    """The names, with -2, -3, ... appended to those that occurred before."""
    given: list[str] = []
    for name in names:
        others = (f"{name}-{n}" for n in range(2, len(names) + 2))
        given.append(name if name not in given else next(other for other in others if other not in given))
    return tuple(given)


def displacements(parts: Sequence[Part]) -> list[Tensor]:
    """The displacements among the parts, each in voxels of its own grid."""
    return [part.disp_vox for part in parts if isinstance(part, Displacement)]


def _through_part(part: Part, positions: Tensor) -> Tensor:
    if not isinstance(part, Displacement):
        return linear_map(part, positions)
    coords = linear_map(part.grid.inverse_affine, positions).to(part.disp_vox.dtype)
    linear = np.eye(4)
    linear[:3, :3] = part.grid.linear
    return positions + linear_map(linear, sample(part.disp_vox[None], coords).to(positions.dtype))
