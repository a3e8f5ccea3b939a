"""The energy that instance optimisation minimises. Downstream: optimise, velocity, and their kernels."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from corereg.geometry.displacement import Disp
from corereg.geometry.warp import warp
from corereg.method.config import RefineConfig
from corereg.method.features.model import Features, Image5D
from corereg.method.refine.correlation import local_correlation

__all__ = [
    "CORRELATION_WEIGHT",
    "DATA_WEIGHT",
    "DIFFUSION_WEIGHT",
    "FEATURE_SCALE",
    "LEAST_SHARE",
    "Compared",
    "correlation_factor",
    "data_energy",
    "diffusion_energy",
    "energy",
    "energy_factors",
    "smoothness_energy",
    "volume_energy",
]

DATA_WEIGHT, FEATURE_SCALE, DIFFUSION_WEIGHT = 12.0, 5.0, 0.65
"""Constants of the paper's energy; `regularisation` scales the last."""

CORRELATION_WEIGHT = 10.0
"""Weight of the mean of 1 - cc^2, such that one R gives about as smooth a displacement as with features."""

LEAST_SHARE = 0.25
"""Voxels weigh in the data term as if at least this share of the grid counted. Without a bound, few voxels, such as a
slab's, would outweigh the smoothness, which is a mean over the whole grid."""


class Compared(NamedTuple):
    """The inputs of a data term: features whose differences count, images whose local correlation counts, or both."""

    features: tuple[Features, Features] | None
    """Features of the fixed and of the moving image."""
    images: tuple[Image5D, Image5D] | None = None
    """Fixed and moving."""
    weight: Float[Tensor, "B 1 I J K"] | None = None
    """How much each voxel's match counts; None counts all voxels equally."""

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """All that are given."""
        return (*(self.features or ()), *(self.images or ()), *(() if self.weight is None else (self.weight,)))

    def each(self, change: Callable[[Tensor], Tensor]) -> "Compared":
        """The same with every tensor changed."""
        features, images, weight = self
        return Compared(
            None if features is None else (change(features[0]), change(features[1])),
            None if images is None else (change(images[0]), change(images[1])),
            None if weight is None else change(weight),
        )

    def pair(self, n: int) -> "Compared":
        """The n-th pair of the batch, as a batch of one."""
        return self.each(lambda tensor: tensor[n : n + 1])


def data_energy(disp_vox: Disp, compared: Compared) -> Float[Tensor, ""]:
    """The first term of E."""
    total = disp_vox.new_zeros(())
    if compared.features is not None:
        fixed, moving = compared.features
        squares = ((FEATURE_SCALE * (warp(moving, disp_vox) - fixed)) ** 2).mean(1, keepdim=True)
        total = total + DATA_WEIGHT * _mean(squares, compared.weight)
    if compared.images is not None:
        fixed, moving = compared.images
        total = total + CORRELATION_WEIGHT * _mean(
            1 - local_correlation(fixed, warp(moving, disp_vox)) ** 2, compared.weight
        )
    return total


def _mean(values: Tensor, weight: Tensor | None) -> Tensor:
    if weight is None:
        return values.mean()
    return (weight * values).sum() / weight.sum().clamp(min=LEAST_SHARE * weight.numel())


def diffusion_energy(disp_vox: Disp) -> Float[Tensor, ""]:
    """Sum over the three axes of the mean squared forward difference."""
    return sum((disp_vox.diff(dim=axis) ** 2).mean() for axis in (2, 3, 4))  # type: ignore[return-value]


def volume_energy(disp_vox: Disp) -> Float[Tensor, ""]:
    """Mean squared divergence over the inner voxels, by central differences; 0 on a slab without inner voxels."""
    if min(disp_vox.shape[2:]) <= 2:
        return disp_vox.new_zeros(())
    inner = slice(1, -1)
    along_i = disp_vox[:, 0, 2:, inner, inner] - disp_vox[:, 0, :-2, inner, inner]
    along_j = disp_vox[:, 1, inner, 2:, inner] - disp_vox[:, 1, inner, :-2, inner]
    along_k = disp_vox[:, 2, inner, inner, 2:] - disp_vox[:, 2, inner, inner, :-2]
    return (((along_i + along_j + along_k) / 2) ** 2).mean()


def smoothness_energy(disp_vox: Disp, config: RefineConfig) -> Float[Tensor, ""]:
    """The remaining terms of E: diffusion and volume preservation."""
    smooth = diffusion_energy(disp_vox)
    if config.volume_preservation:
        smooth = smooth + config.volume_preservation * volume_energy(disp_vox)
    return config.smoothness * DIFFUSION_WEIGHT * smooth


def energy(disp_vox: Disp, compared: Compared, config: RefineConfig) -> Float[Tensor, ""]:
    """E of an already smoothed displacement."""
    return data_energy(disp_vox, compared) + smoothness_energy(disp_vox, config)


def energy_factors(
    channels: int, start_vox: Disp, config: RefineConfig, weight: Tensor | None
) -> tuple[Float[Tensor, "B"], tuple[float, ...], float]:
    """The factors of E = data[b] x weighted sum of squared feature differences + smooth[a] x sum of squared steps along
    axis a + volume x sum of squared divergences; `correlation_factor` is that of the images' term."""
    shape = start_vox.shape[2:]
    steps = [3 * shape.numel() // n * (n - 1) for n in shape]
    smooth = tuple(config.smoothness * DIFFUSION_WEIGHT / count for count in steps)
    inside = math.prod(max(n - 2, 0) for n in shape)
    preserved = config.volume_preservation if inside else 0.0
    volume = config.smoothness * DIFFUSION_WEIGHT * preserved / max(inside, 1)
    return DATA_WEIGHT * FEATURE_SCALE**2 / channels / _counted(start_vox, weight), smooth, volume


def correlation_factor(start_vox: Disp, weight: Tensor | None) -> Float[Tensor, "B"]:
    """The factor of the weighted sum of 1 - cc^2."""
    return CORRELATION_WEIGHT / _counted(start_vox, weight)


def _counted(start_vox: Disp, weight: Tensor | None) -> Float[Tensor, "B"]:
    voxels = start_vox.shape[2:].numel()
    if weight is None:
        return start_vox.new_full((len(start_vox),), voxels, dtype=torch.float64)
    return weight.detach().double().sum((1, 2, 3, 4)).clamp(min=LEAST_SHARE * voxels)
