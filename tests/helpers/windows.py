"""Windows of one random scene."""

from functools import cache

import numpy as np
import torch
from scipy import ndimage

SHAPE = (48, 64, 80)


@cache
def scene(shape=SHAPE, seed=0, extra=32):
    """Smooth structure at several scales, with `extra` voxels more on every side than `shape`. Not to be changed."""
    rng = np.random.default_rng(seed)
    full = [n + 2 * extra for n in shape]
    layers = [ndimage.gaussian_filter(rng.normal(size=full), s) * s**1.5 for s in (2, 4, 8)]
    volume = sum(layers) / np.std(sum(layers))
    return torch.as_tensor(volume, dtype=torch.float32)


def shifted_pair(axis, shift, extra=32, shape=SHAPE):
    """Two windows of one scene: moving(x + shift along axis) = fixed(x)."""
    volume = 0.3 * scene(shape, extra=extra)
    fixed = volume[tuple(slice(extra, extra + n) for n in shape)]
    start = [extra - (shift if a == axis else 0) for a in range(3)]
    moving = volume[tuple(slice(s, s + n) for s, n in zip(start, shape, strict=True))]
    return fixed[None, None].contiguous(), moving[None, None].contiguous()
