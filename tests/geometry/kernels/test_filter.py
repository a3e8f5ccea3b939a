"""Compiled filters against plain torch."""

import pytest
import torch

from corereg.geometry.displacement import (
    upsample_displacement,
)
from corereg.geometry.strided import box_mean, strided_shape, subsample, upsample
from helpers.kernels import assert_same, each_shape

pytest.importorskip("numba")


@each_shape
@pytest.mark.parametrize(("times", "reach"), [(1, 0), (2, 0), (3, 0), (3, 4), (0, 2)])
def test_box_mean(shape, times, reach, generator, monkeypatch):
    volume = torch.randn(2, 3, *shape, generator=generator)
    assert_same(monkeypatch, lambda: box_mean(volume, times=times, reach=reach))


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
