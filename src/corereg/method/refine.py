"""Stage 4 of 4: instance optimisation, the test-time refinement of a coarse displacement. Upstream: coupled_convex.

Minimises over a displacement v on the 1/2 grid

    E(v) = 12 mean_x mean_c (5 M_c(x + s(v)(x)) - 5 F_c(x))^2 + R 0.65 (D(s(v)) + K mean_x (div s(v)(x))^2)

with s three 3x3x3 means and D the diffusion energy, by Adam. The last term is not in the paper (K = 0 there).
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from corereg.geometry.dispatch import use_kernels, use_triton
from corereg.geometry.displacement import Disp
from corereg.geometry.resample import box_mean
from corereg.geometry.warp import warp

__all__ = [
    "DIFFEOMORPHIC",
    "PARAMETRISATIONS",
    "Compared",
    "RefineConfig",
    "data_energy",
    "diffusion_energy",
    "energy",
    "energy_factors",
    "project_features",
    "refine",
    "smoothness_energy",
    "volume_energy",
]

DATA_WEIGHT = 12.0
FEATURE_SCALE = 5.0
DIFFUSION_WEIGHT = 0.65
"""Constants of the paper's energy; `regularisation` scales the last."""

DIFFEOMORPHIC = "diffeomorphic"
PARAMETRISATIONS = ("displacement", DIFFEOMORPHIC)

NO_WEIGHT = 1e-6
"""Sum of weights below which no voxel counts and the data term is zero."""

Features = Float[Tensor, "B C I J K"]


@dataclass(frozen=True, kw_only=True, slots=True)
class RefineConfig:
    """Instance optimisation."""

    steps: int = 50
    """Adam steps; 0 skips the refinement."""
    learning_rate: float = 0.5
    """In voxels of the 1/2 grid; the paper's is 1, at which more voxels fold for the same overlap."""
    regularisation: float = 3.0
    """R, factor on the diffusion energy; 1 in the paper's training, searched for a wanted SDlogJ in its tests."""
    volume_preservation: float = 1.0
    """Weight of the squared divergence beside the diffusion energy: tissue bends and slides more easily than it changes
    its volume. 0 in the paper."""
    smoothing: int = 3
    """Number of 3x3x3 means between the parameters and the displacement."""
    channels: int = 32
    """Features are projected to this many channels where they have more."""
    parametrisation: str = "displacement"
    """What is optimised: the displacement, or for diffeomorphic a velocity along which it flows and so cannot fold."""

    def __post_init__(self) -> None:
        if self.parametrisation not in PARAMETRISATIONS:
            raise ValueError(
                f"parametrisation must be one of {', '.join(PARAMETRISATIONS)}, got {self.parametrisation!r}"
            )
        if self.steps < 0:
            raise ValueError(f"steps must be >= 0, got {self.steps}")
        if self.regularisation < 0 or self.volume_preservation < 0 or self.learning_rate <= 0:
            raise ValueError(
                "regularisation and volume_preservation must be >= 0 and learning_rate > 0, got "
                f"{self.regularisation:g}, {self.volume_preservation:g} and {self.learning_rate:g}"
            )


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


class Compared(NamedTuple):
    """What a data term compares."""

    fixed: Features
    moving: Features
    weight: Float[Tensor, "B 1 I J K"] | None
    """How much each voxel's match counts; None: all the same."""


def data_energy(disp_vox: Disp, compared: Compared) -> Float[Tensor, ""]:
    """The first term of E."""
    fixed, moving, weight = compared
    squared = ((FEATURE_SCALE * (warp(moving, disp_vox) - fixed)) ** 2).mean(1, keepdim=True)
    data = squared.mean() if weight is None else (weight * squared).sum() / weight.sum().clamp(min=NO_WEIGHT)
    return DATA_WEIGHT * data


def diffusion_energy(disp_vox: Disp) -> Float[Tensor, ""]:
    """Sum over the three axes of the mean squared forward difference."""
    return sum((disp_vox.diff(dim=axis) ** 2).mean() for axis in (2, 3, 4))  # type: ignore[return-value]


def volume_energy(disp_vox: Disp) -> Float[Tensor, ""]:
    """Mean over the voxels inside of the squared divergence, by central differences; 0 on a slab with no inside."""
    if min(disp_vox.shape[2:]) <= 2:
        return disp_vox.new_zeros(())
    inner = slice(1, -1)
    along_i = disp_vox[:, 0, 2:, inner, inner] - disp_vox[:, 0, :-2, inner, inner]
    along_j = disp_vox[:, 1, inner, 2:, inner] - disp_vox[:, 1, inner, :-2, inner]
    along_k = disp_vox[:, 2, inner, inner, 2:] - disp_vox[:, 2, inner, inner, :-2]
    return (((along_i + along_j + along_k) / 2) ** 2).mean()


def smoothness_energy(disp_vox: Disp, config: RefineConfig) -> Float[Tensor, ""]:
    """The other terms of E."""
    smooth = diffusion_energy(disp_vox)
    if config.volume_preservation:
        smooth = smooth + config.volume_preservation * volume_energy(disp_vox)
    return config.regularisation * DIFFUSION_WEIGHT * smooth


def energy(disp_vox: Disp, compared: Compared, config: RefineConfig) -> Float[Tensor, ""]:
    """E of an already smoothed displacement."""
    return data_energy(disp_vox, compared) + smoothness_energy(disp_vox, config)


def refine(
    fixed: Features, moving: Features, start_vox: Disp, config: RefineConfig, *, weight: Tensor | None = None
) -> tuple[Disp, tuple[float, ...]]:
    """Refine a displacement by minimising E, each pair of the batch by itself.

    Args:
        fixed, moving: features on the 1/2 grid.
        start_vox: voxels of the 1/2 grid.
        weight: (B, 1, I, J, K), voxels that count; None counts all.

    Returns: the displacement s(v) on the 1/2 grid, and E before each step, its mean over the pairs.
    """
    thick = min(start_vox.shape[2:]) > 1
    if thick and use_triton(fixed, moving, start_vox, weight):
        disp_vox, energies = _refine_on_cuda(fixed, moving, start_vox, config, weight)
    else:
        compiled = thick and use_kernels(fixed, moving, start_vox, weight)
        refine_pair = _refine_pair_compiled if compiled else _refine_pair
        pairs = [slice(n, n + 1) for n in range(len(start_vox))]
        found = [
            refine_pair(fixed[n], moving[n], start_vox[n], config, None if weight is None else weight[n]) for n in pairs
        ]
        disp_vox, energies = (torch.cat(parts, at) for at, parts in enumerate(zip(*found, strict=True)))
    return disp_vox, tuple(energies.mean(1).tolist())


def _refine_pair(
    fixed: Features, moving: Features, start_vox: Disp, config: RefineConfig, weight: Tensor | None
) -> tuple[Disp, Float[Tensor, "S 1"]]:
    parameters = start_vox.detach().clone().requires_grad_(True)
    optimiser = torch.optim.Adam([parameters], lr=config.learning_rate)
    losses = parameters.new_empty(config.steps, 1, requires_grad=False)
    for step in range(config.steps):
        optimiser.zero_grad()
        with torch.enable_grad():
            smooth = box_mean(parameters, times=config.smoothing)
            loss = energy(smooth, Compared(fixed, moving, weight), config)
        torch.autograd.backward(loss)
        optimiser.step()
        losses[step] = loss.detach()
    return box_mean(parameters.detach(), times=config.smoothing), losses


def _refine_pair_compiled(
    fixed: Features, moving: Features, start_vox: Disp, config: RefineConfig, weight: Tensor | None
) -> tuple[Disp, Float[Tensor, "S 1"]]:
    """The same on the compiled CPU kernels."""
    from corereg.method.kernels_refine import Factors, minimise

    data, smooth, volume = energy_factors(fixed, start_vox, config, weight)
    fixed_last, moving_last = (f[0].detach().permute(1, 2, 3, 0).contiguous().numpy() for f in (fixed, moving))
    disp_vox, energies = minimise(
        fixed_last,
        moving_last,
        start_vox[0].detach().contiguous().numpy(),
        None if weight is None else weight[0, 0].detach().contiguous().numpy(),
        Factors(float(data), smooth, volume),
        steps=config.steps,
        learning_rate=config.learning_rate,
        smoothing=config.smoothing,
    )
    return torch.from_numpy(disp_vox)[None], torch.tensor(energies, dtype=torch.float64)[:, None]


def _refine_on_cuda(
    fixed: Features, moving: Features, start_vox: Disp, config: RefineConfig, weight: Tensor | None
) -> tuple[Disp, Float[Tensor, "S B"]]:
    """The same on the compiled CUDA kernels, all pairs at a time."""
    from corereg.method.kernels_cuda import Problem, minimise

    return minimise(
        Problem.of(fixed, moving, weight, *energy_factors(fixed, start_vox, config, weight)),
        start_vox.detach().contiguous(),
        steps=config.steps,
        learning_rate=config.learning_rate,
        smoothing=config.smoothing,
    )


def energy_factors(
    fixed: Features, start_vox: Disp, config: RefineConfig, weight: Tensor | None
) -> tuple[Float[Tensor, "B"], tuple[float, ...], float]:
    """E as data[b] x weighted sum of squared differences + smooth[a] x sum of squared steps along axis a + volume x sum
    of squared divergences."""
    shape = start_vox.shape[2:]
    voxels = start_vox.new_full((len(start_vox),), shape.numel(), dtype=torch.float64)
    counted = voxels if weight is None else weight.detach().double().sum((1, 2, 3, 4)).clamp(min=NO_WEIGHT)
    steps = [3 * shape.numel() // n * (n - 1) for n in shape]
    smooth = tuple(config.regularisation * DIFFUSION_WEIGHT / count for count in steps)
    inside = math.prod(max(n - 2, 0) for n in shape)
    preserved = config.volume_preservation if inside else 0.0
    volume = config.regularisation * DIFFUSION_WEIGHT * preserved / max(inside, 1)
    return DATA_WEIGHT * FEATURE_SCALE**2 / (fixed.shape[1] * counted), smooth, volume
