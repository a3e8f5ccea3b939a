"""Recipes."""

import pytest

from corereg.data.pairs import read_dataset
from corereg.errors import InputError
from corereg.settings import as_settings, with_settings
from corereg.training.config import TrainConfig
from corereg.training.recipes import RECIPES, get_recipe
from helpers.layouts import learn2reg, named, pair, scan_names


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


def test_thorax_cbct_trains_on_the_pairs_of_its_data_set_alone(tmp_path):
    """Modalities and direction as in ThoraxCBCT_dataset.json: both cone-beam CTs onto the CT; case 2 validates."""
    names = [name for modality in (0, 1, 2) for name in scan_names([1, 2], modality)]
    trained, validated = (
        [pair(f"Task_{case:04d}_{fixed:04d}", f"Task_{case:04d}_0000") for fixed in (1, 2)] for case in (1, 2)
    )
    learn2reg(
        tmp_path,
        names,
        pairings="paired",
        registration_direction={"fixed": 1, "moving": 0},
        training_paired_images=trained,
        registration_val=validated,
    )
    dataset = read_dataset(tmp_path, pairing=get_recipe("thorax-cbct").pairing)
    assert named(dataset, dataset.training) == [(f"Task_0001_000{fixed}", "Task_0001_0000") for fixed in (1, 2)]
    assert named(dataset, dataset.validation) == [(f"Task_0002_000{fixed}", "Task_0002_0000") for fixed in (1, 2)]


def test_nlst_pairs_the_scans_of_a_patient(tmp_path):
    learn2reg(tmp_path, [*scan_names([1, 2], 0), *scan_names([1, 2], 1)])
    dataset = read_dataset(tmp_path, pairing=get_recipe("nlst").pairing)
    assert sorted(named(dataset, dataset.training)) == [
        (f"Task_000{case}_0000", f"Task_000{case}_0001") for case in (1, 2)
    ]


def test_an_unknown_recipe():
    with pytest.raises(InputError, match="abdomen-ct"):
        get_recipe("abdomen")
