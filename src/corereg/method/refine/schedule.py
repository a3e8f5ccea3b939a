"""The steps of Adam that the instance optimisation makes: decay rates and learning rate, in the form that kernels take.

Adam averages over about ten gradients by default. From a start near the optimum, averaging over three and a learning
rate that falls at the end reach the same overlap in half the steps: benchmarks/history/refine-speed.md.
Downstream: optimise, velocity.
"""

from collections.abc import Sequence
from typing import NamedTuple

from corereg.method.config import RefineConfig

__all__ = ["EPSILON", "Schedule", "betas", "learning_rate"]

SQUARES, EPSILON = 0.999, 1e-8
"""Decay rate of the mean square of the gradient, and what is added to its root, as in torch.optim.Adam. Rates of 0.9
and 0.99 give the same accuracy."""


class Schedule(NamedTuple):
    """All steps of one optimisation."""

    rates: Sequence[tuple[float, float]]
    """The size of each step, and 1 / sqrt of the bias correction of the mean square."""
    betas: tuple[float, float]
    """Decay rates of the means of the gradient and of its square."""

    @staticmethod
    def of(config: RefineConfig) -> "Schedule":
        """The configured steps."""
        mean, square = betas(config)
        rates = [
            (learning_rate(config, step) / (1 - mean ** (step + 1)), (1 - square ** (step + 1)) ** -0.5)
            for step in range(config.steps)
        ]
        return Schedule(rates, (mean, square))


def betas(config: RefineConfig) -> tuple[float, float]:
    """The two decay rates, as torch.optim.Adam takes them."""
    return config.momentum, SQUARES


def learning_rate(config: RefineConfig, step: int) -> float:
    """The learning rate of a step, counted from 0: constant, then falling linearly towards 0 over `config.settling`."""
    falling = config.settling * config.steps
    return config.learning_rate * min(1.0, (config.steps - step) / falling if falling else 1.0)
