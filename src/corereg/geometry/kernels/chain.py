"""Compiled CPU kernels that send the voxels of a grid through a chain of maps of the patient, a few planes at a time.

Positions stay in the processor's cache from the grid to the result; they never exist as whole volumes.

Positions (3, X, Y, Z) are float64 RAS+ millimetres, X a few planes along i.
"""
# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from corereg.geometry.displacement import Displacement
from corereg.geometry.grid import Grid, Matrix
from corereg.geometry.kernels.sample import sample_here
from corereg.geometry.kernels.threads import kernel, run_slabs

__all__ = ["offsets_mm", "sample_through"]

BLOCK_VOXELS = 2**15
"""About this many voxels are processed at a time by each thread."""

Positions = NDArray[np.float64]
Parts = Sequence[Matrix | Displacement]


def offsets_mm(parts: Parts, grid: Grid) -> NDArray[np.float32]:
    """T(p) - p at the voxels p of a grid, (3, I, J, K), where T passes a point through the parts in order."""
    out = np.empty((3, *grid.shape), np.float32)

    def store(planes: slice, start: Positions, end: Positions) -> None:
        np.subtract(end, start, out=out[:, planes], casting="same_kind")

    _walk(parts, grid, store)
    return out


def sample_through(
    parts: Parts, volume: NDArray[np.float32], source: Grid, grid: Grid, *, outside: float
) -> NDArray[np.float32]:
    """A volume (I, J, K) on `source`, linearly interpolated at T(p) for the voxels p of another grid.

    Args:
        outside: value where T(p) lies more than half a voxel beyond the volume.
    """
    out = np.empty(grid.shape, np.float32)

    def store(planes: slice, start: Positions, end: Positions) -> None:
        out[planes] = sample_here(volume[None], _mapped(source.inverse_affine, end, np.float32), outside=outside)[0]

    _walk(parts, grid, store)
    return out


def _walk(parts: Parts, grid: Grid, store: Callable[[slice, Positions, Positions], None]) -> None:
    """Call `store` for a few planes at a time, with their start positions and where the parts send those."""
    steps = [_step(part) for part in parts]
    i, j, k = (np.arange(n, dtype=np.float64) for n in grid.shape)
    columns = grid.affine[:3, :, None, None, None]
    across = columns[:, 1] * j[:, None] + columns[:, 2] * k + columns[:, 3]
    planes = max(1, BLOCK_VOXELS // (j.size * k.size))

    def walk(first: int, last: int) -> None:
        for at in range(first, last, planes) or [first]:  # once without planes, to compile
            block = slice(at, min(at + planes, last))
            start = columns[:, 0] * i[block, None, None] + across
            store(block, start, reduce(lambda positions, step: step(positions), steps, start))

    run_slabs(walk, i.size)


def _step(part: Matrix | Displacement) -> Callable[[Positions], Positions]:
    """The function of positions that a part stands for."""
    if not isinstance(part, Displacement):
        return lambda positions: _mapped(part, positions, np.float64)
    disp_vox, linear = part.disp_vox.detach().contiguous().numpy(), np.array(part.grid.linear)

    def move(positions: Positions) -> Positions:
        found = sample_here(disp_vox, _mapped(part.grid.inverse_affine, positions, np.float32))
        moved = np.empty_like(positions)
        _add_linear(positions.reshape(3, -1), linear, found.reshape(3, -1), moved.reshape(3, -1))
        return moved

    return move


def _mapped(matrix: Matrix, positions: Positions, dtype: type[np.floating]) -> NDArray[Any]:
    """Apply a (4, 4) matrix to positions."""
    out = np.empty(positions.shape, dtype)
    _map(np.array(matrix), positions.reshape(3, -1), out.reshape(3, -1))
    return out


@kernel
def _map(matrix, positions, out):
    for n in range(np.uint64(positions.shape[1])):
        x, y, z = positions[0, n], positions[1, n], positions[2, n]
        for a in range(3):
            out[a, n] = matrix[a, 0] * x + matrix[a, 1] * y + matrix[a, 2] * z + matrix[a, 3]


@kernel
def _add_linear(positions, matrix, vectors, out):
    for n in range(np.uint64(positions.shape[1])):
        x, y, z = np.float64(vectors[0, n]), np.float64(vectors[1, n]), np.float64(vectors[2, n])
        for a in range(3):
            out[a, n] = positions[a, n] + (matrix[a, 0] * x + matrix[a, 1] * y + matrix[a, 2] * z)
