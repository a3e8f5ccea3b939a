"""A network as one safetensors file: weights, configuration and card. Pickles are refused unopened."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from corereg.errors import InputError
from corereg.method.features.network import ConvNetModel, NetworkConfig

__all__ = ["METADATA_KEY", "WEIGHT_AXES", "file_hash", "load_model", "save_model"]

WEIGHT_AXES = 5
"""Of a convolution's weights."""

METADATA_KEY = "corereg"
"""Entry of a safetensors header that holds the network's configuration as JSON."""


def save_model(
    path: Path, model: ConvNetModel, card: Mapping[str, object] | None = None, *, half: bool = False
) -> None:
    """Weights and configuration as one safetensors file.

    Args:
        card: what to know about the training, JSON-able.
        half: convolutions in half precision, for half the size.
    """
    from safetensors.torch import save

    header = {"network": asdict(model.config), "passes": list(model.passes), "card": dict(card or {})}
    tensors = {key: value.detach().cpu().contiguous() for key, value in model.state_dict().items()}
    if half:
        tensors = {key: value.half() if value.ndim == WEIGHT_AXES else value for key, value in tensors.items()}
    # safetensors' own writer to files makes them readable by their owner alone.
    Path(path).write_bytes(save(tensors, metadata={METADATA_KEY: json.dumps(header, sort_keys=True)}))


def load_model(path: Path) -> ConvNetModel:
    """A model from a safetensors file. Files that can run code (pickles) are refused, never opened as such.

    Raises:
        InputError: no such file, not a safetensors file, not one of ours, or weights that do not fit its configuration.
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
    if header is None:
        raise InputError(
            f"got {path} without corereg's configuration in its header, expected a file of `corereg train`; "
            "choose another"
        )
    try:
        content = json.loads(header)
        network = {key: tuple(v) if isinstance(v, list) else v for key, v in content["network"].items()}
        model = ConvNetModel(NetworkConfig(**network), path.stem)  # type: ignore[arg-type]
        model.passes = tuple(content.get("passes", model.passes))
        counters = {k: v.long() for k, v in state.items() if k.endswith("num_batches_tracked")}
        model.load_state_dict(state | counters)
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"got {path}, expected weights that fit their configuration ({reason}); train or fetch it again"
        ) from None
    return model.eval()


def _not_safetensors(path: Path) -> str:
    with path.open("rb") as file:
        start = file.read(4)
    pickled = start[:2] in (b"PK", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
    kind = "a pickled PyTorch file, which could run code and is never opened" if pickled else "no safetensors file"
    return f"got {path}, {kind}, expected weights written by `corereg train`; choose another file"


def file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes, hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
