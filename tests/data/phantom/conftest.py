"""Phantoms of every kind."""

import pytest

from corereg.data.phantom import BreathingPair
from helpers.phantoms import KINDS, Subject, pair_of, subject_of


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def subjects(kind: str) -> list[Subject]:
    return [subject_of(seed, kind) for seed in range(3)]


@pytest.fixture
def pair(kind: str) -> BreathingPair:
    return pair_of(kind)
