"""What training brought: a run's model against the network it began as, on the same pairs."""

from pathlib import Path

import torch

from corereg.data.pairs import read_dataset
from corereg.method.features import load_model
from corereg.method.hybrid import with_descriptors
from corereg.training.config import from_settings, read_settings
from corereg.training.loop import filled
from corereg.training.objective import new_model
from corereg.training.train import CONFIG, MODEL
from corereg.training.validation import Validation
from corereg.training.volumes import prepare_volumes

__all__ = ["compare_with_untrained"]


def compare_with_untrained(dataset: str | Path, run: Path) -> tuple[dict[str, float], dict[str, float]]:
    """Figures of the random network, its statistics filled, and of the run's model on the validation pairs.

    Args:
        dataset: what the run was trained on.
        run: its folder.

    Returns: untrained, trained; see `Validation.measure`.
    """
    config = from_settings(read_settings(run / CONFIG))
    data = read_dataset(dataset, pairing=config.pairing)
    volumes = prepare_volumes(
        data, folder=run / "cache", spacing_mm=config.spacing_mm, modality=config.modality, affine=config.affine
    )
    validation = Validation.of(data, volumes, config)
    both_ct, device = volumes.modality.startswith("ct"), torch.device("cpu")
    untrained = filled(new_model(config, seed=config.seed), volumes, device)
    models = (with_descriptors(model, both_ct=both_ct) for model in (untrained, load_model(run / MODEL)))
    first, second = (validation.measure(model, config, device) for model in models)
    return first, second
