"""Points that a user gives."""

from typing import Any

import numpy as np
import pytest
import torch

from corereg.errors import InputError
from corereg.geometry.positions import finite_points

NUMBERS = [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]


@pytest.mark.parametrize("points", [NUMBERS, np.float32(NUMBERS), torch.tensor(NUMBERS, requires_grad=True)])
def test_points_of_any_kind_are_read(points: Any) -> None:
    assert np.array_equal(finite_points(points), NUMBERS)


@pytest.mark.parametrize(
    ("points", "words"),
    [
        ([["1", "2", "3"]], "no array of real numbers"),
        ([[1.0, 2.0, 3.0], [4.0, 5.0]], "no array of real numbers"),
        (np.array(NUMBERS) + 1j, "no array of real numbers"),
        (np.ma.masked_greater(NUMBERS, 5), "1 points with NaN, infinite or masked"),
        ([[1.0, np.inf, 3.0]], "1 points with NaN, infinite or masked"),
        (np.transpose(NUMBERS), "expected (..., 3)"),
    ],
)
def test_points_that_are_none_are_refused(points: Any, words: str) -> None:
    with pytest.raises(InputError) as error:
        finite_points(points)
    assert words in str(error.value)
