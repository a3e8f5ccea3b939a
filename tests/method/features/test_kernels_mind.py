"""The compiled descriptors against plain torch."""

import pytest
import torch

from corereg.geometry.kernels.dispatch import KERNELS_VARIABLE
from corereg.geometry.strided import box_mean, subsample
from corereg.method.features.mind import mind_ssc, mind_ssc_half
from helpers.kernels import SHAPES, assert_same, smooth_noise

pytest.importorskip("numba")


@pytest.mark.parametrize("shape", [*SHAPES, (68, 21, 16)], ids=str)
@pytest.mark.parametrize("dilation", [1, 2])
def test_mind_on_the_half_grid(shape, dilation, generator, monkeypatch):
    image = smooth_noise(generator, 2, 1, *shape)
    image[:, :, :, : shape[1] // 3] = 0.25  # flat: its variance is bounded from below
    assert_same(monkeypatch, lambda: mind_ssc_half(image, dilation=dilation))
    monkeypatch.setenv(KERNELS_VARIABLE, "torch")
    assert torch.equal(mind_ssc_half(image), subsample(box_mean(mind_ssc(image)), 2))
