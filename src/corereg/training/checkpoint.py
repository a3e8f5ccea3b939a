"""A run's state on disk: everything an exact resume needs, and nothing that runs code when it is read.

Views, points and draws depend on the seed and the step's number alone, learning rate and lambda on the step's number:
there are no generators or schedulers whose state could be lost.
"""

import errno
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from corereg.errors import InputError
from corereg.io.atomic import atomic_path
from corereg.settings import as_settings, changed_keys, with_settings
from corereg.training.config import TrainConfig

__all__ = ["CHECKPOINT", "Checkpoint", "check_unchanged", "load_checkpoint", "save_checkpoint"]

CHECKPOINT = "checkpoint.pt"
FORMAT = 1

EXTENDABLE = ("cycles:",)
"""Settings that may change when a run is resumed: more cycles continue the same run."""


@dataclass(frozen=True)
class Checkpoint:
    """The state of a run before a step."""

    cycle: int
    step: int
    """The next step within the cycle."""
    weights: dict[str, Any]
    optimiser: dict[str, Any]
    config: TrainConfig
    fingerprint: str
    """Fingerprint of the cohort, see `Volumes`."""


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Replace the checkpoint file as a whole.

    Raises:
        InputError: the disk is full; the previous file is still there.
    """
    content = {
        "format": FORMAT,
        "cycle": checkpoint.cycle,
        "step": checkpoint.step,
        "weights": checkpoint.weights,
        "optimiser": checkpoint.optimiser,
        "config": as_settings(checkpoint.config),
        "fingerprint": checkpoint.fingerprint,
    }
    try:
        with atomic_path(path) as staged:
            torch.save(content, staged)
    except (OSError, RuntimeError) as error:
        if isinstance(error, OSError) and error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise InputError(
            f"there is no room to write {path} ({error}); free some megabytes and continue with --resume: the previous "
            "checkpoint is still there"
        ) from None


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint, which holds only tensors and plain values.

    Raises:
        InputError: there is none, or the file is no checkpoint of this version.
    """
    if not path.is_file():
        raise InputError(f"there is no checkpoint at {path} to resume from; start without --resume")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        if content["format"] != FORMAT:
            raise ValueError(f"format {content['format']}")
        return Checkpoint(
            cycle=content["cycle"],
            step=content["step"],
            weights=content["weights"],
            optimiser=content["optimiser"],
            config=with_settings(TrainConfig(), content["config"]),
            fingerprint=content["fingerprint"],
        )
    except InputError:
        raise
    except Exception as error:
        # Not the words of torch, which advise reading the file in a way that lets it run code.
        reason = f" ({error})" if type(error) is ValueError else ""
        raise InputError(
            f"got {path}, expected a checkpoint of this version of corereg{reason}; start a new run"
        ) from None


def check_unchanged(checkpoint: Checkpoint, config: TrainConfig, fingerprint: str) -> None:
    """Refuse to resume with other settings or other scans; more cycles are allowed.

    Raises:
        InputError: naming the keys that changed, or the cohort.
    """
    changed = [c for c in changed_keys(checkpoint.config, config) if not c.startswith(EXTENDABLE)]
    if changed:
        raise InputError(
            f"the configuration differs from the run's own ({'; '.join(changed)}), so it cannot be resumed; undo the "
            "change or start a new run"
        )
    if fingerprint != checkpoint.fingerprint:
        raise InputError(
            "got other scans than the run was started with, or scans prepared in another way, so it cannot be resumed; "
            "restore them or start a new run"
        )
