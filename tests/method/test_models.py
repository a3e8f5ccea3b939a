"""Models by name and from files. A file from a stranger must not run code."""

import json
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn

from corereg.method.features.mind import CT_INTENSITY, MindModel
from corereg.method.features.model_file import file_hash, load_model, save_model
from corereg.method.features.network import ConvNetModel, NetworkConfig, fill_statistics, random_model
from corereg.method.features.network_and_mind import DESCRIPTOR_WEIGHT
from corereg.method.models import BOARD, DEFAULT_MODEL, MODELS, get_model
from corereg.preprocessing.intensity import normalise
from helpers.pickles import Planted
from helpers.refusals import refusal
from helpers.scenes import centred_grid, scan

SMALL = NetworkConfig(shallow_channels=(4, 6), deep_channels=8, head_channels=5, strides=(8, 4))


def volume() -> Tensor:
    image = scan(centred_grid((48, 32, 64), (3.0, 4.0, 2.0)))
    return normalise(torch.as_tensor(image.array), "ct")[None, None]


@pytest.fixture
def model() -> ConvNetModel:
    made = random_model(5, SMALL)
    fill_statistics(made, [volume()])
    return made


@pytest.fixture
def saved(model: ConvNetModel, tmp_path: Path) -> Path:
    save_model(tmp_path / "liver.safetensors", model, {"trained_on": "phantoms"})
    return tmp_path / "liver.safetensors"


def test_saved_model_encodes_as_before(model: ConvNetModel, saved: Path) -> None:
    choice = get_model(saved)
    assert (choice.name, choice.sha256) == ("liver", file_hash(saved))
    with torch.no_grad():
        before, after = (m.encode(volume(), [8, 4]) for m in (model, choice.model))
    assert torch.equal(before.shallow, after.shallow)
    assert before.cost.keys() == after.cost.keys()
    assert all(torch.equal(before.cost[s], after.cost[s]) for s in (8, 4))


def test_loaded_model_keeps_its_statistics(saved: Path) -> None:
    loaded = load_model(saved)
    before = {key: value.clone() for key, value in loaded.state_dict().items()}
    loaded.prepare([volume() + 1])
    assert not loaded.training
    assert all(torch.equal(value, before[key]) for key, value in loaded.state_dict().items())


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


def test_half_precision_halves_the_file_and_keeps_the_features(tmp_path: Path) -> None:
    made = random_model(0)
    made.prepare([volume()])
    for half in (False, True):
        save_model(tmp_path / f"{half}.safetensors", made, half=half)
    sizes = [(tmp_path / f"{half}.safetensors").stat().st_size for half in (True, False)]
    assert sizes[0] < 0.55 * sizes[1]
    read = load_model(tmp_path / "True.safetensors")
    read.precision = made.precision = "fp32"
    with torch.no_grad():
        first, second = (model.encode(volume(), (8,)).cost[8] for model in (made, read))
    torch.testing.assert_close(first, second, atol=0.01 * float(first.std()), rtol=0.01)


def test_descriptors_stand_beside_the_learned_features(tmp_path: Path) -> None:
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


def test_passes_without_a_head_are_refused(tmp_path: Path) -> None:
    made = random_model(0, NetworkConfig(shallow_channels=(4, 6), deep_channels=8, strides=(8,)))
    assert "stride" in refusal(made.encode, volume(), [8, 4])


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".pth"])
@pytest.mark.parametrize("kind", ["zip", "legacy", "plain"])
def test_pickle_is_refused_without_being_opened(tmp_path: Path, suffix: str, kind: str) -> None:
    planted, path = tmp_path / "executed", tmp_path / f"model{suffix}"
    content = {"weight": torch.zeros(3), "planted": Planted(planted)}
    if kind == "plain":
        path.write_bytes(pickle.dumps(Planted(planted)))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=kind == "zip")
    assert "pickle" in refusal(get_model, path)
    assert not planted.exists()
    if kind == "plain":  # the plant does work
        pickle.loads(path.read_bytes())
        assert planted.exists()


@pytest.mark.parametrize("name", ["mnid", "missing.safetensors", ""])
def test_unknown_model_is_refused_with_the_known_ones(tmp_path: Path, name: str) -> None:
    assert "mind, head-neck-ct, random" in refusal(get_model, str(tmp_path / name) if "." in name else name)


@pytest.mark.parametrize("share", [0, 0.001, 0.5, 0.999])
def test_truncated_model_is_refused(saved: Path, share: float) -> None:
    saved.write_bytes(saved.read_bytes()[: int(share * saved.stat().st_size)])
    assert "safetensors" in refusal(get_model, saved)


def with_header(path: Path, value: str | None) -> Path:
    """A safetensors file whose entry `corereg` is `value`, with a tensor beside it."""
    header: dict[str, Any] = {"weight": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}
    if value is not None:
        header["__metadata__"] = {"corereg": value}
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + np.zeros(2, np.float32).tobytes())
    return path


@pytest.mark.parametrize(
    "value",
    [None, "", "no json", "[]", "7", "{}", '{"network": []}', '{"network": {"strides": [3]}}', '{"network": {"a": 1}}'],
)
def test_safetensors_file_that_is_no_model_of_ours_is_refused(tmp_path: Path, value: str | None) -> None:
    assert "configuration" in refusal(get_model, with_header(tmp_path / "other.safetensors", value))


def test_weights_of_other_sizes_than_their_configuration_are_refused(tmp_path: Path) -> None:
    path = with_header(tmp_path / "other.safetensors", json.dumps({"network": {"strides": [8]}}))
    assert "configuration" in refusal(get_model, path)


@pytest.mark.parametrize("strides", [(), (16,), (8, 5)])
def test_network_with_strides_it_cannot_have_is_refused(strides: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="strides"):
        NetworkConfig(strides=strides)
