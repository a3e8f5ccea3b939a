"""What a worker does with a pair: registers it into its folder and returns the measures of its row.

Only workers import this: the driver of a batch does without torch.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from corereg.kept import keep_up_to
from corereg.workflows.batch.pairs import Pair
from corereg.workflows.register import register_to_folder

__all__ = ["register_pair"]

KEPT_BYTES = 2**29
"""Memory in each worker for scans, and for what the pre-alignment makes of them, that may be in a later pair too."""


def register_pair(
    pair: Pair,
    folder: Path,
    *,
    keep: Sequence[str],
    threads: int,
    label_names: Mapping[int, str],
    labels_use_image_grid: bool,
    command: str,
    settings: dict[str, Any],
) -> dict[str, Any]:
    """Register a pair as `corereg register` does.

    Args:
        settings: those of the batch; the pair's own come on top.

    Returns: the verdict with its reasons, metrics and quality measures of its result.json, modalities.
    """
    keep_up_to(KEPT_BYTES)
    result = register_to_folder(
        pair.fixed,
        pair.moving,
        folder,
        fixed_labels=pair.fixed_labels,
        moving_labels=pair.moving_labels,
        fixed_mask=pair.fixed_mask,
        moving_mask=pair.moving_mask,
        initial=pair.initial,
        fixed_points=pair.fixed_points,
        moving_points=pair.moving_points,
        rigid_labels=pair.rigid_labels,
        keep=keep,
        threads=threads,
        force=True,
        label_names=label_names,
        labels_use_image_grid=labels_use_image_grid,
        command=command,
        **(settings | dict(pair.settings)),
    )
    return {
        "verdict": result.quality.verdict,
        "reasons": list(result.quality.reasons),
        **result.metrics,
        **result.quality.measures,
        "regularisation": result.regularisation,
        "modality_fixed": result.intensities[0].modality,
        "modality_moving": result.intensities[1].modality,
        "peak_memory_mb": result.peak_memory_mb,
    }
