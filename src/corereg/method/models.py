"""Models by name: the choices of `--model`."""

from dataclasses import dataclass
from pathlib import Path

from corereg.errors import InputError
from corereg.method.config import MODELS
from corereg.method.features.mind import CT_INTENSITY, MindModel
from corereg.method.features.model import FeatureModel
from corereg.method.features.model_file import load_model
from corereg.method.features.network import random_model
from corereg.method.features.network_and_mind import with_descriptors
from corereg.provenance import hash_files

__all__ = ["ModelChoice", "get_model"]

BOARD = Path(__file__).parents[1] / "models"
"""Folder of the trained models that ship with the package."""


@dataclass(frozen=True)
class ModelChoice:
    """A model ready to use, with the name and hash that results record.

    Args:
        sha256: hash of the weights' file; None for a model without one.
    """

    model: FeatureModel
    name: str
    sha256: str | None = None


def get_model(name: str | Path, *, seed: int = 0, both_ct: bool = False, precision: str = "auto") -> ModelChoice:
    """The model on board called `name`, or the model in the safetensors file of that path.

    Args:
        seed: seed of the weights of `random`.
        both_ct: whether both images are CTs, so that `mind` compares their intensities too.
        precision: number type of a network's convolutions, see `config.Precision`.

    Raises:
        InputError: neither a known name nor a file, or a file that is not a model.
    """
    if str(name) == "mind":
        return ModelChoice(MindModel(intensity=CT_INTENSITY if both_ct else 0.0), "mind")
    if str(name) == "random":
        network = random_model(seed)
        network.precision = precision
        return ModelChoice(network, "random")
    path = BOARD / f"{name}.safetensors" if str(name) in MODELS else Path(name)
    if not path.is_file():
        raise InputError(
            f"got the model {str(name)!r}, expected one of {', '.join(MODELS)} or a .safetensors file; check --model"
        )
    network = load_model(path)
    network.precision = precision
    return ModelChoice(with_descriptors(network, both_ct=both_ct), path.stem, hash_files([path]))
