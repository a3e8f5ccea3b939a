"""Velocity fields and the refinement over them: exact flows, float64 gradients, invertibility."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import linalg, ndimage

from corereg.geometry.displacement import compose, jacobian_determinant
from corereg.geometry.kernels.dispatch import KERNELS_VARIABLE
from corereg.geometry.velocity import exponential, logarithm
from corereg.geometry.warp import identity_coords
from corereg.method.refine.energy import Compared, RefineConfig
from corereg.method.refine.optimise import refine
from corereg.method.refine.velocity import refine_velocity, velocity_energy

SHAPE = (18, 23, 16)


@pytest.fixture(params=["numba", "torch"])
def kernels(request, monkeypatch):
    monkeypatch.setenv(KERNELS_VARIABLE, request.param)


def smooth_field(seed: int, size: float, *, sigma: float = 3.0, channels: int = 3, shape=SHAPE) -> torch.Tensor:
    """Gaussian-filtered noise whose largest component is `size`."""
    noise = np.random.default_rng(seed).normal(size=(1, channels, *shape))
    smooth = ndimage.gaussian_filter(noise, (0, 0, sigma, sigma, sigma))
    return torch.as_tensor(size * smooth / np.abs(smooth).max(), dtype=torch.float32)


def test_flow_of_a_linear_velocity_is_the_matrix_exponential(kernels):
    """v(x) = A (x - c) moves x to c + expm(A) (x - c)."""
    matrix = np.array([[0.05, -0.20, 0.0], [0.16, -0.08, 0.05], [0.0, 0.1, 0.04]])
    offsets = identity_coords(SHAPE, like=torch.zeros(0, dtype=torch.float64)).numpy() - np.reshape(
        [(n - 1) / 2 for n in SHAPE], (1, 3, 1, 1, 1)
    )
    velocity, expected = (
        torch.as_tensor(np.einsum("ac,ncxyz->naxyz", m, offsets), dtype=torch.float32)
        for m in (matrix, linalg.expm(matrix) - np.eye(3))
    )
    inner = (..., *(slice(5, -5),) * 3)
    assert expected[inner].abs().max() > 1
    assert (exponential(velocity) - expected)[inner].abs().max() < 0.02


def test_gradient_of_the_flow_against_float64():
    velocity = smooth_field(0, 6.0).requires_grad_()
    weights = smooth_field(1, 1.0, sigma=0.5)
    (ours,) = torch.autograd.grad((exponential(velocity) * weights).sum(), velocity)
    exact = velocity.detach().double().requires_grad_()
    (expected,) = torch.autograd.grad((exponential(exact) * weights.double()).sum(), exact)
    assert (ours - expected).norm() < 1e-4 * expected.norm()


def test_flowing_back_is_the_inverse_and_nothing_folds(kernels):
    velocity = smooth_field(2, 8.0, sigma=4.0, shape=(36, 41, 30))
    forward, backward = exponential(velocity), exponential(-velocity)
    inner = (..., *(slice(8, -8),) * 3)  # at the rim the flow leaves the grid
    error = compose(backward, forward).norm(dim=1)[inner]
    assert forward.norm(dim=1).max() > 5
    assert error.mean() < 0.1
    assert jacobian_determinant(forward).min() > 0


def test_logarithm_gives_the_velocity_back(kernels):
    velocity = smooth_field(3, 3.0, sigma=4.0, shape=(36, 41, 30))
    found = logarithm(exponential(velocity), exponential(-velocity))
    inner = (..., *(slice(6, -6),) * 3)
    assert (exponential(found) - exponential(velocity))[inner].norm(dim=1).mean() < 0.1


def compared(seed: int, channels: int = 5, *, weighted: bool = False) -> list[Compared]:
    fixed, moving = (smooth_field(seed + n, 1.0, sigma=2.0, channels=channels) for n in range(2))
    weights = [None, None]
    if weighted:
        weights = [smooth_field(seed + 7 + n, 1.0, sigma=2.0, channels=1).abs() for n in range(2)]
    return [Compared(fixed, moving, weights[0]), Compared(moving, fixed, weights[1])]


@pytest.mark.parametrize("weighted", [False, True])
def test_gradient_of_the_energy_against_float64(weighted):
    velocity = smooth_field(4, 4.0).requires_grad_()
    both_ways = compared(10, weighted=weighted)
    loss = velocity_energy(velocity, both_ways, RefineConfig(regularisation=2.0))
    (ours,) = torch.autograd.grad(loss, velocity)
    exact = velocity.detach().double().requires_grad_()
    in_double = [Compared(*(None if t is None else t.double() for t in way)) for way in both_ways]
    expected_loss = velocity_energy(exact, in_double, RefineConfig(regularisation=2.0))
    (expected,) = torch.autograd.grad(expected_loss, exact)
    assert loss.item() == pytest.approx(expected_loss.item(), rel=1e-5)
    assert (ours - expected).norm() < 1e-4 * expected.norm()


def test_refinement_stays_invertible_where_a_displacement_folds(kernels):
    """Two images that have nothing in common, and little regularisation."""
    both_ways = compared(20)
    config = RefineConfig(steps=25, learning_rate=0.3, regularisation=8.0)
    start = torch.zeros(1, 3, *SHAPE)
    torn, _ = refine(both_ways[0].fixed, both_ways[0].moving, start, config)
    velocity, losses = refine_velocity(both_ways, start, replace(config, parametrisation="diffeomorphic"))
    assert losses[-1] < 0.8 * losses[0]
    assert jacobian_determinant(torn).min() < 0
    assert jacobian_determinant(exponential(velocity)).min() > 0


def test_unknown_parametrisation_is_refused():
    with pytest.raises(ValueError, match="displacement, diffeomorphic"):
        RefineConfig(parametrisation="spline")
