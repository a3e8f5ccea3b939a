"""Instance optimisation over a velocity field: the displacement is its flow, which cannot fold.

Minimises, over a velocity v,

    E(v) = half the sum of the data terms of exp(s(v)) and, from moving to fixed, of exp(-s(v))
           + the smoothness terms of s(v)

by Adam, with the terms and the means s of `optimise`. On the CPU the data term's gradient comes from the compiled
kernels, the exponential's from its exact adjoint.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from corereg.geometry.displacement import Disp
from corereg.geometry.kernels.dispatch import use_kernels
from corereg.geometry.velocity import exponential
from corereg.method.config import RefineConfig
from corereg.method.refine.energy import Compared, data_energy, smoothness_energy
from corereg.method.refine.inputs import Inputs
from corereg.method.refine.schedule import Smoothing, betas, learning_rate
from corereg.progress import counted

__all__ = ["refine_velocity", "velocity_energy"]


def velocity_energy(velocity_vox: Disp, compared: Sequence[Compared], config: RefineConfig) -> Tensor:
    """E of an already smoothed velocity.

    Args:
        compared: inputs of the data terms from fixed to moving and from moving to fixed.
    """
    ahead, back = compared
    data = _data(exponential(velocity_vox), ahead) + _data(exponential(-velocity_vox), back)
    return data / 2 + smoothness_energy(velocity_vox, config)


def refine_velocity(
    compared: Sequence[Compared], start_vox: Disp, config: RefineConfig
) -> tuple[Disp, tuple[float, ...]]:
    """Refine the velocity of one pair (B = 1).

    Args:
        compared: inputs of the data terms from fixed to moving and from moving to fixed.
        start_vox: the velocity to start from, in voxels of the features' grid per unit of time.

    Returns: the velocity s(v), and E before each step.
    """
    smooth = Smoothing.of(config)
    parameters = start_vox.detach().clone().requires_grad_(True)
    optimiser = torch.optim.Adam([parameters], betas=betas(config))
    losses = []
    for step in counted(range(config.steps), "refining"):
        optimiser.param_groups[0]["lr"] = learning_rate(config, step)
        optimiser.zero_grad()
        with torch.enable_grad():
            loss = velocity_energy(smooth(parameters), compared, config)
        torch.autograd.backward(loss)
        optimiser.step()
        losses.append(float(loss.detach()))
    return smooth(parameters.detach()), tuple(losses)


def _data(disp_vox: Disp, compared: Compared) -> Tensor:
    if min(disp_vox.shape[2:]) > 1 and use_kernels(disp_vox.detach(), *compared.tensors):
        energy: Tensor = _CompiledData.apply(disp_vox, compared)  # type: ignore[no-untyped-call]
        return energy
    return data_energy(disp_vox, compared)


class _CompiledData(torch.autograd.Function):
    """`data_energy` by the kernel that computes value and gradient together."""

    @staticmethod
    def forward(ctx: Any, disp_vox: Tensor, compared: Compared) -> Tensor:
        from corereg.method.refine.kernels_cpu import energy_gradient

        inputs = Inputs.of(compared, disp_vox, RefineConfig(regularisation=0.0))
        value, gradient = energy_gradient(inputs, disp_vox.detach()[0].contiguous().numpy(), smoothing=Smoothing(0))
        ctx.save_for_backward(torch.from_numpy(gradient)[None])
        return disp_vox.new_tensor(value)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, scale: Tensor) -> tuple[Tensor, None]:
        (gradient,) = ctx.saved_tensors
        return scale * gradient, None
