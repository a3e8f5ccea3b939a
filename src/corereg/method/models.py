"""Models by name: what `--model` accepts."""

from dataclasses import dataclass
from pathlib import Path

from corereg.errors import InputError
from corereg.method.features.mind import CT_INTENSITY, MindModel
from corereg.method.features.model import FeatureModel
from corereg.method.features.model_file import file_hash, load_model
from corereg.method.features.network import random_model
from corereg.method.features.network_and_mind import with_descriptors

__all__ = ["DEFAULT_MODEL", "MODELS", "ModelChoice", "get_model"]

DEFAULT_MODEL = "mind"

BOARD = Path(__file__).parents[1] / "models"
"""Folder of the trained models that come with the package."""

MODELS = {
    "mind": "MIND-SSC descriptors, for two CTs with the intensity beside them: no training, also between CT and MR",
    "head-neck-ct": "the network trained on 74 unlabelled head-and-neck CTs, MIND-SSC beside it in the refinement",
    "random": "the network with seeded random weights, statistics filled from the pair: what training starts from",
}
"""Models on board and what they are."""


@dataclass(frozen=True)
class ModelChoice:
    """A model ready to use, and what to say of it in a result.

    Args:
        sha256: of the weights' file; None for a model without one.
    """

    model: FeatureModel
    name: str
    sha256: str | None = None


def get_model(name: str | Path, *, seed: int = 0, both_ct: bool = False, precision: str = "auto") -> ModelChoice:
    """The model called `name`, or read from a safetensors file.

    Args:
        seed: of the weights of `random`.
        both_ct: whether intensities mean the same in both images, which `mind` then compares as well.
        precision: of a network's convolutions, one of `inference.PRECISIONS`.

    Raises:
        InputError: neither a known name nor a file, or a file that is no model.
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
            f"got the model {str(name)!r}, expected one of {', '.join(MODELS)} or a .safetensors file; check the name"
        )
    network = load_model(path)
    network.precision = precision
    return ModelChoice(with_descriptors(network, both_ct=both_ct), path.stem, file_hash(path))
