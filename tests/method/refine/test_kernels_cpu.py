"""The compiled refinement against plain torch."""

import math

import numpy as np
import pytest
import torch

from corereg.geometry.kernels.dispatch import KERNELS_VARIABLE
from corereg.method.config import RefineConfig
from corereg.method.refine.energy import DATA_WEIGHT, DIFFUSION_WEIGHT, FEATURE_SCALE, Compared, energy
from corereg.method.refine.optimise import refine
from corereg.method.refine.schedule import Smoothing
from helpers.kernels import FAR, assert_same, each_shape, smooth_noise

pytest.importorskip("numba")

SMOOTHING = Smoothing(3, reach=2)


def energy_problem(generator: torch.Generator, shape: tuple[int, ...], channels: int, *, size: float, weighted: bool):
    fixed, moving = (smooth_noise(generator, 1, channels, *shape) for _ in range(2))
    weight = (torch.rand(1, 1, *shape, generator=generator) * 2 - 0.5).clamp(0, 1) if weighted else None
    return fixed, moving, smooth_noise(generator, 1, 3, *shape, size=size), weight


@each_shape
@pytest.mark.parametrize("channels", [3, 12, 16, 32])
@pytest.mark.parametrize("size", [3.0, FAR])
@pytest.mark.parametrize(("weighted", "preserved"), [(False, 0.0), (False, 3.0), (True, 3.0)])
def test_energy_gradient_against_float64(shape, channels, size, weighted, preserved, generator):
    from corereg.method.refine.inputs import Factors, Inputs
    from corereg.method.refine.kernels_cpu import energy_gradient

    config = RefineConfig(regularisation=2.0, volume_preservation=preserved)

    fixed, moving, disp_vox, weight = energy_problem(generator, shape, channels, size=size, weighted=weighted)
    exact = disp_vox.double().requires_grad_(True)
    loss = energy(SMOOTHING(exact), Compared((fixed.double(), moving.double()), weight=weight), config)
    (expected,) = torch.autograd.grad(loss, exact)
    counted = fixed[0, 0].numel() if weight is None else float(weight.sum())
    data = DATA_WEIGHT * FEATURE_SCALE**2 / (channels * counted)
    smooth = tuple(2.0 * DIFFUSION_WEIGHT / disp_vox.diff(dim=axis).numel() for axis in (2, 3, 4))
    volume = 2.0 * DIFFUSION_WEIGHT * preserved / max(math.prod(n - 2 for n in shape), 1)
    last = tuple(f[0].permute(1, 2, 3, 0).contiguous().numpy() for f in (fixed, moving))
    inputs = Inputs(last, None, None if weight is None else weight[0, 0].numpy(), Factors(data, smooth, volume))
    value, gradient = energy_gradient(inputs, disp_vox[0].numpy(), smoothing=SMOOTHING)
    assert value == pytest.approx(loss.item(), rel=1e-5)
    assert np.linalg.norm(gradient - expected[0].numpy()) < 1e-4 * float(expected.norm())


@each_shape
@pytest.mark.parametrize("weighted", [False, True])
def test_refine_with_small_steps(shape, weighted, generator, monkeypatch):
    fixed, moving, start, weight = energy_problem(generator, shape, 12, size=2.0, weighted=weighted)
    # Rounding grows in these steps: with R = 3.5, one of four seeds differs by 2e-4 between the two paths.
    config = RefineConfig(steps=5, learning_rate=0.02, regularisation=3.0)
    assert_same(monkeypatch, lambda: refine(Compared((fixed, moving), weight=weight), start, config)[0], relative=1e-4)


@each_shape
def test_refine_of_a_batch(shape, generator, monkeypatch):
    fixed, moving = (smooth_noise(generator, 2, 5, *shape) for _ in range(2))
    start = torch.full((2, 3, *shape), 0.3)  # on the voxels themselves torch's rounding picks the side of the slope

    def run():
        disp_vox, losses = refine(
            Compared((fixed, moving)), start, RefineConfig(steps=3, learning_rate=0.02, smoothing=1)
        )
        return disp_vox, torch.tensor(losses)

    # Adam divides by the gradient's size, so that the features' rounding counts where it nearly vanishes.
    assert_same(monkeypatch, run, relative=3e-4)


@each_shape
def test_refine_reaches_the_same_energy(shape, generator, monkeypatch):
    fixed, moving, start, _ = energy_problem(generator, shape, 12, size=2.0, weighted=False)
    last = {}
    for choice in ("torch", "numba"):
        monkeypatch.setenv(KERNELS_VARIABLE, choice)
        last[choice] = refine(Compared((fixed, moving)), start, RefineConfig(steps=50))[1][-1]
    assert last["numba"] == pytest.approx(last["torch"], rel=3e-3)  # few voxels of noise, where rounding grows fast
