"""Models by name."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from corereg.method.config import DEFAULT_MODEL, MODELS
from corereg.method.features.mind import CT_INTENSITY, MindModel
from corereg.method.features.model_file import load_model, save_model
from corereg.method.features.network import NetworkConfig, random_model
from corereg.method.features.network_and_mind import DESCRIPTOR_WEIGHT
from corereg.method.models import BOARD, get_model
from helpers.networks import volume
from helpers.refusals import refusal


@pytest.mark.parametrize("name", sorted(MODELS))
def test_every_model_on_board_is_there_by_its_name(name: str) -> None:
    choice = get_model(name)
    trained = name not in ("mind", "random")
    assert (choice.name, choice.model.name, choice.sha256 is not None) == (name, name, trained)
    assert DEFAULT_MODEL in MODELS


def test_the_trained_model_on_board_is_small_and_says_what_it_is() -> None:
    path = BOARD / "head-neck-ct.safetensors"
    assert path.stat().st_size < 2.5e6
    with safe_open(path, "pt") as file:
        card = json.loads(file.metadata()["corereg"])["card"]
    assert (card["data"]["name"], card["data"]["scans"]) == ("HeadNeckCT", 74)
    assert card["licence"]
    choice = get_model("head-neck-ct", both_ct=True)
    assert choice.model.passes == (8, 4)
    encoded = choice.model.encode(volume(), (8, 4))
    assert encoded.shallow is not None
    assert encoded.shallow.shape[1] == 32


def test_the_model_trained_on_labels_is_small_and_predicts_organs() -> None:
    path = BOARD / "head-neck-ct-labels.safetensors"
    assert path.stat().st_size < 10e6
    choice = get_model("head-neck-ct-labels", both_ct=True)
    assert choice.spacing_mm == pytest.approx(3.0)
    encoded = choice.model.encode(volume(), (8, 4))
    assert encoded.shallow is not None
    assert encoded.shallow.shape[1] == 13 + 7


def test_descriptors_are_appended_to_the_learned_features(tmp_path: Path) -> None:
    config = NetworkConfig(shallow_channels=(4, 24), deep_channels=8, descriptors=True)
    made = random_model(0, config)
    made.prepare([volume()])
    save_model(tmp_path / "both.safetensors", made)
    with torch.no_grad():
        both = get_model(tmp_path / "both.safetensors", both_ct=True).model.encode(volume(), (8,))
        mind = MindModel(intensity=CT_INTENSITY).encode(volume(), ())
        learned = load_model(tmp_path / "both.safetensors").encode(volume(), (8,))
    assert both.shallow is not None
    assert mind.shallow is not None
    torch.testing.assert_close(both.shallow[:, :13], DESCRIPTOR_WEIGHT * mind.shallow)
    assert both.shallow.shape[1] == 32
    assert torch.equal(both.cost[8], learned.cost[8])


@pytest.mark.parametrize("name", ["mnid", "missing.safetensors", ""])
def test_unknown_model_is_refused_with_the_known_ones(tmp_path: Path, name: str) -> None:
    assert "mind, head-neck-ct, head-neck-ct-labels, random" in refusal(
        get_model, str(tmp_path / name) if "." in name else name
    )
