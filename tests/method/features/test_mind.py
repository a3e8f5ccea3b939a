"""MIND descriptors."""

import torch
from torch.testing import assert_close

from corereg.method.features.mind import mind_ssc
from helpers.windows import scene


def test_mind_does_not_change_under_a_linear_intensity_map():
    volume = scene((20, 24, 28), extra=0)[None, None]
    assert_close(mind_ssc(volume), mind_ssc(-2.5 * volume + 7), rtol=1e-3, atol=1e-4)


def test_mind_of_a_constant_image_is_finite():
    assert torch.isfinite(mind_ssc(torch.full((1, 1, 12, 14, 10), 3.0))).all()
