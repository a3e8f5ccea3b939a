"""The descent finds minima that are known, from few evaluations, whatever the first step does."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import minimize

from corereg.method.affine.descent import descend

Array = NDArray[np.float64]


def _bowl(parameters: Array) -> tuple[float, Array]:
    """Least at (1, 2, 3, 4), with curvatures from 0.1 to 30 along directions that are not the axes."""
    turned, _ = np.linalg.qr(np.random.default_rng(0).standard_normal((4, 4)))
    curves = turned @ np.diag([0.1, 1.0, 5.0, 30.0]) @ turned.T
    apart = parameters - np.arange(1.0, 5.0)
    return float(apart @ curves @ apart) / 2, curves @ apart


def _valley(parameters: Array) -> tuple[float, Array]:
    """Rosenbrock's curved valley, least at (1, 1)."""
    x, y = parameters
    slopes = np.array([-400 * x * (y - x**2) - 2 * (1 - x), 200 * (y - x**2)])
    return float(100 * (y - x**2) ** 2 + (1 - x) ** 2), slopes


@pytest.mark.parametrize(("loss", "least"), [(_bowl, np.arange(1.0, 5.0)), (_valley, np.ones(2))])
def test_minimum_is_found_with_no_more_evaluations_than_scipy_needs(loss: object, least: Array) -> None:
    calls = 0

    def counted(parameters: Array) -> tuple[float, Array]:
        nonlocal calls
        calls += 1
        return loss(parameters)  # type: ignore[operator,no-any-return]

    found, value = descend(counted, least.size, iterations=100, slope=1e-6, gain=0.0)
    theirs = minimize(loss, np.zeros(least.size), jac=True, method="BFGS", options={"gtol": 1e-6})
    np.testing.assert_allclose(found, least, atol=1e-5)
    assert value == pytest.approx(0, abs=1e-9)
    assert calls <= 1.3 * theirs.nfev


def test_steps_that_gain_little_end_the_search_near_the_minimum() -> None:
    found, value = descend(_bowl, 4, iterations=100, slope=0.0, gain=0.01)
    assert 0 < value < 0.02
    assert not np.allclose(found, np.arange(1.0, 5.0), atol=1e-6)


def test_search_stays_out_of_a_wall_and_stops_where_it_is_asked_to() -> None:
    def walled(parameters: Array) -> tuple[float, Array]:
        return _bowl(parameters) if parameters.sum() < 9 else (1e4, np.zeros(4))

    assert descend(walled, 4, iterations=100, slope=1e-6, gain=0.0)[0].sum() < 9
    early, _ = descend(_bowl, 4, iterations=100, slope=1e-6, gain=0.0, stop=lambda found: bool(found.sum() > 1))
    assert 1 < early.sum() < 9.9


def test_place_without_a_slope_is_returned_as_it_is() -> None:
    found, value = descend(lambda parameters: (1e4, np.zeros(3)), 3, iterations=5, slope=0.1, gain=0.0)
    assert value == 1e4
    assert not found.any()
