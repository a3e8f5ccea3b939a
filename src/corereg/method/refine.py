"""Stage 4 of 4: instance optimisation, the test-time refinement of a coarse displacement. Upstream: coupled_convex.

Minimises over a displacement v on the 1/2 grid

    E(v) = 12 mean_x mean_c (5 M_c(x + s(v)(x)) - 5 F_c(x))^2 + R 0.65 D(s(v))

with s three 3x3x3 means and D the diffusion energy, by Adam.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from corereg.geometry.dispatch import use_kernels
from corereg.geometry.displacement import Disp
from corereg.geometry.resample import box_mean
from corereg.geometry.warp import warp

__all__ = ["RefineConfig", "diffusion_energy", "energy", "project_features", "refine"]

DATA_WEIGHT = 12.0
FEATURE_SCALE = 5.0
DIFFUSION_WEIGHT = 0.65
"""Constants of the paper's energy; `regularisation` scales the last."""

NO_WEIGHT = 1e-6
"""Sum of weights below which no voxel counts and the data term is zero."""

Features = Float[Tensor, "B C I J K"]


@dataclass(frozen=True, kw_only=True, slots=True)
class RefineConfig:
    """Instance optimisation on the 1/2 grid."""

    steps: int = 50
    """Adam steps; 0 skips the refinement."""
    learning_rate: float = 0.5
    """In voxels of the 1/2 grid; the paper's is 1, at which more voxels fold for the same overlap."""
    regularisation: float = 40.0
    """R, factor on the diffusion energy; 1 in the paper's training, searched for a wanted SDlogJ in its tests."""
    smoothing: int = 3
    """Number of 3x3x3 means between the parameters and the displacement."""
    channels: int = 32
    """Features are projected to this many channels where they have more."""

    def __post_init__(self) -> None:
        if self.steps < 0:
            raise ValueError(f"steps must be >= 0, got {self.steps}")
        if self.regularisation < 0 or self.learning_rate <= 0:
            raise ValueError(f"regularisation must be >= 0 and learning_rate > 0, got {self}")


def project_features(features: Features, channels: int, *, seed: int) -> Float[Tensor, "B P I J K"]:
    """Reduce features to `channels` by a fixed random 1x1x1 projection; the same seed gives the same projection.

    Entries are uniform in +-1/sqrt(C), as a PyTorch convolution's initial weights are. Fewer channels are left alone.
    """
    count = features.shape[1]
    if count <= channels:
        return features
    generator = torch.Generator().manual_seed(seed)
    matrix = (2 * torch.rand(channels, count, generator=generator) - 1) / count**0.5
    projected = features.flatten(2).mT @ matrix.to(features).mT  # channels last in memory, as the kernels want them
    shaped: Tensor = projected.reshape(features.shape[0], *features.shape[2:], channels)
    return shaped.permute(0, 4, 1, 2, 3)


def diffusion_energy(disp_vox: Disp) -> Float[Tensor, ""]:
    """Sum over the three axes of the mean squared forward difference."""
    return sum((disp_vox.diff(dim=axis) ** 2).mean() for axis in (2, 3, 4))  # type: ignore[return-value]


def energy(
    disp_vox: Disp, fixed: Features, moving: Features, *, regularisation: float, weight: Tensor | None = None
) -> Float[Tensor, ""]:
    """E of an already smoothed displacement. `weight` (B, 1, I, J, K) says how much each voxel's match counts."""
    squared = ((FEATURE_SCALE * (warp(moving, disp_vox) - fixed)) ** 2).mean(1, keepdim=True)
    data = squared.mean() if weight is None else (weight * squared).sum() / weight.sum().clamp(min=NO_WEIGHT)
    return DATA_WEIGHT * data + regularisation * DIFFUSION_WEIGHT * diffusion_energy(disp_vox)


def refine(
    fixed: Features, moving: Features, start_vox: Disp, config: RefineConfig, *, weight: Tensor | None = None
) -> tuple[Disp, tuple[float, ...]]:
    """Refine a displacement by minimising E.

    Args:
        fixed, moving: features on the 1/2 grid.
        start_vox: voxels of the 1/2 grid.
        weight: (B, 1, I, J, K), voxels that count; None counts all.

    Returns: the displacement s(v) on the 1/2 grid, and E before each step.
    """
    if use_kernels(fixed, moving, start_vox, weight) and min(start_vox.shape[2:]) > 1:
        return _refine_compiled(fixed, moving, start_vox, config, weight)
    parameters = start_vox.detach().clone().requires_grad_(True)
    optimiser = torch.optim.Adam([parameters], lr=config.learning_rate)
    losses = []
    for _ in range(config.steps):
        optimiser.zero_grad()
        smooth = box_mean(parameters, times=config.smoothing)
        loss = energy(smooth, fixed, moving, regularisation=config.regularisation, weight=weight)
        torch.autograd.backward(loss)
        optimiser.step()
        losses.append(float(loss.detach()))
    return box_mean(parameters.detach(), times=config.smoothing), tuple(losses)


def _refine_compiled(
    fixed: Features, moving: Features, start_vox: Disp, config: RefineConfig, weight: Tensor | None
) -> tuple[Disp, tuple[float, ...]]:
    """The same on the compiled kernels, pair by pair: energies add up, and Adam takes each parameter by itself."""
    from corereg.method.kernels_refine import Factors, minimise

    counted = start_vox[:, 0].numel() if weight is None else max(float(weight.sum()), NO_WEIGHT)
    smooth = config.regularisation * DIFFUSION_WEIGHT
    steps = [start_vox.numel() // n * (n - 1) for n in start_vox.shape[2:]]
    data = DATA_WEIGHT * FEATURE_SCALE**2 / (fixed.shape[1] * counted)
    factors = Factors(data, tuple(smooth / count for count in steps))
    found, losses = [], torch.zeros(config.steps, dtype=torch.float64)
    for n, start in enumerate(start_vox.detach()):
        fixed_last, moving_last = (f[n].detach().permute(1, 2, 3, 0).contiguous().numpy() for f in (fixed, moving))
        disp_vox, energies = minimise(
            fixed_last,
            moving_last,
            start.contiguous().numpy(),
            None if weight is None else weight[n, 0].detach().contiguous().numpy(),
            factors,
            steps=config.steps,
            learning_rate=config.learning_rate,
            smoothing=config.smoothing,
        )
        found.append(torch.from_numpy(disp_vox))
        losses += torch.tensor(energies, dtype=torch.float64)
    return torch.stack(found), tuple(losses.tolist())
