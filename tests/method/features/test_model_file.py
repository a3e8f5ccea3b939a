"""Model files. A file from a stranger must not run code."""

import hashlib
import json
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from corereg.method.features.model_file import load_model, save_model
from corereg.method.features.network import ConvNetModel, random_model
from corereg.method.models import get_model
from helpers.networks import volume
from helpers.pickles import Planted
from helpers.refusals import refusal


@pytest.fixture
def saved(model: ConvNetModel, tmp_path: Path) -> Path:
    save_model(tmp_path / "liver.safetensors", model, {"trained_on": "phantoms"})
    return tmp_path / "liver.safetensors"


def test_saved_model_encodes_as_before(model: ConvNetModel, saved: Path) -> None:
    choice = get_model(saved)
    assert (choice.name, choice.sha256) == ("liver", hashlib.sha256(saved.read_bytes()).hexdigest())
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


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_refused(tmp_path: Path, value: float) -> None:
    made = random_model(0)
    made.head.out4.bias.data[3] = value
    save_model(tmp_path / "spoilt.safetensors", made)
    assert "whose head.out4.bias holds NaN or infinite numbers" in refusal(load_model, tmp_path / "spoilt.safetensors")


def test_a_model_of_another_architecture_is_refused(saved: Path) -> None:
    header = json.dumps({"architecture": "transformer", "network": {}})
    message = refusal(load_model, with_header(saved, header))
    assert "architecture 'transformer', expected paper or labels" in message
