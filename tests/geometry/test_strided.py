"""Strided grids: means and upsampling up to the rim."""

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from corereg.geometry.strided import box_mean, subsample, upsample, window_mean
from helpers.fields import random_volume


def test_upsampling_puts_coarse_values_on_strided_voxels_and_holds_the_end():
    coarse = random_volume((5, 6, 7))
    fine = upsample(coarse, 2, (10, 12, 14))
    assert_close(subsample(fine, 2), coarse)
    assert_close(fine[:, :, -1], fine[:, :, -2])
    assert_close(fine[:, :, 1, 0, 0], (coarse[:, :, 0, 0, 0] + coarse[:, :, 1, 0, 0]) / 2)


def test_box_mean_keeps_a_constant_up_to_the_rim():
    assert_close(box_mean(torch.full((1, 3, 4, 7, 5), 8.0), times=5), torch.full((1, 3, 4, 7, 5), 8.0))


def test_box_mean_equals_a_loop_over_existing_neighbours():
    volume = random_volume((4, 5, 3))[0, 0].numpy()
    expected = np.empty_like(volume)
    for i, j, k in np.ndindex(volume.shape):
        expected[i, j, k] = volume[max(i - 1, 0) : i + 2, max(j - 1, 0) : j + 2, max(k - 1, 0) : k + 2].mean()
    assert_close(box_mean(torch.as_tensor(volume)[None, None])[0, 0], torch.as_tensor(expected))


@pytest.mark.parametrize("width", [1, 2, 5])
def test_window_means_are_those_of_every_window_within(width, generator):
    volume = torch.rand(1, 2, 7, 9, 6, generator=generator)
    windows = np.lib.stride_tricks.sliding_window_view(volume.double().numpy(), (width,) * 3, (2, 3, 4))
    assert_close(window_mean(volume, width).double(), torch.from_numpy(windows.mean((-3, -2, -1))), rtol=1e-6, atol=0)
