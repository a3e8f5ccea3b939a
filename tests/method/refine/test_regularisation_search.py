"""The search for a regularisation that reaches a target smoothness."""

import pytest

from corereg.method.refine.regularisation_search import search_regularisation


def test_search_finds_the_regularisation_of_a_known_curve():
    tried = []

    def evaluate(r):
        tried.append(r)
        return 0.3 * r**-0.35, r

    r, outcome = search_regularisation(evaluate, target=0.07, start=1.0)
    assert abs(0.3 * r**-0.35 - 0.07) <= 0.005
    assert outcome == r
    assert len(tried) <= 8


def test_search_returns_the_closest_where_the_target_is_out_of_reach():
    r, _ = search_regularisation(lambda r: (0.02 / (1 + 1e-4 * r), None), target=0.5, start=10.0)
    assert r == pytest.approx(0.005)
