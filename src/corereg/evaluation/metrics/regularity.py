"""Regularity of a displacement: Jacobian determinants and the challenges' measures of irregularity and folding.

Upstream: a displacement. Downstream: `metrics`, which re-exports these functions.

Legend: disp_vox (3, I, J, K), u(x) in voxels of its own grid, component a along array axis a. I J K voxel axes in
array order.
"""

from itertools import product
from typing import Any

import numpy as np
from jaxtyping import Float64
from numpy.typing import NDArray

from corereg.errors import InputError

__all__ = ["check_field", "fold_percent", "jacobian_determinant", "ndv_percent", "num_foldings_l2r", "sdlogj"]

Field = NDArray[Any]
Mask = NDArray[Any]
Offset = tuple[int, int, int]
Stencil = tuple[tuple[Offset, Offset], tuple[Offset, Offset], tuple[Offset, Offset]]
"""For each row of a Jacobian, the offsets of the two voxels whose positions are subtracted."""

JACOBIAN_BORDER_VOX = 2
"""Learn2Reg evaluation: voxels ignored at each side of a Jacobian map."""
LOG_JACOBIAN_SHIFT = 3.0
LOG_JACOBIAN_RANGE = (1e-9, 1e9)
"""Learn2Reg evaluation: SDlogJ = std(log(clip(det J + 3, 1e-9, 1e9)))."""
NDV_BORDER_VOX = 1
NDV_TETRAHEDRON = 0.5 / 6
"""A determinant is six times a tetrahedron's volume, and the ten tetrahedra fill each voxel twice (Liu et al. 2024)."""
SLAB = 16
"""Planes computed at a time: limits the memory and does not change the result."""

HERE: Offset = (0, 0, 0)
FORWARD: tuple[Offset, Offset, Offset] = ((1, 0, 0), (0, 1, 0), (0, 0, 1))
BACKWARD: tuple[Offset, Offset, Offset] = ((-1, 0, 0), (0, -1, 0), (0, 0, -1))
DIAGONAL_1: Stencil = (((-1, -1, 0), HERE), ((-1, 0, -1), HERE), ((0, -1, -1), HERE))
DIAGONAL_2: Stencil = (((1, 1, 0), HERE), ((0, 1, 1), HERE), ((1, 0, 1), HERE))
"""J*1 and J*2 of Liu et al. 2024: the inner tetrahedra of the two ways to cut a cube into five."""


def jacobian_determinant(disp_vox: Field, *, border: int = JACOBIAN_BORDER_VOX) -> NDArray[np.float64]:
    """det J of x -> x + u(x), by central differences.

    Args:
        disp_vox: (3, I, J, K), voxels.
        border: voxels ignored at each side, at least 1.

    Returns: (I - 2 border, J - 2 border, K - 2 border), 1 where volume is preserved, 0 or less where the field folds.
    Raises:
        InputError: the border leaves no voxel, or an offset is NaN or infinite.
    Source: Learn2Reg evaluation, `jacobian_determinant`.
    """
    if border < 1:
        raise ValueError(f"got a border of {border}, expected at least 1: central differences read both neighbours")
    check_field(disp_vox, margin=border)
    forward_i, forward_j, forward_k = FORWARD
    backward_i, backward_j, backward_k = BACKWARD
    central = ((forward_i, backward_i), (forward_j, backward_j), (forward_k, backward_k))
    return _determinant(disp_vox, central, border=border)


def sdlogj(disp_vox: Field, mask: Mask | None = None) -> float:
    """Irregularity of a field: population standard deviation of log(clip(det J + 3, 1e-9, 1e9)).

    Args:
        disp_vox: (3, I, J, K), voxels.
        mask: (I, J, K), nonzero where voxels count; a border of 2 voxels never counts.

    Returns: 0 for an affine map; NaN if the mask is empty. Adding 3 to det J makes the value smaller than without
        (for example 0.021 instead of 0.086), so compare only values of this formula.
    Source: Learn2Reg evaluation.
    """
    log_jacobian = np.log((jacobian_determinant(disp_vox) + LOG_JACOBIAN_SHIFT).clip(*LOG_JACOBIAN_RANGE))
    values = _inner(log_jacobian, mask, disp_vox, JACOBIAN_BORDER_VOX)
    return float(values.std()) if values.size else float("nan")


def fold_percent(disp_vox: Field, mask: Mask | None = None) -> float:
    """Percentage of voxels with det J <= 0. Arguments and NaN as for `sdlogj`."""
    values = _inner(jacobian_determinant(disp_vox), mask, disp_vox, JACOBIAN_BORDER_VOX)
    return float(100 * np.mean(values <= 0)) if values.size else float("nan")


def num_foldings_l2r(disp_vox: Field) -> int:
    """The Learn2Reg evaluation's number of foldings. It counts after shift and clip, so it is always 0.

    Kept to reproduce the challenge's tables; use `fold_percent` to measure folding.
    """
    shifted = (jacobian_determinant(disp_vox) + LOG_JACOBIAN_SHIFT).clip(*LOG_JACOBIAN_RANGE)
    return int(np.count_nonzero(shifted <= 0))


def ndv_percent(disp_vox: Field, mask: Mask | None = None) -> float:
    """Non-diffeomorphic volume: percentage of the volume in tetrahedra that the field turns inside out.

    Args:
        disp_vox: (3, I, J, K), voxels.
        mask: (I, J, K), nonzero where voxels count. LUMIR passes moving > 0, where fixed > 0 is meant.

    Returns: 100 * NDV / number of voxels in the mask, ignoring a border of 1 voxel; NaN if the mask is empty. 0 exactly
        if the field, linear between voxels on both sets of tetrahedra, is invertible there.
    Source: Liu et al. 2024, "On finite difference Jacobian computation in deformable image registration"; the
        LUMIR evaluation.
    """
    check_field(disp_vox, margin=NDV_BORDER_VOX)
    stencils: list[Stencil] = [DIAGONAL_1, DIAGONAL_2]
    for sides in product((True, False), repeat=3):
        i, j, k = ((f, HERE) if side else (HERE, b) for side, f, b in zip(sides, FORWARD, BACKWARD, strict=True))
        stencils.append((i, j, k))
    volume, voxels = 0.0, 0
    for stencil in stencils:
        values = _inner(_determinant(disp_vox, stencil, border=NDV_BORDER_VOX), mask, disp_vox, NDV_BORDER_VOX)
        volume += NDV_TETRAHEDRON * float(np.maximum(-values, 0).sum())
        voxels = values.size
    return 100 * volume / voxels if voxels else float("nan")


def _determinant(disp_vox: Field, stencil: Stencil, *, border: int) -> Float64[np.ndarray, "_ _ _"]:
    """Determinants of the difference quotients of x + u(x) along a stencil, inside the border."""
    if not np.isfinite(disp_vox).all():
        raise InputError("got a displacement with NaN or infinite offsets, expected a whole field; make it again")
    sizes = [size - 2 * border for size in disp_vox.shape[1:]]
    determinant = np.empty(sizes)
    for start in range(0, sizes[0], SLAB):
        slab = slice(start, min(start + SLAB, sizes[0]))
        rows = []
        for plus, minus in stencil:
            step = np.subtract(plus, minus).astype(np.float64)
            difference = _shifted(disp_vox, plus, slab, border) - _shifted(disp_vox, minus, slab, border)
            # A central difference spans two voxels; every other stencil spans one on each axis that it moves along.
            rows.append((difference + step.reshape(3, 1, 1, 1)) / np.abs(step).max())
        determinant[slab] = _triple_product(*rows)
    return determinant


def _shifted(disp_vox: Field, offset: Offset, slab: slice, border: int) -> Float64[np.ndarray, "3 _ _ _"]:
    """u at `offset` from the voxels inside the border, for the planes `slab` along axis 0."""
    i, j, k = (border + step for step in offset)
    size_j, size_k = (size - 2 * border for size in disp_vox.shape[2:])
    return np.asarray(disp_vox[:, i + slab.start : i + slab.stop, j : j + size_j, k : k + size_k], np.float64)


def _triple_product(
    a: Float64[np.ndarray, "3 I J K"], b: Float64[np.ndarray, "3 I J K"], c: Float64[np.ndarray, "3 I J K"]
) -> Float64[np.ndarray, "I J K"]:
    cofactors = (b[1] * c[2] - b[2] * c[1], b[2] * c[0] - b[0] * c[2], b[0] * c[1] - b[1] * c[0])
    return np.asarray(a[0] * cofactors[0] + a[1] * cofactors[1] + a[2] * cofactors[2])


def _inner(
    values: Float64[np.ndarray, "_ _ _"], mask: Mask | None, disp_vox: Field, border: int
) -> Float64[np.ndarray, "values"]:
    """The values inside a mask; `values` lack a border that the mask has."""
    if mask is None:
        return values.reshape(-1)
    check_field(disp_vox, mask)
    inner = slice(border, -border)
    return np.asarray(values[np.asarray(mask)[inner, inner, inner] != 0])


def check_field(disp_vox: Field, volume: NDArray[Any] | None = None, *, margin: int = 0) -> None:
    """Raise InputError unless `disp_vox` is (3, I, J, K), has the shape of `volume` and is larger than the border."""
    if disp_vox.ndim != 4 or disp_vox.shape[0] != 3:
        raise InputError(f"got a displacement of shape {disp_vox.shape}, expected (3, I, J, K)")
    if volume is not None and volume.shape != disp_vox.shape[1:]:
        raise InputError(
            f"got a volume of shape {volume.shape} and a displacement for {disp_vox.shape[1:]}, expected the same "
            "shape; does the field belong to another pair?"
        )
    if min(disp_vox.shape[1:]) <= 2 * margin:
        raise InputError(
            f"got a displacement for {disp_vox.shape[1:]}, expected more than {2 * margin} voxels on each axis"
        )
