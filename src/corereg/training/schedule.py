"""What a step of training takes from its position in the run alone: chance, learning rate, the contrast's weight.

Nothing here has a state, so that a resumed run continues exactly as if it had not stopped.
"""

import math

import numpy as np

from corereg.training.config import TrainConfig

__all__ = ["DRAW", "LABELLER", "PAIRS", "VIEWS", "WEIGHTS", "contrast_weight", "learning_rate", "seed_at"]

DRAW, VIEWS, PAIRS, LABELLER, WEIGHTS = range(5)
"""Independent streams of random numbers."""


def seed_at(config: TrainConfig, stream: int, *position: int) -> int:
    """Seed of a stream at a position in the run."""
    sequence = np.random.SeedSequence((config.seed, stream, *position))
    return int(sequence.generate_state(1, np.uint64)[0] >> 1)


def learning_rate(config: TrainConfig, step: int) -> float:
    """Cosine annealing within a cycle, with a warm restart at every cycle."""
    high, low = config.learning_rate, config.final_learning_rate
    return low + (high - low) * (1 + math.cos(math.pi * step / config.steps_per_cycle)) / 2


def contrast_weight(config: TrainConfig, cycle: int, step: int) -> float:
    """lambda of equation 4: falls linearly to zero over the run or over each cycle, or stays."""
    within = step / config.steps_per_cycle
    done = {"run": (cycle + within) / config.cycles, "cycle": within, "none": 0.0}
    return config.contrast.weight * (1 - done[config.contrast.decay])
