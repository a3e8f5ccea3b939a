"""The Triton kernels of geometry against plain torch in float64."""

import sys

import pytest
import torch
from torch import Tensor

from corereg.errors import InputError
from corereg.geometry.displacement import compose
from corereg.geometry.kernels import dispatch
from corereg.geometry.kernels.dispatch import KERNELS_VARIABLE, use_triton
from corereg.geometry.strided import box_mean
from corereg.geometry.warp import identity_coords, sample, warp
from helpers.cuda import DEVICE, FAR, assert_near, each_shape, in_the_interpreter_too, smooth_noise

pytestmark = in_the_interpreter_too


@each_shape
@pytest.mark.parametrize(("times", "reach"), [(1, 0), (3, 0), (3, 4), (0, 2)])
def test_box_mean(cuda_kernels, shape, times, reach, generator):
    volume = smooth_noise(generator, 2, 3, *shape)
    assert_near(cuda_kernels.box_mean(volume, times, reach), box_mean(volume.double(), times=times, reach=reach))


@pytest.mark.parametrize("reach", [0, 4])
def test_adjoint_smoothing_is_the_transpose_of_smoothing(cuda_kernels, reach):
    def matrix(*, adjoint: bool) -> Tensor:
        basis = torch.eye(7, device=DEVICE).view(7, 1, 1, 1, 7)
        out = torch.empty_like(basis)
        cuda_kernels.filter_axis(basis, cuda_kernels.box_band(7, 3, reach, DEVICE, adjoint=adjoint), 4, out)
        return out.view(7, 7)

    assert not torch.equal(matrix(adjoint=True), matrix(adjoint=False))
    torch.testing.assert_close(matrix(adjoint=True), matrix(adjoint=False).T)


@each_shape
@pytest.mark.parametrize("size", [2.0, FAR])
@pytest.mark.parametrize("outside", [None, -1.5])
@pytest.mark.parametrize("channels", [1, 3])
def test_warp(cuda_kernels, shape, size, outside, channels, generator):
    volume, disp_vox = smooth_noise(generator, 2, channels, *shape), smooth_noise(generator, 2, 3, *shape, size=size)
    found = cuda_kernels.pull(volume, disp_vox, from_identity=True, outside=outside)
    assert_near(found, warp(volume.double(), disp_vox.double(), outside=outside))


@each_shape
def test_sample_of_one_volume_at_two_sets_of_positions(cuda_kernels, shape, generator):
    volume = smooth_noise(generator, 1, 2, *shape)
    coords = identity_coords((4, 5, 6), like=volume) + smooth_noise(generator, 2, 3, 4, 5, 6, size=3.0)
    exact = sample(volume.double().expand(2, -1, -1, -1, -1), coords.double())
    assert_near(cuda_kernels.pull(volume, coords, from_identity=False), exact)


def test_sample_of_a_volume_with_a_single_slice(cuda_kernels, generator):
    volume = torch.randn(1, 2, 1, 6, 5, generator=generator).to(DEVICE)
    coords = 4 * torch.rand(1, 3, 4, 3, 2, generator=generator).to(DEVICE)
    assert_near(cuda_kernels.pull(volume, coords, from_identity=False), sample(volume.double(), coords.double()))


@each_shape
def test_pull_blends_the_displacement_with_what_it_reads(cuda_kernels, shape, generator):
    first, then = (smooth_noise(generator, 2, 3, *shape, size=2.0) for _ in range(2))
    found = cuda_kernels.pull(first, then, from_identity=True, own=0.5, sampled=-0.5)
    assert_near(found, then.double() - compose(first.double(), then.double()) / 2)


def test_tensors_on_the_cpu_never_go_to_triton(monkeypatch):
    for choice in ("", "triton", "numba", "torch"):
        monkeypatch.setenv(KERNELS_VARIABLE, choice)
        assert not use_triton(torch.zeros(1, 1, 3, 4, 5))


def test_without_triton_torch_does_it_unless_triton_was_named(monkeypatch):
    monkeypatch.setattr(dispatch, "_suits", lambda device, tensor: device == "cuda")  # as if they were on CUDA
    monkeypatch.setitem(sys.modules, "triton", None)
    monkeypatch.delitem(sys.modules, "corereg.geometry.kernels.cuda", raising=False)
    dispatch._triton_works.cache_clear()
    volume = torch.zeros(1, 1, 3, 4, 5)
    monkeypatch.delenv(KERNELS_VARIABLE, raising=False)
    assert not use_triton(volume)
    monkeypatch.setenv(KERNELS_VARIABLE, "triton")
    with pytest.raises(InputError, match="triton cannot run a kernel here"):
        use_triton(volume)
    dispatch._triton_works.cache_clear()
