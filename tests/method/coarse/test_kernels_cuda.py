"""The coarse stage in Triton against plain torch in float64."""

import pytest

from corereg.method.coarse.coupled_convex import match
from corereg.method.config import CoupledConvexConfig
from helpers.cuda import assert_near, in_the_interpreter_too, smooth_noise

pytestmark = in_the_interpreter_too


@pytest.mark.parametrize(("channels", "radius"), [(16, 1), (5, 2)])
def test_match_one_way(cuda_kernels, channels, radius, generator):
    from corereg.method.coarse.kernels_cuda import coupled_convex_of_features

    fixed, moving = (smooth_noise(generator, 2, channels, 3, 5, 4) for _ in range(2))
    config = CoupledConvexConfig(radius=radius, inverse_consistency_steps=0)
    found = coupled_convex_of_features(
        fixed,
        moving,
        radius=radius,
        scale=config.feature_scale,
        sharpness=config.sharpness,
        couplings=config.couplings,
    )
    assert_near(found, match(fixed.double(), moving.double(), config), relative=1e-5)
