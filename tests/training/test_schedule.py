"""Learning rate, contrast weight and seeds over the cycles of a run."""

import math
from itertools import pairwise, product

import pytest

from corereg.settings import with_settings
from corereg.training.config import TrainConfig
from corereg.training.schedule import DRAW, LABELLER, PAIRS, VIEWS, WEIGHTS, contrast_weight, learning_rate, seed_at

RUN = with_settings(TrainConfig(), {"cycles": 4, "steps_per_cycle": 100})


def test_the_learning_rate_falls_along_a_cosine_and_restarts_with_every_cycle() -> None:
    rates = [learning_rate(RUN, step) for _ in range(RUN.cycles) for step in range(RUN.steps_per_cycle)]
    assert rates[:100] == rates[100:200] == rates[200:300] == rates[300:]
    assert rates[0] == pytest.approx(1e-3)
    assert rates[50] == pytest.approx((1e-3 + 1e-5) / 2)
    for step in (1, 25, 99):
        expected = 1e-5 + 0.5 * (1e-3 - 1e-5) * (1 + math.cos(math.pi * step / 100))
        assert rates[step] == pytest.approx(expected)
    assert all(later < earlier for earlier, later in pairwise(rates[:100]))


@pytest.mark.parametrize(
    ("decay", "at"),
    [("run", {(0, 0): 10, (1, 0): 7.5, (2, 50): 3.75}), ("cycle", {(0, 0): 10, (1, 0): 10, (2, 50): 5}),
     ("none", {(0, 0): 10, (3, 99): 10})],
)  # fmt: skip
def test_lambda_falls_over_the_run_over_each_cycle_or_stays(decay: str, at: dict[tuple[int, int], float]) -> None:
    config = with_settings(RUN, {"contrast.decay": decay})
    assert {place: contrast_weight(config, *place) for place in at} == pytest.approx(at)


def test_every_stream_and_position_has_its_own_seed() -> None:
    streams = (DRAW, VIEWS, PAIRS, LABELLER, WEIGHTS)
    seeds = [seed_at(RUN, stream, cycle, step) for stream, cycle, step in product(streams, range(4), range(25))]
    assert len(set(seeds)) == len(seeds)
    assert seeds == [seed_at(RUN, *place) for place in product(streams, range(4), range(25))]
    other = with_settings(RUN, {"seed": 1})
    assert not set(seeds) & {seed_at(other, *place) for place in product(streams, range(4), range(25))}
