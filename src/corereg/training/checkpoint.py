"""A run's state on disk: all that going on exactly needs, and nothing that runs code when it is read.

Views, points and draws come from the seed and the step's number alone, and the learning rate and lambda from the step's
number, so there are no generators and no schedulers whose state could be lost.
"""

import errno
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from corereg.errors import InputError
from corereg.io.atomic import atomic_path
from corereg.training.config import TrainConfig, as_settings, changed_keys, from_settings

__all__ = ["CHECKPOINT", "Checkpoint", "check_unchanged", "load_checkpoint", "save_checkpoint"]

CHECKPOINT = "checkpoint.pt"
FORMAT = 1

EXTENDABLE = ("cycles:",)
"""Settings that a resumed run may have changed: more of the same."""


@dataclass(frozen=True)
class Checkpoint:
    """State before a step."""

    cycle: int
    step: int
    """Next step within the cycle."""
    weights: dict[str, Any]
    optimiser: dict[str, Any]
    config: TrainConfig
    fingerprint: str
    """Of the cohort."""


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write it so that the file is the old one or the new one, never half of it.

    Raises:
        InputError: the disk is full; the old file is still there.
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
            f"got no room to write {path} ({error}), expected some megabytes; free some and go on with --resume: the "
            "checkpoint before it is still there"
        ) from None


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint; tensors and plain values only.

    Raises:
        InputError: there is none, or the file is no checkpoint of this version.
    """
    if not path.is_file():
        raise InputError(f"got no checkpoint at {path}, expected one to resume from; start without --resume")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        if content["format"] != FORMAT:
            raise ValueError(f"format {content['format']}")
        return Checkpoint(
            cycle=content["cycle"],
            step=content["step"],
            weights=content["weights"],
            optimiser=content["optimiser"],
            config=from_settings(content["config"]),
            fingerprint=content["fingerprint"],
        )
    except InputError:
        raise
    except Exception as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"got {path}, expected a checkpoint of this version of corereg ({reason}); start the run anew"
        ) from None


def check_unchanged(checkpoint: Checkpoint, config: TrainConfig, fingerprint: str) -> None:
    """Refuse to go on with other settings or other scans; more cycles are allowed.

    Raises:
        InputError: naming the keys that changed, or the cohort.
    """
    changed = [c for c in changed_keys(checkpoint.config, config) if not c.startswith(EXTENDABLE)]
    if changed:
        raise InputError(
            f"got a changed configuration ({'; '.join(changed)}), expected the run's own to resume it; undo the change "
            "or start a new run"
        )
    if fingerprint != checkpoint.fingerprint:
        raise InputError(
            "got other scans (or other preparation) than the run was started with, expected the same to resume it; "
            "restore them or start a new run"
        )
