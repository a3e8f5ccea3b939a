"""Compiled sampling against plain torch."""

import pytest
import torch

from corereg.geometry.warp import identity_coords, sample, warp
from helpers.kernels import FAR, assert_same, each_shape, smooth_noise

pytest.importorskip("numba")


@each_shape
@pytest.mark.parametrize("size", [2.0, FAR])
@pytest.mark.parametrize("outside", [None, -1.5])
@pytest.mark.parametrize("channels", [1, 3])
def test_warp_and_sample(shape, size, outside, channels, generator, monkeypatch):
    volume = smooth_noise(generator, 2, channels, *shape)
    disp_vox = smooth_noise(generator, 2, 3, *shape, size=size)
    coords = (identity_coords((5, 6, 4), like=volume) + smooth_noise(generator, 2, 3, 5, 6, 4, size=size)).contiguous()
    assert_same(monkeypatch, lambda: (warp(volume, disp_vox, outside=outside), sample(volume, coords, outside=outside)))


def test_sample_of_a_volume_with_a_single_slice(generator, monkeypatch):
    volume = torch.randn(1, 2, 1, 6, 5, generator=generator)
    coords = 4 * torch.rand(1, 3, 7, 3, 2, generator=generator)
    assert_same(monkeypatch, lambda: sample(volume, coords))
