"""Refinement over velocities: float64 gradients and invertibility."""

from dataclasses import replace

import pytest
import torch

from corereg.geometry.displacement import jacobian_determinant
from corereg.geometry.kernels.dispatch import KERNELS_VARIABLE
from corereg.geometry.velocity import exponential
from corereg.method.config import RefineConfig
from corereg.method.refine.energy import Compared
from corereg.method.refine.optimise import refine
from corereg.method.refine.velocity import refine_velocity, velocity_energy
from corereg.settings import with_settings
from helpers.refusals import refusal
from helpers.velocities import SHAPE, smooth_field


@pytest.fixture(params=["numba", "torch"])
def kernels(request, monkeypatch):
    monkeypatch.setenv(KERNELS_VARIABLE, request.param)


def compared(seed: int, channels: int = 5, *, weighted: bool = False) -> list[Compared]:
    fixed, moving = (smooth_field(seed + n, 1.0, sigma=2.0, channels=channels) for n in range(2))
    weights = [None, None]
    if weighted:
        weights = [smooth_field(seed + 7 + n, 1.0, sigma=2.0, channels=1).abs() for n in range(2)]
    return [Compared((fixed, moving), weight=weights[0]), Compared((moving, fixed), weight=weights[1])]


@pytest.mark.parametrize("weighted", [False, True])
def test_gradient_of_the_energy_against_float64(weighted):
    velocity = smooth_field(4, 4.0).requires_grad_()
    both_ways = compared(10, weighted=weighted)
    loss = velocity_energy(velocity, both_ways, RefineConfig(regularisation=2.0))
    (ours,) = torch.autograd.grad(loss, velocity)
    exact = velocity.detach().double().requires_grad_()
    in_double = [way.each(torch.Tensor.double) for way in both_ways]
    expected_loss = velocity_energy(exact, in_double, RefineConfig(regularisation=2.0))
    (expected,) = torch.autograd.grad(expected_loss, exact)
    assert loss.item() == pytest.approx(expected_loss.item(), rel=1e-5)
    assert (ours - expected).norm() < 1e-4 * expected.norm()


def test_refinement_stays_invertible_where_a_displacement_folds(kernels):
    """Two images that have nothing in common, and little regularisation."""
    both_ways = compared(20)
    config = RefineConfig(steps=25, learning_rate=0.3, regularisation=8.0, smoothing=3, reach=0)
    start = torch.zeros(1, 3, *SHAPE)
    torn, _ = refine(Compared(both_ways[0].features), start, config)
    velocity, losses = refine_velocity(both_ways, start, replace(config, parametrisation="diffeomorphic"))
    assert losses[-1] < 0.8 * losses[0]
    assert jacobian_determinant(torn).min() < 0
    assert jacobian_determinant(exponential(velocity)).min() > 0


def test_unknown_parametrisation_is_refused() -> None:
    assert "diffeomorphic" in refusal(with_settings, RefineConfig(), {"parametrisation": "flow"})
