"""The network and its statistics."""

from pathlib import Path

import pytest
import torch
from torch import nn

from corereg.method.features.network import ConvNetModel, FeatureExtractor, NetworkConfig, random_model
from corereg.settings import with_settings
from helpers.networks import SMALL, volume
from helpers.refusals import refusal


def test_parameters_are_those_of_the_paper():
    assert sum(p.numel() for p in random_model(config=NetworkConfig()).parameters()) == pytest.approx(1.17e6, rel=0.01)


def test_stages_have_their_strides_and_channels():
    stages = FeatureExtractor(NetworkConfig())(torch.zeros(1, 1, 32, 48, 64))
    assert stages.shallow.shape == (1, 64, 16, 24, 32)
    assert stages.deep.shape == stages.deep_conv.shape == (1, 128, 8, 12, 16)


def test_features_lie_on_the_strided_grids(model: ConvNetModel) -> None:
    with torch.no_grad():
        encoded = model.encode(volume(), [8, 4])
    assert encoded.shallow.shape == (1, 6, 24, 16, 32)
    assert {stride: tuple(cost.shape) for stride, cost in encoded.cost.items()} == {
        8: (1, 5, 6, 4, 8),
        4: (1, 5, 12, 8, 16),
    }


def test_random_model_depends_on_its_seed_alone() -> None:
    torch.manual_seed(1)
    first = random_model(3, SMALL)
    state = torch.random.get_rng_state()
    second, other = random_model(3, SMALL), random_model(4, SMALL)
    assert torch.equal(torch.random.get_rng_state(), state)
    weights = [m.extractor.block1[0].weight for m in (first, second, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_random_model_fills_its_statistics_from_the_pair() -> None:
    made = random_model(0, SMALL)
    made.prepare([volume(), volume() * 0.5])
    assert not made.training
    for norm in (m for m in made.modules() if isinstance(m, nn.BatchNorm3d)):
        assert norm.running_mean is not None
        assert float(norm.running_mean.abs().max()) > 0
        assert norm.momentum == 0.1
    conv = made.extractor.block1[0]
    with torch.no_grad():
        outputs = [conv(v) for v in (volume(), volume() * 0.5)]
    expected = torch.stack([o.mean((0, 2, 3, 4)) for o in outputs]).mean(0)
    torch.testing.assert_close(made.extractor.block1[1].running_mean, expected, rtol=1e-4, atol=1e-5)


def test_statistics_of_one_pair_do_not_stay_for_the_next() -> None:
    made, fresh = random_model(0, SMALL), random_model(0, SMALL)
    made.prepare([volume() * 3])
    made.prepare([volume()])
    fresh.prepare([volume()])
    assert all(torch.equal(a, b) for a, b in zip(made.state_dict().values(), fresh.state_dict().values(), strict=True))


def test_passes_without_a_head_are_refused(tmp_path: Path) -> None:
    made = random_model(0, NetworkConfig(shallow_channels=(4, 6), deep_channels=8, strides=(8,)))
    assert "stride" in refusal(made.encode, volume(), [8, 4])


@pytest.mark.parametrize("strides", [(), (16,), (8, 5)])
def test_network_with_strides_it_cannot_have_is_refused(strides: tuple[int, ...]) -> None:
    assert "strides" in refusal(with_settings, NetworkConfig(), {"strides": strides})
