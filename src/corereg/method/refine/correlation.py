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

__all__ = ["NOISE", "RADIUS", "contrast_agreement", "contrast_weight", "linearity", "local_correlation"]

RADIUS = 2
"""Half-width of the window in voxels, as greedy's and ANTs's default for fine grids."""

NOISE = 64e-4
"""Variance below which contrast counts as noise: (8 % of the scaled intensity range, 40 HU of a CT) squared. Windows of
less contrast are compared by their mean squared difference rather than by correlation. With a floor of 1 % noise moves
what has no contrast: benchmarks/history/correlation.md."""

FLAT = 4e-4
"""Variance at which a window counts half: (2 % of the scaled intensity range, 10 HU of a CT) squared."""

LEVELS, FEWEST_INNER = 32, 1000
"""Levels of intensity that `linearity` tells apart, and voxels that it wants away from the border."""


def local_correlation(fixed: Image5D, warped: Image5D, *, radius: int = RADIUS, noise: float = NOISE) -> Image5D:
    """Correlation coefficient in the window around each voxel, between -1 and 1."""
    covariance, fixed_variance, warped_variance = _moments(fixed, warped, radius)
    return (covariance + noise) / ((fixed_variance + noise) * (warped_variance + noise)).sqrt()


def contrast_weight(image: Image5D) -> Image5D:
    """How much the match of each voxel counts, from 0 to 1, in the image's shape: less where the window around it shows
    little. What matches there is noise, and the smoothness knows better."""
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


def linearity(fixed: Image5D, warped: Image5D, body: Image5D) -> float:
    """How nearly two roughly aligned images show tissues in one order and proportion: 1 if the intensity of one is a
    linear function of the other's, less for any other function, below 0 for an inverted contrast.

    It is the squared correlation coefficient relative to the correlation ratio, the share of an image's variance that
    any function of the other explains, so that misalignment, which lowers both, matters little. The border of the
    body is left out, where all scans are alike. Source of the ratio: Roche et al., "The correlation ratio as a new
    similarity measure for multimodal image registration", MICCAI 1998.

    Args:
        fixed, warped, body: (1, 1, I, J, K) on one grid; `body` is 1 where both images show the body, else 0.
    """
    inner = window_mean(functional.pad(body, [1] * 6), 3) > 1 - 0.5 / 27
    if int(inner.sum()) < FEWEST_INNER:
        inner = body > 0
    first, second = fixed[inner].double(), warped[inner].double()
    if not len(first) or min(float(first.std(correction=0)), float(second.std(correction=0))) == 0:
        return 0.0
    correlation = float(torch.corrcoef(torch.stack([first, second]))[0, 1])
    explained = max(_correlation_ratio(first, second), _correlation_ratio(second, first))
    return correlation * abs(correlation) / explained


def _correlation_ratio(given: Tensor, explained: Tensor) -> float:
    """Share of the variance of `explained` that lies between the levels of `given`, both (N,)."""
    bounds = given.sort().values[torch.linspace(0, len(given) - 1, LEVELS + 1).long()[1:-1]]
    level = torch.bucketize(given, bounds, right=True)
    count = torch.bincount(level, minlength=LEVELS).clamp(min=1)
    means = torch.bincount(level, explained - explained.mean(), minlength=LEVELS) / count
    return float((count * means.square()).sum() / len(given) / explained.var(correction=0))
