"""The compiled coarse stage against plain torch."""

import pytest
import torch

from corereg.method.coarse.coupled_convex import match
from corereg.method.config import CoupledConvexConfig
from helpers.kernels import assert_same, each_shape, smooth_noise

pytest.importorskip("numba")


@each_shape
@pytest.mark.parametrize(("channels", "radius", "steps"), [(16, 2, 15), (5, 1, 0)])
@pytest.mark.parametrize("weighted", [False, True])
def test_match(shape, channels, radius, steps, weighted, generator, monkeypatch):
    fixed, moving = (smooth_noise(generator, 2, channels, *shape) for _ in range(2))
    config = CoupledConvexConfig(radius=radius, inverse_consistency_steps=steps)
    weights = tuple(torch.rand(2, 1, *shape, generator=generator) for _ in "fm")
    weights[0][:, :, 2:6, :, 4:] = 0
    weights[1][:, :, :, 5:] = 0
    assert_same(monkeypatch, lambda: match(fixed, moving, config, weights=weights if weighted else (None, None)))
