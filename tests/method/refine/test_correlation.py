"""Local correlation: its value against a slow loop, its gradient against float64, and what it is good for."""

import numpy as np
import pytest
import torch

from corereg.geometry.warp import warp
from corereg.method.config import RefineConfig
from corereg.method.refine.correlation import (
    FLAT,
    NOISE,
    contrast_agreement,
    contrast_weight,
    linearity,
    local_correlation,
)
from corereg.method.refine.energy import Compared, energy
from corereg.method.refine.optimise import refine
from corereg.method.refine.schedule import Smoothing
from helpers.kernels import FAR, assert_same, each_shape, smooth_noise

SMOOTHING = Smoothing(3, reach=2)


def test_local_correlation_against_a_loop_over_windows(generator):
    fixed, warped = (smooth_noise(generator, 1, 1, 5, 7, 6) for _ in range(2))
    found = local_correlation(fixed.double(), warped.double(), radius=2)[0, 0]
    f, w = (volume[0, 0].double().numpy() for volume in (fixed, warped))
    for place in np.ndindex(f.shape):
        window = tuple(slice(max(0, n - 2), n + 3) for n in place)
        a, b = f[window].ravel(), w[window].ravel()
        expected = (np.cov(a, b, bias=True)[0, 1] + NOISE) / np.sqrt((a.var() + NOISE) * (b.var() + NOISE))
        assert float(found[place]) == pytest.approx(expected, abs=1e-9)


def test_local_correlation_ignores_gain_and_offset_of_either_image(generator):
    fixed, warped = (1000 * NOISE**0.5 * smooth_noise(generator, 1, 1, 8, 9, 7) for _ in range(2))
    assert torch.allclose(local_correlation(fixed, 3 * warped - 4), local_correlation(fixed, warped), atol=1e-2)


@each_shape
@pytest.mark.parametrize("channels", [0, 3])
@pytest.mark.parametrize("size", [2.0, FAR])
@pytest.mark.parametrize("weighted", [False, True])
def test_gradient_of_the_kernels_against_float64(shape, channels, size, weighted, generator):
    """Images alone, and together with features."""
    pytest.importorskip("numba")
    from corereg.method.refine.inputs import Inputs
    from corereg.method.refine.kernels_cpu import energy_gradient

    config = RefineConfig(regularisation=2.0)
    images = (smooth_noise(generator, 1, 1, *shape), smooth_noise(generator, 1, 1, *shape))
    features = None
    if channels:
        features = (smooth_noise(generator, 1, channels, *shape), smooth_noise(generator, 1, channels, *shape))
    start = smooth_noise(generator, 1, 3, *shape, size=size)
    weight = (torch.rand(1, 1, *shape, generator=generator) * 2 - 0.5).clamp(0, 1) if weighted else None
    compared = Compared(features, images, weight)
    exact = start.double().requires_grad_(True)
    loss = energy(SMOOTHING(exact), compared.each(torch.Tensor.double), config)
    (expected,) = torch.autograd.grad(loss, exact)
    value, gradient = energy_gradient(Inputs.of(compared, start, config), start[0].numpy(), smoothing=SMOOTHING)
    assert value == pytest.approx(loss.item(), rel=1e-5)
    assert np.linalg.norm(gradient - expected[0].numpy()) < 1e-4 * float(expected.norm())


@each_shape
def test_refinement_by_correlation_is_that_of_plain_torch(shape, generator, monkeypatch):
    fixed, moving = (smooth_noise(generator, 1, 1, *shape) for _ in range(2))
    start = smooth_noise(generator, 1, 3, *shape, size=2.0)
    config = RefineConfig(steps=5, learning_rate=0.02)
    assert_same(monkeypatch, lambda: refine(Compared(None, (fixed, moving)), start, config)[0], relative=1e-4)


def test_refinement_by_correlation_finds_a_shift_under_a_bias_field(generator):
    shape = (26, 22, 30)
    moving = smooth_noise(generator, 1, 1, *shape)
    shift = torch.tensor([0.8, -0.6, 0.5]).view(1, 3, 1, 1, 1).expand(1, 3, *shape)
    bias = torch.linspace(0.5, 2.0, shape[0]).view(1, 1, -1, 1, 1)
    fixed = bias * warp(moving, shift)
    found, losses = refine(Compared(None, (fixed, moving)), torch.zeros(1, 3, *shape), RefineConfig(learning_rate=0.2))
    inner = (found - shift)[:, :, 4:-4, 4:-4, 4:-4].norm(dim=1)
    assert losses[-1] < 0.2 * losses[0]
    assert float(inner.mean()) < 0.15


def test_equal_images_stay_where_they_are_however_flat(generator):
    """A noise floor that lowered the correlation of flat windows would draw contrast into them."""
    image = 0.02 * smooth_noise(generator, 1, 1, 18, 21, 16)
    start = torch.zeros(1, 3, 18, 21, 16)
    exact = start.double().requires_grad_(True)
    compared = Compared(None, (image.double(), image.double()))
    (gradient,) = torch.autograd.grad(energy(exact, compared, RefineConfig()), exact)
    assert float(gradient.abs().max()) < 1e-9
    assert torch.equal(refine(Compared(None, (image, image)), start, RefineConfig(steps=10))[0], start)


def test_images_without_contrast_pull_nowhere(generator):
    flat = torch.full((1, 1, 9, 8, 11), 0.3)
    start = smooth_noise(generator, 1, 3, 9, 8, 11, size=1.0)
    found, losses = refine(Compared(None, (flat, flat)), start, RefineConfig(steps=3, regularisation=0.0))
    assert torch.isfinite(found).all()
    assert losses[0] == pytest.approx(losses[-1])


def test_contrast_weight_against_a_loop_over_windows(generator):
    image = 0.02 * smooth_noise(generator, 1, 1, 5, 7, 6)
    found, values = contrast_weight(image.double())[0, 0], image[0, 0].double().numpy()
    for place in np.ndindex(values.shape):
        variance = values[tuple(slice(max(0, n - 2), n + 3) for n in place)].var()
        assert float(found[place]) == pytest.approx(variance / (variance + FLAT), abs=1e-9)


def test_contrast_weight_is_0_in_flat_regions_and_nearly_1_at_edges():
    image = torch.zeros(1, 1, 20, 9, 7)
    image[:, :, 10:] = 0.5
    weight = contrast_weight(image)
    assert float(weight[:, :, :8].max()) == float(weight[:, :, 12:].max()) == 0
    assert float(weight[:, :, 9:11].min()) > 0.98


def test_agreement_tells_one_contrast_from_another(generator):
    """The same anatomy under a bias field; inverted; and other anatomy."""
    image, other = (10 * smooth_noise(generator, 1, 1, 14, 17, 15) for _ in range(2))
    bias = torch.linspace(0.7, 1.4, 14).view(1, 1, -1, 1, 1)
    assert contrast_agreement(image, bias * image + 3) > 0.9
    assert contrast_agreement(image, -bias * image) < -0.9
    assert abs(contrast_agreement(image, other)) < 0.3


def test_agreement_counts_weighted_voxels_alone(generator):
    image, other = (10 * smooth_noise(generator, 1, 1, 20, 12, 14) for _ in range(2))
    half = torch.arange(20).view(1, 1, -1, 1, 1) < 10
    weight = half.expand(image.shape).float()
    assert contrast_agreement(image, torch.where(half, image, other), weight=weight) > 0.8


def scene(generator):
    """Tissues from 0.2 to 1.2 in a body of 32 x 24 x 28 voxels with air around; and the body."""
    body = torch.zeros(1, 1, 44, 36, 40)
    body[..., 6:38, 6:30, 6:34] = 1
    tissue = 3 * smooth_noise(generator, 1, 1, 44, 36, 40)
    tissue = (tissue - tissue.min()) / (tissue.max() - tissue.min())
    return body * (0.2 + tissue), body


def test_linearity_of_functions_of_one_image(generator):
    image, body = scene(generator)
    assert linearity(image, body * (3 * image + 1), body) == pytest.approx(1, abs=0.02)
    assert linearity(image, body * (2 - image), body) == pytest.approx(-1, abs=0.02)
    middle = image[body > 0].median()
    assert abs(linearity(image, body * (image - middle).abs(), body)) < 0.3


def test_linearity_outlives_a_shift_and_noise(generator):
    image, body = scene(generator)
    noise = 0.1 * torch.randn(image.shape, generator=generator)
    shifted = 2 * image.roll((2, 1), (2, 4)) + noise
    both = body * body.roll((2, 1), (2, 4))
    assert torch.corrcoef(torch.stack([image[both > 0], shifted[both > 0]]))[0, 1] < 0.8
    assert linearity(image, shifted, both) > 0.85


def test_linearity_leaves_out_the_border_of_the_body_where_all_scans_agree(generator):
    image, body = scene(generator)
    other = body * (3.2 - image)
    assert contrast_agreement(image, other) > 0.5
    assert linearity(image, other, body) < -0.9


def test_linearity_of_what_has_no_contrast_is_0():
    flat = torch.ones(1, 1, 12, 14, 13)
    assert linearity(flat, flat, flat) == linearity(flat, flat, 0 * flat) == 0
