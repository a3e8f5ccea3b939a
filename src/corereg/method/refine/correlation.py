"""Local correlation: the data term for two images of similar contrast, robust to bias fields.

Minimises the mean over voxels of 1 - cc(x)^2, cc being the correlation coefficient of the fixed and the warped moving
image in a window around x. With window means m_f, m_w, variances v_f, v_w and covariance c, each taken over the voxels
of the window that exist,

    cc(x)^2 = (c + n)^2 / ((v_f + n) (v_w + n)).

The noise floor n keeps flat regions from pulling. With n in the numerator too, equal windows have cc = 1 however flat
they are; without, contrast would be drawn into flat regions. Source: Cachier et al., "Iconic feature based nonrigid
registration", CVIU 2003; squared and windowed as in Avants et al., Medical Image Analysis 2008.
"""

import math
import sys
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from corereg.geometry.strided import window_mean
from corereg.method.features.model import Image5D

__all__ = ["NOISE", "RADIUS", "contrast_agreement", "contrast_weight", "local_correlation"]

RADIUS = 2
"""Half-width of the window in voxels, as greedy's and ANTs's default for fine grids."""

NOISE = 64e-4
"""Variance below which contrast counts as noise: (8 % of the scaled intensity range, 40 HU of a CT) squared. Windows of
less contrast are compared by their mean squared difference rather than by correlation. With a floor of 1 % noise moves
what has no contrast: benchmarks/history/correlation.md."""

FLAT = 4e-4
"""Variance at which a window counts half: (2 % of the scaled intensity range, 10 HU of a CT) squared."""


def local_correlation(fixed: Image5D, warped: Image5D, *, radius: int = RADIUS, noise: float = NOISE) -> Image5D:
    """Correlation coefficient in the window around each voxel, between -1 and 1."""
    covariance, fixed_variance, warped_variance = _moments(fixed, warped, radius)
    return (covariance + noise) / ((fixed_variance + noise) * (warped_variance + noise)).sqrt()


def contrast_weight(image: Image5D) -> Image5D:
    """How much the match of each voxel counts, from 0 to 1: less where the window around it shows little. What matches
    there is noise, and the smoothness knows better."""
    mean = _window_means(image, RADIUS)
    variance = (mean(image * image) - mean(image).square()).clamp(min=0)
    return variance / (variance + FLAT)


def _moments(fixed: Image5D, warped: Image5D, radius: int) -> tuple[Tensor, Tensor, Tensor]:
    """Covariance and variances in the window around each voxel."""
    mean = _window_means(fixed, radius)
    fixed_mean, warped_mean = mean(fixed), mean(warped)
    return (
        mean(fixed * warped) - fixed_mean * warped_mean,
        (mean(fixed * fixed) - fixed_mean * fixed_mean).clamp(min=0),
        (mean(warped * warped) - warped_mean * warped_mean).clamp(min=0),
    )


def _window_means(like: Image5D, radius: int) -> Callable[[Tensor], Tensor]:
    """A function that takes the mean over those voxels of each window that exist."""

    def padded_mean(volume: Tensor) -> Tensor:
        return window_mean(functional.pad(volume, [radius] * 6), 2 * radius + 1)

    existing = padded_mean(torch.ones_like(like[:1, :1]))
    return lambda volume: padded_mean(volume) / existing


def contrast_agreement(fixed: Image5D, warped: Image5D, *, weight: Tensor | None = None) -> float:
    """How far two roughly aligned images share one contrast: 1 for equal images up to a smooth bias, about 0 for
    unrelated ones, below 0 for an inverted contrast.

    It is the correlation coefficient of the two images after each has lost its local means, so that edges count and
    large flat regions do not.

    Args:
        fixed, warped: (1, 1, I, J, K) on one grid.
        weight: how much each voxel counts, in the same shape; None counts all equally.
    """
    covariance, fixed_variance, warped_variance = _moments(fixed, warped, RADIUS)
    if weight is not None:
        covariance, fixed_variance, warped_variance = (
            weight * moment for moment in (covariance, fixed_variance, warped_variance)
        )
    product = float(fixed_variance.sum(dtype=torch.float64)) * float(warped_variance.sum(dtype=torch.float64))
    return float(covariance.sum(dtype=torch.float64)) / math.sqrt(max(product, sys.float_info.min))
