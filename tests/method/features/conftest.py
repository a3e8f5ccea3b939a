"""A small network."""

import pytest

from corereg.method.features.network import ConvNetModel, fill_statistics, random_model
from helpers.networks import SMALL, volume


@pytest.fixture
def model() -> ConvNetModel:
    made = random_model(5, SMALL)
    fill_statistics(made, [volume()])
    return made
