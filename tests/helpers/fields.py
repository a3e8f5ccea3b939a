"""Displacements and volumes with known content."""

import numpy as np
import torch
from scipy import ndimage

SHAPE = (18, 22, 26)


def waves(shape=SHAPE, amplitude=1.0, phase=0.0, dtype=torch.float64):
    """A smooth displacement (1, 3, I, J, K) whose components depend on all axes."""
    i, j, k = torch.meshgrid(*(torch.arange(n, dtype=dtype) for n in shape), indexing="ij")
    a = torch.sin(2 * torch.pi * (j / 15 + k / 21) + phase)
    b = torch.cos(2 * torch.pi * (i / 19 - k / 23) + 2 * phase)
    c = torch.sin(2 * torch.pi * (i / 17 + j / 25) - phase)
    return amplitude * torch.stack([a, b, c])[None]


def random_volume(shape=SHAPE, seed=0, dtype=torch.float64):
    values = np.random.default_rng(seed).normal(size=shape)
    return torch.as_tensor(ndimage.gaussian_filter(values, 1.5)).to(dtype)[None, None]
