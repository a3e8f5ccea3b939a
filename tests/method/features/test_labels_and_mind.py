"""A label network combined with descriptors."""

from pathlib import Path

import pytest
import torch

from corereg.method import pipeline
from corereg.method.config import PipelineConfig, RefineConfig
from corereg.method.features import labels_and_mind
from corereg.method.features.label_network import LabelNetworkConfig, random_label_network
from corereg.method.features.labels_and_mind import CORRELATED_WEIGHT, COST_WEIGHT, HALF_WEIGHT, LabelsAndMind
from corereg.method.features.mind import CT_INTENSITY, MindModel
from corereg.method.features.model import FeatureModel
from corereg.method.features.model_file import load_model, save_model
from corereg.method.models import get_model
from corereg.method.pipeline import register_volumes
from corereg.method.refine.pair import Refined
from helpers.networks import volume

CONFIG = LabelNetworkConfig(labels=(2, 5, 9), channels=(4, 6), spacing_mm=3.0)


@pytest.fixture(scope="module")
def network():
    """Random, with labels that are as likely as the background."""
    made = random_label_network(CONFIG, seed=0)
    assert made.last.bias is not None
    made.last.bias.data.zero_()
    made.last.weight.data *= 20
    made.precision = "fp32"
    return made.eval()


def test_probabilities_of_the_labels_follow_the_descriptors_in_every_stage(network):
    image, descriptors = volume(), MindModel(intensity=CT_INTENSITY)
    model = LabelsAndMind(network, both_ct=True)
    assert isinstance(model, FeatureModel)
    found, mind = model.encode(image, (8, 4)), descriptors.encode(image, (8, 4))
    assert found.shallow is not None
    assert mind.shallow is not None
    for stage, described, weight in (
        (found.shallow, mind.shallow, HALF_WEIGHT),
        (found.cost[4], mind.cost[4], COST_WEIGHT),
        (found.cost[8], mind.cost[8], COST_WEIGHT),
    ):
        torch.testing.assert_close(stage[:, :13], described)
        chances = stage[:, 13:] / weight
        assert chances.shape[1] == 3
        assert chances.min() >= 0
        assert chances.sum(1).max() <= 1 + 1e-5
        assert chances.std() > 0.05


def test_labels_keep_their_say_on_the_full_grid_where_correlation_replaces_descriptors(network):
    image = volume()
    model = LabelsAndMind(network, both_ct=True)
    alone = model.fine(image, correlated=True)
    assert alone.shape == (1, 3, *image.shape[2:])
    assert float(alone.sum(1).max()) <= CORRELATED_WEIGHT * (1 + 1e-5)
    with_descriptors = model.fine(image)
    assert with_descriptors.shape[1] == 13 + 3
    assert MindModel(intensity=CT_INTENSITY).fine(image, correlated=True) is None


def test_many_labels_share_few_channels_in_which_each_differs_from_every_other(monkeypatch):
    image = volume()
    classes = (torch.arange(image.numel()) % 54).view(image.shape[2:])
    sure = torch.nn.functional.one_hot(classes, 54).permute(3, 0, 1, 2)[None].float()
    network = random_label_network(LabelNetworkConfig(labels=tuple(range(1, 54)), channels=(4, 6)), seed=0)
    monkeypatch.setattr(network, "coded", lambda image, codes: torch.einsum("cd,bcijk->bdijk", codes, sure))
    monkeypatch.setattr(labels_and_mind, "SMOOTHING", 0)
    found = LabelsAndMind(network, both_ct=True).fine(image, correlated=True)[0]
    assert found.shape[0] <= 8
    codes = torch.cat([found[:, classes == n].T.unique(dim=0) for n in range(54)])
    assert len(codes) == 54
    assert torch.cdist(codes, codes).fill_diagonal_(9.0).min() >= 0.5 * CORRELATED_WEIGHT
    torch.testing.assert_close(codes[1:].norm(dim=1), torch.full((53,), CORRELATED_WEIGHT))


@pytest.mark.parametrize("similarity", ["correlation", "features"])
def test_the_last_refinement_compares_labels_and_images(network, similarity, monkeypatch):
    seen = []

    def noted(directions, config):
        seen.extend(directions)
        return Refined(torch.zeros(1, 3, *image.shape[2:]), (), None)

    monkeypatch.setattr(pipeline, "refine_pair", noted)
    image, model = volume(), LabelsAndMind(network, both_ct=True)
    config = PipelineConfig(passes=(8,), fine=True, refine=RefineConfig(steps=1, similarity=similarity))
    register_volumes(image, image.flip(3), model, config)
    there, back = (direction.full for direction in seen)
    for compared, order in ((there, (image, image.flip(3))), (back, (image.flip(3), image))):
        assert compared is not None
        expected = tuple(model.fine(one, correlated=similarity == "correlation") for one in order)
        assert all(torch.equal(*both) for both in zip(compared.features, expected, strict=True))
        if similarity == "correlation":
            assert all(torch.equal(*both) for both in zip(compared.images, order, strict=True))
        else:
            assert compared.images is None


def test_a_label_network_survives_its_file(network, tmp_path: Path):
    save_model(tmp_path / "organs.safetensors", network, {"licence": "none"})
    read = load_model(tmp_path / "organs.safetensors")
    assert (read.config, read.name) == (CONFIG, "organs")
    with torch.no_grad():
        assert torch.equal(read.probabilities(volume()), network.probabilities(volume()))
    choice = get_model(tmp_path / "organs.safetensors")
    assert (choice.name, choice.spacing_mm) == ("organs", 3.0)


def test_codes_are_summed_over_all_slabs(network):
    image, codes = volume(), torch.rand(4, 2)
    expected = torch.einsum("cd,bcijk->bdijk", codes, network.probabilities(image))
    torch.testing.assert_close(network.coded(image, codes), expected)


def test_codes_in_half_precision_are_nearly_those_in_single():
    model, image, codes = random_label_network(CONFIG, seed=0).eval(), volume(), torch.eye(4)
    found = {}
    for model.precision in ("fp32", "bf16"):
        with torch.no_grad():
            found[model.precision] = model.coded(image, codes)
    assert found["bf16"].dtype == torch.float32
    assert not torch.equal(found["fp32"], found["bf16"])
    torch.testing.assert_close(found["bf16"], found["fp32"], atol=0.02, rtol=0)


@pytest.mark.parametrize("sizes", [(32, 32, 48), (48, 16, 64)])
def test_a_map_has_the_shape_of_its_image(network, sizes):
    with torch.no_grad():
        chances = network.probabilities(torch.zeros(2, 1, *sizes))
    assert chances.shape == (2, 4, *sizes)
    torch.testing.assert_close(chances.sum(1), torch.ones(2, *sizes))
