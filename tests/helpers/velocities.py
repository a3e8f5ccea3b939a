"""Smooth velocity fields."""

import numpy as np
import torch
from scipy import ndimage

SHAPE = (18, 23, 16)


def smooth_field(seed: int, size: float, *, sigma: float = 3.0, channels: int = 3, shape=SHAPE) -> torch.Tensor:
    """Gaussian-filtered noise whose largest component is `size`."""
    noise = np.random.default_rng(seed).normal(size=(1, channels, *shape))
    smooth = ndimage.gaussian_filter(noise, (0, 0, sigma, sigma, sigma))
    return torch.as_tensor(size * smooth / np.abs(smooth).max(), dtype=torch.float32)
