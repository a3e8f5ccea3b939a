"""Stationary velocity fields: flowing along one is an invertible map, and flowing backwards is its inverse.

Upstream: displacement. Downstream: the diffeomorphic refinement. `velocity_vox` is (B, 3, I, J, K), voxels of its own
grid per unit of time, channel a along array axis a; its exponential is the displacement after one unit of time.
Source: scaling and squaring, Arsigny et al., "A log-Euclidean framework for statistics on diffeomorphisms", MICCAI
2006.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from corereg.geometry.displacement import Disp, compose
from corereg.geometry.kernels.dispatch import use_kernels
from corereg.geometry.strided import box_mean

__all__ = ["exponential", "logarithm"]

SQUARINGS = 6
"""Doublings: exp(v) starts from v / 64, so that a velocity of 30 voxels starts with steps of half a voxel."""

LOGARITHM_STEPS = 8
LOGARITHM_STEP = 0.5


def exponential(velocity_vox: Disp) -> Disp:
    """The displacement after flowing for one unit of time, by scaling and squaring; differentiable."""
    if use_kernels(velocity_vox.detach()) and min(velocity_vox.shape[2:]) > 1:
        disp_vox: Disp = _Exponential.apply(velocity_vox)  # type: ignore[no-untyped-call]
        return disp_vox
    disp_vox = velocity_vox / 2**SQUARINGS
    for _ in range(SQUARINGS):
        disp_vox = compose(disp_vox, disp_vox)
    return disp_vox


def logarithm(forward: Disp, backward: Disp) -> Disp:
    """A velocity whose exponential approximates `forward`, and that of its negative `backward`.

    Displacements that are not each other's inverse are averaged; detail that no smooth velocity reaches is lost.
    """
    return (_one_logarithm(forward) - _one_logarithm(backward)) / 2


def _one_logarithm(disp_vox: Disp) -> Disp:
    velocity = disp_vox
    for _ in range(LOGARITHM_STEPS):
        velocity = velocity + LOGARITHM_STEP * (disp_vox - exponential(velocity))
    return box_mean(velocity, times=1)


class _Exponential(torch.autograd.Function):
    """The compiled exponential, with the exact adjoint of each squaring."""

    @staticmethod
    def forward(ctx: Any, velocity_vox: Tensor) -> Tensor:
        steps: list[Tensor] = [velocity_vox.detach() / 2**SQUARINGS]
        for _ in range(SQUARINGS):
            steps.append(compose(steps[-1], steps[-1]))
        ctx.save_for_backward(*steps[:-1])
        return steps[-1]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        from corereg.geometry.kernels.flow import squaring_adjoint

        for disp_vox in reversed(ctx.saved_tensors):
            gradient = squaring_adjoint(disp_vox, gradient)
        given: Tensor = gradient / 2**SQUARINGS
        return given
