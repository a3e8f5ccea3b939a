"""The compiled convolutions against float64."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import Tensor

from corereg.method.features.convolution import inference
from corereg.method.features.convolution import winograd as kernels_winograd
from corereg.method.features.convolution.inference import Folded

wide = pytest.mark.skipif(not kernels_winograd.WIDE, reason="convolutions are torch's with this processor's vectors")

LAYERS = [(32, 64, 1), (64, 32, 1)]
"""Channels in and out, stride; multiples of every processor's vectors."""


def layer(channels: int, out: int, stride: int) -> Folded:
    generator = torch.Generator().manual_seed(channels + out)
    weight = torch.randn(out, channels, 3, 3, 3, generator=generator) / (27 * channels) ** 0.5
    bias = torch.randn(out, generator=generator)
    return Folded(weight, bias, stride, inference.compiled_convolution(weight, bias, stride))


def expected(layer: Folded, source: Tensor, *, relu: bool = True) -> Tensor:
    found = torch.conv3d(source.double(), layer.weight.double(), layer.bias.double(), layer.stride, 1)
    return found.relu() if relu else found


def noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(7))


def assert_near(found: Tensor, exact: Tensor, *, relative: float = 5e-6) -> None:
    assert found.shape == exact.shape
    assert float((found - exact).norm()) < relative * float(exact.norm())
    assert float((found - exact).abs().max()) < 50 * relative * float(exact.std())


@wide
@pytest.mark.parametrize(("channels", "out", "stride"), LAYERS)
@pytest.mark.parametrize("shape", [(8, 12, 16), (5, 7, 11), (1, 3, 2), (17, 4, 30)])
def test_convolution_against_float64(channels, out, stride, shape):
    one, source = layer(channels, out, stride), noise(2, channels, *shape)
    assert one.compiled is not None
    assert_near(inference.convolve(one, source), expected(one, source))


@wide
@pytest.mark.parametrize(("channels", "out", "stride"), LAYERS)
def test_planes_from_part_of_the_input_into_memory_that_held_others(channels, out, stride):
    one, source = layer(channels, out, stride), noise(1, channels, 21, 6, 9)
    whole, count = expected(one, source), -(-21 // stride)
    used = None
    for first, last in ((0, 4), (3, 7), (count - 4, count)):
        start, stop = max(stride * first - 1, 0), min(stride * (last - 1) + 2, 21)
        found = inference.convolve(one, source[:, :, start:stop], origin=start, first=first, last=last, reuse=used)
        assert used is None or found.data_ptr() == used.data_ptr()
        assert_near(found, whole[:, :, first:last])
        used = found


@wide
def test_convolution_without_a_floor():
    one, source = layer(32, 64, 1), noise(1, 32, 5, 6, 9)
    assert one.compiled is not None
    found = np.empty((5, 6, 9, 64), np.float32)
    image = source[0].permute(1, 2, 3, 0).contiguous().numpy()
    kernels_winograd.convolve(one.compiled.weights, image, found, origin=0, first=0, floor=-np.inf)
    assert found.min() < -1
    assert_near(torch.from_numpy(found).permute(3, 0, 1, 2)[None], expected(one, source, relu=False))


@wide
@pytest.mark.parametrize(("channels", "out", "stride"), LAYERS)
def test_nan_spreads_to_its_neighbours_and_no_further(channels, out, stride):
    one, source = layer(channels, out, stride), noise(1, channels, 12, 12, 20)
    source[0, 0, 6, 5, 4] = torch.nan
    lost = inference.convolve(one, source).isnan()
    assert lost[0, :, 6 // stride, 5 // stride, 4 // stride].all()
    assert not lost[..., 10 // stride :].any()


@wide
def test_the_same_bits_for_any_number_of_threads():
    one, source = layer(64, 32, 1), noise(1, 64, 9, 10, 23)
    threads, results = torch.get_num_threads(), []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            results.append(inference.convolve(one, source))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


@pytest.mark.parametrize(("channels", "out", "stride"), [(20, 64, 1), (32, 20, 1), (32, 64, 2), (1, 32, 2), (1, 32, 1)])
def test_other_convolutions_are_left_to_torch(channels, out, stride):
    one, source = layer(channels, out, stride), noise(1, channels, 6, 5, 7)
    assert one.compiled is None
    assert_near(inference.convolve(one, source), expected(one, source))


CONVOLUTION = """
import sys, torch
from corereg.method.features.convolution import inference
generator = torch.Generator().manual_seed(3)
weight, bias = torch.randn(32, 32, 3, 3, 3, generator=generator), torch.randn(32, generator=generator)
one = inference.Folded(weight, bias, 1, inference.compiled_convolution(weight, bias, 1))
found = inference.convolve(one, torch.randn(1, 32, 5, 7, 11, generator=generator))
sys.stdout.buffer.write(found.contiguous().numpy().tobytes())
"""


@wide
def test_the_process_that_compiles_gives_the_bits_of_those_that_load(tmp_path):
    """A function that is not inlined is optimised by itself in the first, and with its caller in the others."""
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-c", CONVOLUTION]
    first, second = (subprocess.run(command, env=environment, capture_output=True, check=True).stdout for _ in range(2))
    assert len(first) == 4 * 32 * 5 * 7 * 11
    assert list(tmp_path.rglob("*.nbc"))
    assert first == second
