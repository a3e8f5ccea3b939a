"""Recipes."""

import pytest

from corereg.errors import InputError
from corereg.settings import as_settings, with_settings
from corereg.training.config import TrainConfig
from corereg.training.recipes import RECIPES, get_recipe


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_a_recipe_survives_its_own_file(name):
    config = get_recipe(name)
    assert with_settings(TrainConfig(), as_settings(config)) == config


def test_the_papers_recipes_are_the_papers():
    abdomen, chest = get_recipe("abdomen-ct"), get_recipe("chest-ct")
    for config in (abdomen, chest):
        assert (config.cycles, config.steps_per_cycle, config.batch_size) == (8, 1000, 2)
        assert (config.passes, config.network.strides) == ((8, 8), (8,))
        assert (config.learning_rate, config.final_learning_rate) == (1e-3, 1e-5)
        assert (config.pseudo_labels.refine.regularisation, config.pseudo_labels.refine.learning_rate) == (1, 1)
        assert (config.contrast.points, config.contrast.temperature, config.contrast.weight) == (1000, 0.1, 10)
        assert (config.contrast.negatives, config.contrast.negatives_from) == ("both", "image")
        assert config.pseudo_labels.pairs is None
    assert (abdomen.pairing, chest.pairing) == ("inter", "intra")
    assert (abdomen.spacing_mm, chest.spacing_mm) == (2.0, 1.5)


def test_an_unknown_recipe():
    with pytest.raises(InputError, match="abdomen-ct"):
        get_recipe("abdomen")
