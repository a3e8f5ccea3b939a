"""The steps of Adam that the instance optimisation makes, decay rates and learning rate, and the smoothing between its
parameters and the displacement, in the form that kernels take.

Adam averages over about ten gradients by default. From a start near the optimum, averaging over three and a learning
rate that falls at the end reach the same overlap in half the steps: benchmarks/history/refine-speed.md.
Downstream: optimise, velocity.
"""

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from corereg.geometry.strided import box_mean
from corereg.method.config import RefineConfig

__all__ = ["EPSILON", "Schedule", "Smoothing", "betas", "learning_rate"]

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


class Smoothing(NamedTuple):
    """s, which makes a displacement of the parameters."""

    times: int
    """Number of 3x3x3 means."""
    reach: int = 0
    """See `strided.box_mean`. Voxels that far apart move together from the first step on, so a few steps bring a whole
    organ to its place; the narrow means leave room for detail: benchmarks/history/refine-speed.md."""

    @staticmethod
    def of(config: RefineConfig) -> "Smoothing":
        """The configured means."""
        return Smoothing(config.smoothing, config.reach)

    def __call__(self, volume: Tensor) -> Tensor:
        """The smoothed volume (B, C, I, J, K)."""
        return box_mean(volume, times=self.times, reach=self.reach)


def betas(config: RefineConfig) -> tuple[float, float]:
    """The two decay rates, as torch.optim.Adam takes them."""
    return config.momentum, SQUARES


def learning_rate(config: RefineConfig, step: int) -> float:
    """The learning rate of a step, counted from 0: constant, then falling linearly towards 0 over `config.settling`."""
    falling = config.settling * config.steps
    return config.learning_rate * min(1.0, (config.steps - step) / falling if falling else 1.0)
