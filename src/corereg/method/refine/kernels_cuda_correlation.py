"""Triton kernels of the local correlation of two images: its sum, and the force on the warped image's values.

The formulas and their names are those of `kernels_cpu_correlation`. A step warps the moving image, takes three window
means axis by axis, turns them into three coefficients a voxel, applies the means' adjoint to these, and adds the force
to the gradient: nine launches, all limited by memory.

Legend: B pairs, I J K axes of the grid; tensors are contiguous float32.
"""
# mypy: disable-error-code="import-not-found, import-untyped, no-untyped-def, no-untyped-call"

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from corereg.geometry.kernels.cuda import BLOCK, Band, filter_axis, kernel, locate, window_band
from corereg.method.refine.correlation import NOISE, RADIUS

__all__ = ["Correlation", "add_correlation", "correlation_blocks"]


class Correlation(NamedTuple):
    """Images to compare, with what stays the same from step to step."""

    fixed: Tensor
    """(B, I, J, K)."""
    moving: Tensor
    fixed_mean: Tensor
    fixed_variance: Tensor
    """With the noise floor added."""
    factor: Tensor
    """(B,), of the weighted sum of 1 - cc^2."""
    means: tuple[Band, ...]
    adjoint: tuple[Band, ...]
    warped: Tensor
    slopes: Tensor
    """(B, 3, I, J, K), derivatives of the moving image at its sampling positions."""
    scratch: tuple[Tensor, Tensor]
    """Two more of these."""

    @staticmethod
    def of(fixed: Tensor, moving: Tensor, factor: Tensor) -> "Correlation":
        """From images (B, 1, I, J, K)."""
        fixed, moving = (image[:, 0].detach().contiguous() for image in (fixed, moving))
        shape, device = fixed.shape[1:], fixed.device
        means, adjoint = (tuple(window_band(n, RADIUS, device, adjoint=back) for n in shape) for back in (False, True))
        slopes = fixed.new_empty(len(fixed), 3, *shape)
        scratch = torch.stack([fixed, fixed * fixed, fixed], 1), torch.empty_like(slopes)
        with torch.cuda.device_of(fixed):
            _filter(*scratch, means)
        mean, square, _ = (moment.clone() for moment in scratch[1].unbind(1))
        variance = (square - mean * mean).clamp(min=0) + NOISE
        warped = torch.empty_like(fixed)
        return Correlation(fixed, moving, mean, variance, factor.float(), means, adjoint, warped, slopes, scratch)


def correlation_blocks(disp: Tensor) -> int:
    """Into how many parts `add_correlation` divides the energy of a pair."""
    return int(triton.cdiv(disp[0, 0].numel(), BLOCK))


def add_correlation(
    problem: Correlation, weight: Tensor | None, disp: Tensor, done: Tensor, gradient: Tensor, energies: Tensor
) -> None:
    """Add the term's gradient by the displacement to `gradient`, and write its energy.

    Args:
        weight: (B, I, J, K), or None for 1 everywhere.
        done: number of the step.
        energies: (steps, B, blocks).
    """
    fixed, moving, mean, variance, factor, means, adjoint, warped, slopes, (first, second) = problem
    voxels, blocks = disp[0, 0].numel(), (energies.shape[2], len(disp))
    _warp[blocks](fixed, moving, disp, warped, slopes, first, voxels, *disp.shape[2:], BLOCK)
    _filter(first, second, means)
    _coefficients[blocks](
        second, mean, variance, warped if weight is None else weight, factor, done, first, energies, voxels, NOISE,
        weight is not None, BLOCK,
    )  # fmt: skip
    _filter(first, second, adjoint)
    _add_force[blocks](fixed, warped, slopes, second, gradient, voxels, BLOCK)


def _filter(volumes: Tensor, out: Tensor, bands: tuple[Band, ...]) -> None:
    """Write volumes (B, 3, I, J, K) filtered along each axis into `out`; `volumes` is work space."""
    filter_axis(volumes, bands[2], 4, out)
    filter_axis(out, bands[1], 3, volumes)
    filter_axis(volumes, bands[0], 2, out)


@kernel
def _warp(fixed, moving, disp, warped, slopes, moments, voxels, I, J, K, BLOCK: tl.constexpr):  # noqa: E741, N803
    """The warped image and its slopes, 0 where it is held constant beyond the edge; the warped image, its square and
    its product with the fixed image, whose means are to be taken."""
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    here = at < voxels
    pair = tl.program_id(1).to(tl.int64)
    i, j, k = at // (J * K), at // K % J, at % K
    disp += pair * 3 * voxels + at
    cell_i, wi, free_i = locate(i + tl.load(disp, here, 0.0), I)
    cell_j, wj, free_j = locate(j + tl.load(disp + voxels, here, 0.0), J)
    cell_k, wk, free_k = locate(k + tl.load(disp + 2 * voxels, here, 0.0), K)
    near = moving + pair * voxels + (cell_i * J + cell_j) * K + cell_k
    far = near + J * K
    m000, m001 = tl.load(near, here, 0.0), tl.load(near + 1, here, 0.0)
    m010, m011 = tl.load(near + K, here, 0.0), tl.load(near + K + 1, here, 0.0)
    m100, m101 = tl.load(far, here, 0.0), tl.load(far + 1, here, 0.0)
    m110, m111 = tl.load(far + K, here, 0.0), tl.load(far + K + 1, here, 0.0)
    k00, k01, k10, k11 = m001 - m000, m011 - m010, m101 - m100, m111 - m110
    v00, v10 = m000 + wk * k00, m100 + wk * k10
    j0, j1 = m010 + wk * k01 - v00, m110 + wk * k11 - v10
    v0 = v00 + wj * j0
    slope_i = v10 + wj * j1 - v0
    k0, k1 = k00 + wj * (k01 - k00), k10 + wj * (k11 - k10)
    value = v0 + wi * slope_i
    slopes += pair * 3 * voxels + at
    tl.store(slopes, free_i * slope_i, here)
    tl.store(slopes + voxels, free_j * (j0 + wi * (j1 - j0)), here)
    tl.store(slopes + 2 * voxels, free_k * (k0 + wi * (k1 - k0)), here)
    tl.store(warped + pair * voxels + at, value, here)
    moments += pair * 3 * voxels + at
    tl.store(moments, value, here)
    tl.store(moments + voxels, value * value, here)
    tl.store(moments + 2 * voxels, value * tl.load(fixed + pair * voxels + at, here, 0.0), here)


@kernel
def _coefficients(
    moments, fixed_mean, fixed_variance, weight, factor, done, out, energies, voxels, noise,
    WEIGHTED: tl.constexpr, BLOCK: tl.constexpr,  # noqa: N803
):  # fmt: skip
    """The energy from the means, and the coefficients p, q and p m_f - q m_w."""
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    here = at < voxels
    pair = tl.program_id(1).to(tl.int64)
    moments += pair * 3 * voxels + at
    mean = tl.load(moments, here, 0.0)
    variance = tl.maximum(tl.load(moments + voxels, here, 0.0) - mean * mean, 0.0) + noise
    mean_of_fixed = tl.load(fixed_mean + pair * voxels + at, here, 0.0)
    covariance = tl.load(moments + 2 * voxels, here, 0.0) - mean_of_fixed * mean + noise
    counts = tl.load(factor + pair) * here.to(tl.float32)
    if WEIGHTED:
        counts *= tl.load(weight + pair * voxels + at, here, 0.0)
    ratio = covariance / (tl.load(fixed_variance + pair * voxels + at, here, 1.0) * variance)
    square = covariance * ratio
    p, q = 2 * counts * ratio, 2 * counts * square / variance
    out += pair * 3 * voxels + at
    tl.store(out, p, here)
    tl.store(out + voxels, q, here)
    tl.store(out + 2 * voxels, p * mean_of_fixed - q * mean, here)
    slot = (tl.load(done) * tl.num_programs(1) + pair) * tl.num_programs(0) + tl.program_id(0)
    tl.store(energies + slot, tl.sum(counts * (1 - square), 0))


@kernel
def _add_force(fixed, warped, slopes, spread, gradient, voxels, BLOCK: tl.constexpr):  # noqa: N803
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    here = at < voxels
    pair = tl.program_id(1).to(tl.int64)
    spread += pair * 3 * voxels + at
    pull = tl.load(spread + 2 * voxels, here, 0.0)
    pull += tl.load(warped + pair * voxels + at, here, 0.0) * tl.load(spread + voxels, here, 0.0)
    pull -= tl.load(fixed + pair * voxels + at, here, 0.0) * tl.load(spread, here, 0.0)
    for axis in tl.static_range(3):
        place = (pair * 3 + axis) * voxels + at
        own = tl.load(gradient + place, here, 0.0)
        tl.store(gradient + place, own + pull * tl.load(slopes + place, here, 0.0), here)
