"""A network as one safetensors file: weights, architecture, configuration and card. Pickles are refused unopened."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from corereg.errors import InputError
from corereg.method.features.label_network import LabelNetwork, LabelNetworkConfig
from corereg.method.features.network import ConvNetModel, NetworkConfig

__all__ = ["METADATA_KEY", "WEIGHT_AXES", "Network", "load_model", "read_card", "save_model"]

Network = ConvNetModel | LabelNetwork

PAPER, LABELS = "paper", "labels"
"""Architectures. Files of the first versions name none: theirs is the paper's."""

WEIGHT_AXES = 5
"""Number of axes of a convolution's weights."""

METADATA_KEY = "corereg"
"""Entry of the safetensors header that holds the network's configuration as JSON."""


def save_model(path: Path, model: Network, card: Mapping[str, object] | None = None, *, half: bool = False) -> None:
    """Write weights and configuration to one safetensors file.

    Args:
        card: facts about the training, serialisable as JSON.
        half: store the convolutions in half precision, which halves the file.
    """
    from safetensors.torch import save

    architecture = LABELS if isinstance(model, LabelNetwork) else PAPER
    header: dict[str, Any] = {"architecture": architecture, "network": asdict(model.config), "card": dict(card or {})}
    if isinstance(model, ConvNetModel):
        header["passes"] = list(model.passes)
    tensors = {key: value.detach().cpu().contiguous() for key, value in model.state_dict().items()}
    if half:
        tensors = {key: value.half() if value.ndim == WEIGHT_AXES else value for key, value in tensors.items()}
    # safetensors' own file writer makes files that only their owner can read.
    Path(path).write_bytes(save(tensors, metadata={METADATA_KEY: json.dumps(header, sort_keys=True)}))


def load_model(path: Path) -> Network:
    """Read a model from a safetensors file. Files that can run code (pickles) are refused without being opened as such.

    Raises:
        InputError: the file does not exist, is not a safetensors file, was not written by corereg, or has weights that
            are damaged or do not fit its configuration.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="pt") as file:
            header = (file.metadata() or {}).get(METADATA_KEY)
            state = {key: file.get_tensor(key).float() for key in file.keys()}  # noqa: SIM118 - no mapping
    except FileNotFoundError:
        raise InputError(f"got no model file at {path}, expected a .safetensors file; check the path") from None
    except (SafetensorError, OSError):
        raise InputError(_not_safetensors(path)) from None
    damaged = [key for key, value in state.items() if not bool(value.isfinite().all())]
    if damaged:
        raise InputError(
            f"got {path}, whose {damaged[0]} holds NaN or infinite numbers, expected finite weights; fetch the file "
            "again or retrain the model"
        )
    if header is None:
        raise InputError(
            f"got {path}, which has no corereg configuration in its header, expected a file written by `corereg "
            "train`; choose another"
        )
    try:
        model = _built(json.loads(header), path)
        counters = {k: v.long() for k, v in state.items() if k.endswith("num_batches_tracked")}
        model.load_state_dict(state | counters)
    except InputError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"got {path}, whose weights do not fit its configuration as expected ({reason}); fetch or train it again"
        ) from None
    return model.eval()


def _built(content: Mapping[str, Any], path: Path) -> Network:
    """The network that a header describes, with random weights."""
    architecture = content.get("architecture", PAPER)
    if architecture not in (PAPER, LABELS):
        raise InputError(
            f"got {path} of the architecture {architecture!r}, expected {PAPER} or {LABELS}; use the version of "
            "corereg that wrote it, or train the model again"
        )
    network: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in content["network"].items()}
    if architecture == LABELS:
        return LabelNetwork(LabelNetworkConfig(**network), path.stem)
    model = ConvNetModel(NetworkConfig(**network), path.stem)
    model.passes = tuple(content.get("passes", model.passes))
    return model


def read_card(path: Path) -> dict[str, Any]:
    """The facts about its training that a model file carries."""
    from safetensors import safe_open

    with safe_open(str(path), framework="pt") as file:
        return dict(json.loads(file.metadata()[METADATA_KEY])["card"])


def _not_safetensors(path: Path) -> str:
    with path.open("rb") as file:
        start = file.read(4)
    pickled = start[:2] in (b"PK", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
    kind = "a pickled PyTorch file, which could run code and is never opened" if pickled else "not a safetensors file"
    return f"got {path}, {kind}, expected weights written by `corereg train`; choose another file"
