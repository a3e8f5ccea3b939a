"""Refinement in the box outside which nothing pulls, against the whole grid."""

import numpy as np
import pytest
import torch

from corereg.geometry.kernels.dispatch import KERNELS_VARIABLE
from corereg.method.config import RefineConfig
from corereg.method.refine.active import DRIFT_VOX, MARGIN, active_box, continued
from corereg.method.refine.energy import Compared, data_energy
from corereg.method.refine.inputs import Inputs
from corereg.method.refine.optimise import refine
from corereg.method.refine.schedule import Smoothing
from helpers.kernels import smooth_noise

pytest.importorskip("numba")

SHAPE, BODY = (40, 30, 52), (slice(22, 40), slice(3, 14), slice(20, 41))
"""The body touches one face of the grid and lies off its middle along the other axes."""


def in_the_body(generator: torch.Generator, channels: int) -> torch.Tensor:
    values = torch.zeros(1, channels, *SHAPE)
    values[(..., *BODY)] = 0.5 + smooth_noise(generator, 1, channels, *values[(..., *BODY)].shape[2:])
    return values


@pytest.fixture
def problem(generator):
    """Images and features of a body in the air, and a weight that counts all but its last planes along i."""
    weight = torch.zeros(1, 1, *SHAPE)
    weight[(..., *BODY)] = 1
    weight[..., 36:, :, :] = 0
    features, images = ([in_the_body(generator, n) for _ in range(2)] for n in (5, 1))
    return Compared(tuple(features), tuple(images), weight), 0.3 + smooth_noise(generator, 1, 3, *SHAPE, size=3)


def test_box_holds_what_counts_and_room_for_the_windows(problem):
    compared, start = problem
    expected = [(22, 36), (3, 14), (20, 41)]
    box = active_box(compared._replace(images=None), start)
    assert [(side.start, side.stop) for side in box] == [
        (max(a - MARGIN, 0), min(b + MARGIN, size)) for (a, b), size in zip(expected, SHAPE, strict=True)
    ]


def test_box_holds_what_stands_out_in_either_image(problem):
    compared, _ = problem
    fixed, moving = compared.images
    shift = torch.zeros(1, 3, *SHAPE)
    shift[:, 2] = 4.0  # the moving body's match lies 4 voxels before it along k
    both = active_box(Compared(None, (fixed, moving)), shift)[2]
    expected = max(20 - 1 - 4 - DRIFT_VOX - MARGIN, 0), min(41 + 1 - 4 + DRIFT_VOX + MARGIN, SHAPE[2])
    assert (both.start, both.stop) == expected
    alone = active_box(Compared(None, (fixed, torch.full_like(moving, 0.5))), shift)[2]
    assert (alone.start, alone.stop) == (20 - 1 - MARGIN, 41 + 1 + MARGIN)


def test_noise_everywhere_takes_the_whole_grid(generator):
    images = smooth_noise(generator, 1, 1, *SHAPE), smooth_noise(generator, 1, 1, *SHAPE)
    assert active_box(Compared(None, images), torch.zeros(1, 3, *SHAPE)) is None


def test_gradient_in_the_box_is_that_of_the_whole_grid_in_float64(problem):
    from corereg.method.refine.kernels_cpu import energy_gradient

    compared, start = problem
    exact = start.double().requires_grad_(True)
    energy = data_energy(exact, compared.each(torch.Tensor.double))
    (expected,) = torch.autograd.grad(energy, exact)
    box = active_box(compared, start)
    inputs = Inputs.of(compared, start, RefineConfig(regularisation=0.0)).within(box)
    value, gradient = energy_gradient(inputs, start[(..., *box)][0].contiguous().numpy(), smoothing=Smoothing(0))
    outside = expected.clone()
    outside[(..., *box)] = 0
    assert float(outside.norm()) < 1e-4 * float(expected.norm())
    inside = expected[(..., *box)][0].numpy()
    assert np.linalg.norm(gradient - inside) < 1e-4 * np.linalg.norm(inside)
    assert value == pytest.approx(energy.item(), rel=1e-4)


def test_refinement_in_the_box_moves_the_body_as_on_the_whole_grid(problem, monkeypatch):
    compared, start = problem
    config = RefineConfig(steps=8, learning_rate=0.05)
    found = {}
    for choice in ("torch", "numba"):  # torch refines the whole grid
        monkeypatch.setenv(KERNELS_VARIABLE, choice)
        found[choice] = refine(compared, start, config)[0] - Smoothing.of(config)(start)
    moved, error = (each[(..., *BODY)] for each in (found["torch"], found["torch"] - found["numba"]))
    assert float(error.norm()) < 0.02 * float(moved.norm())


def test_change_at_the_faces_continues_outside(generator):
    start = smooth_noise(generator, 1, 3, 12, 9, 15, size=2)
    box = slice(2, 8), slice(0, 6), slice(5, 15)
    found = start[(..., *box)] + torch.arange(6.0).view(6, 1, 1)
    whole = continued(found, start, box)
    assert torch.equal(whole[(..., *box)], found)
    change = whole - start
    torch.testing.assert_close(change[:, :, :2], torch.zeros_like(change[:, :, :2]))
    torch.testing.assert_close(change[:, :, 8:], torch.full_like(change[:, :, 8:], 5.0))
    torch.testing.assert_close(change[:, :, 4, 8, 0], torch.full((1, 3), 2.0))
