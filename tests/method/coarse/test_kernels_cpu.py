"""The compiled coarse stage against plain torch."""

import pytest

from corereg.method.coarse.coupled_convex import match
from corereg.method.config import CoupledConvexConfig
from helpers.kernels import assert_same, each_shape, smooth_noise

pytest.importorskip("numba")


@each_shape
@pytest.mark.parametrize(("channels", "radius", "steps"), [(16, 2, 15), (5, 1, 0)])
def test_match(shape, channels, radius, steps, generator, monkeypatch):
    fixed, moving = (smooth_noise(generator, 2, channels, *shape) for _ in range(2))
    config = CoupledConvexConfig(radius=radius, inverse_consistency_steps=steps)
    assert_same(monkeypatch, lambda: match(fixed, moving, config))
