"""The card of a trained model: the facts about its weights that their file carries."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from typing import Any

from corereg.data.pairs import Dataset
from corereg.method.features.model_file import Network
from corereg.provenance import versions
from corereg.settings import as_settings
from corereg.training.config import TrainConfig
from corereg.training.labels.maps import LabelMaps
from corereg.training.scans.volumes import Volumes

__all__ = ["card"]


def card(
    name: str,
    dataset: Dataset,
    config: TrainConfig,
    volumes: Volumes,
    maps: LabelMaps | None,
    model: Network,
    figures: Mapping[str, float],
    pairs: Sequence[tuple[int, int]],
) -> dict[str, Any]:
    """Facts that JSON can hold.

    Args:
        maps: the label maps that the model learned from; None for a run without.
        figures: those of the last validation.
        pairs: training pairs, as rows of the cohort.
    """
    return {
        "name": name,
        "date": datetime.now(timezone.utc).date().isoformat(),
        "licence": config.licence,
        "data": {
            "name": dataset.name,
            "fingerprint": volumes.fingerprint,
            "scans": len({row for pair in pairs for row in pair}),
            "pairs": len(pairs),
            "labelled_scans": 0 if maps is None else len(maps.classes),
            "modality": volumes.modality,
            "grid": list(volumes.grid.shape),
            "spacing_mm": list(volumes.grid.spacing),
        },
        "network": asdict(model.config),
        "training": as_settings(config),
        "metrics": dict(figures),
        "versions": versions("corereg", "torch", "numpy"),
    }
