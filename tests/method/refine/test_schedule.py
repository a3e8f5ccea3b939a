"""The steps that the kernels are given, against torch.optim.Adam."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from corereg.method.config import RefineConfig, paper_refine
from corereg.method.refine.schedule import EPSILON, Schedule, betas, learning_rate


@pytest.mark.parametrize("config", [RefineConfig(), paper_refine(), RefineConfig(steps=7, momentum=0.0, settling=1.0)])
def test_steps_are_those_of_torch_s_adam_with_the_falling_rate(config):
    gradients = np.random.default_rng(0).standard_normal((config.steps, 5))
    parameters = torch.zeros(5, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.Adam([parameters], betas=betas(config))
    ours, mean, square = np.zeros(5), np.zeros(5), np.zeros(5)
    schedule = Schedule.of(config)
    for step, (gradient, (size, correction)) in enumerate(zip(gradients, schedule.rates, strict=True)):
        optimiser.param_groups[0]["lr"] = learning_rate(config, step)
        parameters.grad = torch.from_numpy(gradient)
        optimiser.step()
        mean = schedule.betas[0] * mean + (1 - schedule.betas[0]) * gradient
        square = schedule.betas[1] * square + (1 - schedule.betas[1]) * gradient**2
        ours -= size * mean / (np.sqrt(square) * correction + EPSILON)
    assert_allclose(ours, parameters.detach().numpy(), rtol=1e-12)


def test_the_rate_holds_and_then_falls_towards_zero():
    config = RefineConfig(steps=10, learning_rate=0.5, settling=0.4)
    rates = [learning_rate(config, step) for step in range(10)]
    assert rates == pytest.approx([0.5] * 7 + [0.375, 0.25, 0.125])
    assert [learning_rate(replace(config, settling=0.0), step) for step in range(10)] == [0.5] * 10


def test_no_steps_give_no_rates():
    assert Schedule.of(RefineConfig(steps=0)).rates == []
