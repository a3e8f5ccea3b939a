"""Velocity fields: exact flows, float64 gradients, invertibility."""

import numpy as np
import pytest
import torch
from scipy import linalg

from corereg.geometry.displacement import compose, jacobian_determinant
from corereg.geometry.kernels.dispatch import KERNELS_VARIABLE
from corereg.geometry.velocity import exponential, logarithm
from corereg.geometry.warp import identity_coords
from helpers.velocities import SHAPE, smooth_field


@pytest.fixture(params=["numba", "torch"])
def kernels(request, monkeypatch):
    monkeypatch.setenv(KERNELS_VARIABLE, request.param)


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
