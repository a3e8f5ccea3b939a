"""The energy that instance optimisation minimises. Downstream: optimise, velocity, and their kernels."""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from corereg.geometry.displacement import Disp
from corereg.geometry.warp import warp
from corereg.method.features.model import Features

__all__ = [
    "DATA_WEIGHT",
    "DIFFEOMORPHIC",
    "DIFFUSION_WEIGHT",
    "FEATURE_SCALE",
    "NO_WEIGHT",
    "PARAMETRISATIONS",
    "Compared",
    "RefineConfig",
    "data_energy",
    "diffusion_energy",
    "energy",
    "energy_factors",
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
