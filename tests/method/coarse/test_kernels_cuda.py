"""The coarse stage in Triton against plain torch in float64."""

import pytest
import torch

from corereg.method.coarse.coupled_convex import match
from corereg.method.config import CoupledConvexConfig
from helpers.cuda import assert_near, in_the_interpreter_too, smooth_noise

pytestmark = in_the_interpreter_too


@pytest.mark.parametrize(
    ("channels", "radius", "weighted"),
    [(16, 1, False), (16, 1, True), (5, 2, True), pytest.param(5, 2, False, marks=pytest.mark.slow)],
)
def test_match_one_way(cuda_kernels, channels, radius, weighted, generator):
    from corereg.method.coarse.kernels_cuda import coupled_convex_of_features

    fixed, moving = (smooth_noise(generator, 2, channels, 3, 5, 4) for _ in range(2))
    config = CoupledConvexConfig(radius=radius, inverse_consistency_steps=0)
    weights = tuple(torch.rand(2, 1, 3, 5, 4, generator=generator).to(fixed) for _ in "fm") if weighted else None
    if weights:
        weights[1][:, :, :, :, 2:] = 0
    found = coupled_convex_of_features(
        fixed,
        moving,
        radius=radius,
        scale=config.feature_scale,
        sharpness=config.sharpness,
        couplings=config.couplings,
        weights=weights,
    )
    exact = tuple(weight.double() for weight in weights) if weights else (None, None)
    assert_near(found, match(fixed.double(), moving.double(), config, weights=exact), relative=1e-5)
