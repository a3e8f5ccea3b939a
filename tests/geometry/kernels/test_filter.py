"""Compiled filters against plain torch."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from corereg.geometry.displacement import (
    upsample_displacement,
)
from corereg.geometry.smoothing_matrix import smoothing_matrix
from corereg.geometry.strided import box_mean, strided_shape, subsample, upsample
from helpers.kernels import assert_same, each_shape

pytest.importorskip("numba")


@each_shape
@pytest.mark.parametrize(("times", "reach"), [(1, 0), (2, 0), (3, 0), (3, 4), (0, 2)])
def test_box_mean(shape, times, reach, generator, monkeypatch):
    volume = torch.randn(2, 3, *shape, generator=generator)
    assert_same(monkeypatch, lambda: box_mean(volume, times=times, reach=reach))


def test_wider_means_against_scipy(generator):
    """Along one axis, away from the border, where scipy's differs."""
    line = torch.randn(40, generator=generator, dtype=torch.float64)
    near, wide = line.numpy(), line.numpy()
    for _ in range(3):
        near = ndimage.uniform_filter1d(near, 3)
    for _ in range(2):
        wide = ndimage.uniform_filter1d(wide, 9)
    found = line.numpy() @ smoothing_matrix(40, 3, reach=4).T
    np.testing.assert_allclose(found[8:-8], (0.4 * near + 0.6 * wide)[8:-8], rtol=1e-12)


@each_shape
def test_wider_means_leave_constants_as_they_are(shape):
    constant = torch.full((1, 2, *shape), 1.5, dtype=torch.float64)
    torch.testing.assert_close(box_mean(constant, times=3, reach=5), constant)


@each_shape
def test_box_mean_of_a_volume_that_is_not_contiguous(shape, generator, monkeypatch):
    volume = torch.randn(1, 3, *(2 * n for n in shape), generator=generator)
    assert_same(monkeypatch, lambda: box_mean(subsample(volume, 2)))


@each_shape
@pytest.mark.parametrize(("factor", "smoothing"), [(2, 3), (4, 2), (8, 2), (4, 0), (1, 2)])
def test_upsample_displacement(shape, factor, smoothing, generator, monkeypatch):
    fine = tuple(factor * n - 1 for n in shape) if factor > 1 else shape
    disp_vox = torch.randn(2, 3, *strided_shape(fine, factor), generator=generator)
    assert_same(monkeypatch, lambda: upsample_displacement(disp_vox, factor, fine, smoothing=smoothing))


@each_shape
def test_upsample_holds_the_last_coarse_point(shape, generator, monkeypatch):
    volume = torch.randn(1, 2, *shape, generator=generator)
    assert_same(monkeypatch, lambda: upsample(volume, 3, [3 * n for n in shape]))
