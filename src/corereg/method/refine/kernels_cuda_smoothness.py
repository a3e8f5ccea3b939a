"""Triton kernels of the smoothness terms of stage 4, diffusion and volume: their energies and gradients, per voxel.

Inlined by `kernels_cuda`, except for the divergence, which has a launch of its own: a voxel then reads 6 components for
its divergence and later the 6 divergences around it, instead of 36 components in a kernel that is short of registers.

Legend: B pairs, I J K axes of the displacement's grid; tensors are contiguous float32.
"""
# mypy: disable-error-code="import-not-found, import-untyped, no-untyped-def, no-untyped-call"

import triton
import triton.language as tl
from torch import Tensor

from corereg.geometry.kernels.cuda import BLOCK, kernel

__all__ = ["launch_divergence", "smoothness"]


def launch_divergence(disp: Tensor, out: Tensor) -> None:
    """Write the divergence by central differences, 0 on the faces, into the first values of `out` as (B, I, J, K)."""
    voxels = disp[0, 0].numel()
    _divergence[(triton.cdiv(voxels, BLOCK), len(disp))](disp, out, *disp.shape[2:], BLOCK)


@kernel
def _divergence(disp, out, I, J, K, BLOCK: tl.constexpr):  # noqa: E741, N803
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    voxels = I * J * K
    i, j, k = at // (J * K), at // K % J, at % K
    inside = (i > 0) & (i < I - 1) & (j > 0) & (j < J - 1) & (k > 0) & (k < K - 1)
    pair = tl.program_id(1).to(tl.int64)
    disp += pair * 3 * voxels + at
    doubled = _across(disp, J * K, inside, inside) + _across(disp + voxels, K, inside, inside)
    doubled += _across(disp + 2 * voxels, 1, inside, inside)
    tl.store(out + pair * voxels + at, 0.5 * doubled, at < voxels)


@kernel
def smoothness(
    disp, divergence, i, j, k, here, I, J, K, smooth_i, smooth_j, smooth_k, volume,  # noqa: E741, N803
    PRESERVED: tl.constexpr,  # noqa: N803
):  # fmt: skip
    """Energy of both terms, and its gradient with respect to the displacement's three components."""
    voxels = I * J * K
    energy, pull_i = _steps(disp, i, j, k, here, I, J, K, smooth_i, smooth_j, smooth_k)
    more, pull_j = _steps(disp + voxels, i, j, k, here, I, J, K, smooth_i, smooth_j, smooth_k)
    energy += more
    more, pull_k = _steps(disp + 2 * voxels, i, j, k, here, I, J, K, smooth_i, smooth_j, smooth_k)
    energy += more
    if PRESERVED:
        own = tl.load(divergence, here, 0.0)
        energy += volume * own * own
        # A component has factor 1/2 in the divergence of the voxel before it and -1/2 in that of the voxel after it;
        # the square's factor 2 cancels the 1/2.
        pull_i -= volume * _across(divergence, J * K, here & (i > 0), here & (i < I - 1))
        pull_j -= volume * _across(divergence, K, here & (j > 0), here & (j < J - 1))
        pull_k -= volume * _across(divergence, 1, here & (k > 0), here & (k < K - 1))
    return energy, pull_i, pull_j, pull_k


@kernel
def _across(values, stride, has_before, has_after):
    """The next value along an axis minus the previous one; missing ones count as 0."""
    return tl.load(values + stride, has_after, 0.0) - tl.load(values - stride, has_before, 0.0)


@kernel
def _steps(disp, i, j, k, here, I, J, K, smooth_i, smooth_j, smooth_k):  # noqa: E741, N803
    """Energy of one component's forward steps along the three axes, and its gradient."""
    own = tl.load(disp, here, 0.0)
    energy, gradient = _step_along(disp, own, J * K, here & (i > 0), here & (i < I - 1), smooth_i)
    more_energy, more_gradient = _step_along(disp, own, K, here & (j > 0), here & (j < J - 1), smooth_j)
    energy, gradient = energy + more_energy, gradient + more_gradient
    more_energy, more_gradient = _step_along(disp, own, 1, here & (k > 0), here & (k < K - 1), smooth_k)
    return energy + more_energy, gradient + more_gradient


@kernel
def _step_along(disp, own, stride, has_before, has_after, smooth):
    back = tl.where(has_before, own - tl.load(disp - stride, has_before, 0.0), 0.0)
    ahead = tl.where(has_after, tl.load(disp + stride, has_after, 0.0) - own, 0.0)
    return smooth * ahead * ahead, 2 * smooth * (back - ahead)
