"""Stage 4 of 4: instance optimisation, the test-time refinement of a coarse displacement. Upstream: coupled_convex.

Minimises, over a displacement v on the 1/2 grid,

    E(v) = 12 mean_x mean_c (5 M_c(x + s(v)(x)) - 5 F_c(x))^2 + R 0.65 (D(s(v)) + K mean_x (div s(v)(x))^2)

by Adam, where s smooths and D is the diffusion energy. The last term is not in the paper (K = 0 there). Two
images' local correlation can be added to the features or take their place: see `correlation`.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from corereg.geometry.displacement import Disp
from corereg.geometry.kernels.dispatch import use_kernels, use_triton
from corereg.method.config import RefineConfig
from corereg.method.refine.active import active_box, continued
from corereg.method.refine.energy import Compared, energy
from corereg.method.refine.inputs import Inputs
from corereg.method.refine.schedule import Schedule, Smoothing, betas, learning_rate
from corereg.progress import counted

__all__ = ["refine"]


def refine(compared: Compared, start_vox: Disp, config: RefineConfig) -> tuple[Disp, tuple[float, ...]]:
    """Refine a displacement by minimising E, for each pair of the batch independently.

    Args:
        start_vox: the displacement to start from, in voxels of the grid of what is compared.

    Returns: the displacement s(v), and E before each step, averaged over the pairs.
    """
    tensors = (*compared.tensors, start_vox)
    thick = min(start_vox.shape[2:]) > 1
    if thick and use_triton(*tensors):
        disp_vox, energies = _refine_on_cuda(compared, start_vox, config)
    else:
        refine_one = _refine_on_cpu if thick and use_kernels(*tensors) else _refine_plainly
        found = [refine_one(compared.pair(n), start_vox[n : n + 1], config) for n in range(len(start_vox))]
        disp_vox, energies = (torch.cat(parts, at) for at, parts in enumerate(zip(*found, strict=True)))
    # From a start near the optimum, Adam's first steps, whose size does not depend on the gradient's, may lead away.
    worse = energies[0] < energies[-1] if config.steps else energies.new_zeros(len(start_vox), dtype=torch.bool)
    if bool(worse.any()):
        kept = Smoothing.of(config)(start_vox.detach())
        disp_vox = torch.where(worse.to(disp_vox.device).view(-1, 1, 1, 1, 1), kept, disp_vox)
    return disp_vox, tuple(energies.mean(1).tolist())


def _refine_plainly(compared: Compared, start_vox: Disp, config: RefineConfig) -> tuple[Disp, Float[Tensor, "S 1"]]:
    smooth = Smoothing.of(config)
    parameters = start_vox.detach().clone().requires_grad_(True)
    optimiser = torch.optim.Adam([parameters], betas=betas(config))
    losses = parameters.new_empty(config.steps, 1, requires_grad=False)
    for step in counted(range(config.steps), "refining"):
        optimiser.param_groups[0]["lr"] = learning_rate(config, step)
        optimiser.zero_grad()
        with torch.enable_grad():
            loss = energy(smooth(parameters), compared, config)
        torch.autograd.backward(loss)
        optimiser.step()
        losses[step] = loss.detach()
    return smooth(parameters.detach()), losses


def _refine_on_cpu(compared: Compared, start_vox: Disp, config: RefineConfig) -> tuple[Disp, Float[Tensor, "S 1"]]:
    """`_refine_plainly` on the compiled CPU kernels, in the box outside which nothing pulls."""
    from corereg.method.refine.kernels_cpu import minimise

    inputs, box = Inputs.of(compared, start_vox, config), active_box(compared, start_vox)
    start = start_vox.detach() if box is None else start_vox.detach()[(..., *box)]
    disp_vox, energies = minimise(
        inputs if box is None else inputs.within(box),
        start[0].contiguous().numpy(),
        Schedule.of(config),
        smoothing=Smoothing.of(config),
    )
    found = torch.from_numpy(disp_vox)[None]
    if box is not None:
        found = continued(found, Smoothing.of(config)(start_vox.detach()), box)
    return found, torch.tensor(energies, dtype=torch.float64)[:, None]


def _refine_on_cuda(compared: Compared, start_vox: Disp, config: RefineConfig) -> tuple[Disp, Float[Tensor, "S B"]]:
    """`_refine_plainly` on the compiled CUDA kernels, for all pairs at once."""
    from corereg.method.refine.kernels_cuda import Problem, minimise

    return minimise(
        Problem.of(compared, start_vox, config),
        start_vox.detach().contiguous(),
        Schedule.of(config),
        smoothing=Smoothing.of(config),
    )
