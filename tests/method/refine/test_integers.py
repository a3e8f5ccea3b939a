"""Features as integers, which the refinement compares."""

import numpy as np
import pytest
import torch
from torch import Tensor

from corereg.errors import InputError
from corereg.method.refine.integers import LARGEST, as_integers


def noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(7))


@pytest.mark.parametrize("channels", [1, 13, 32, 33])
def test_integers_are_within_half_a_unit(channels):
    fixed, moving = (noise(n, 4, 5, channels).numpy() for n in (3, 6))
    (first, second), unit = as_integers(fixed, moving)
    assert max(np.abs(first).max(), np.abs(second).max()) == LARGEST
    for counted, features in ((first, fixed), (second, moving)):
        rows = counted.reshape(-1, counted.size // (features.size // channels))
        assert np.abs(unit * rows[:, :channels] - features.reshape(-1, channels)).max() <= 0.51 * unit
        assert not rows[:, channels:].any()


def test_features_of_zero_are_zero():
    (first, second), unit = as_integers(*(np.zeros((2, 3, 4, 5), np.float32) for _ in range(2)))
    assert not first.any()
    assert not second.any()
    assert unit > 0


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_features_are_refused(value):
    fixed, moving = (np.ones((2, 3, 4, 5), np.float32) for _ in range(2))
    moving[1, 2, 0, 3] = value
    with pytest.raises(InputError, match=r"got network features up to .*expected finite"):
        as_integers(fixed, moving)
