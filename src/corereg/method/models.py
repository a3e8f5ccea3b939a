"""Models by name: the choices of `--model`."""

from dataclasses import dataclass
from pathlib import Path

from corereg.errors import InputError
from corereg.method.config import MODELS
from corereg.method.features.label_network import LabelNetwork
from corereg.method.features.labels_and_mind import LabelsAndMind
from corereg.method.features.mind import CT_INTENSITY, MindModel
from corereg.method.features.model import FeatureModel
from corereg.method.features.model_file import Network, load_model
from corereg.method.features.network import random_model
from corereg.method.features.network_and_mind import with_descriptors
from corereg.provenance import hash_files

__all__ = ["ModelChoice", "as_registering", "get_model", "model_file"]

BOARD = Path(__file__).parents[1] / "models"
"""Folder of the trained models that ship with the package."""


@dataclass(frozen=True)
class ModelChoice:
    """A model ready to use, with the name and hash that results record.

    Args:
        sha256: hash of the weights' file; None for a model without one.
        spacing_mm: voxel size of the working grid that it was made for; None suits any.
    """

    model: FeatureModel
    name: str
    sha256: str | None = None
    spacing_mm: float | None = None


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
    path = model_file(name)
    loaded = load_model(path)
    loaded.precision = precision
    spacing_mm = loaded.config.spacing_mm if isinstance(loaded, LabelNetwork) else None
    return ModelChoice(as_registering(loaded, both_ct=both_ct), path.stem, hash_files([path]), spacing_mm)


def model_file(name: str | Path) -> Path:
    """The weights of a model on board, or the safetensors file of that path.

    Raises:
        InputError: neither a known name nor a file, or a model without trained weights.
    """
    path = BOARD / f"{name}.safetensors" if str(name) in MODELS else Path(name)
    if str(name) in MODELS and not path.is_file():
        raise InputError(f"got the model {name}, which has no trained weights, expected one that has; choose another")
    if not path.is_file():
        raise InputError(
            f"got the model {str(name)!r}, expected one of {', '.join(MODELS)} or a .safetensors file; check --model"
        )
    return path


def as_registering(network: Network, *, both_ct: bool) -> FeatureModel:
    """A trained network together with the descriptors that it is meant to be used with.

    Args:
        both_ct: whether both images are CTs, whose intensities are then compared along with the descriptors.
    """
    if isinstance(network, LabelNetwork):
        return LabelsAndMind(network, both_ct=both_ct)
    return with_descriptors(network, both_ct=both_ct)
