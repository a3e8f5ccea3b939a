"""The training runs behind the paper's tables: which there are, and that a folder holds those of its settings."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from corereg.errors import InputError
from corereg.io.atomic import atomic_path
from corereg.io.json_files import load_json, save_json
from corereg.settings import as_settings, changed_keys, with_settings
from corereg.training.checkpoint import CHECKPOINT
from corereg.training.config import TrainConfig
from corereg.training.recipes import get_recipe
from corereg.training.train import MODEL, train
from corereg.workflows.reproduce.protocol import Protocol, ProtocolData

__all__ = ["OBJECTIVE_RUNS", "TABLES", "VIEW_RUNS", "check_folder", "run_config", "runs_of", "trained"]

JOINT = "joint"
RUNS: dict[str, dict[str, str]] = {
    JOINT: {},
    "registration": {"objective": "registration"},
    "contrastive": {"objective": "contrastive"},
    "intensity": {"views": "intensity"},
    "both-views": {"views": "both"},
}
"""Settings of each training run. Registration alone has no views; geometric views are those of the method."""

OBJECTIVE_RUNS = {"registration": "registration", "contrastive": "contrastive", "joint": JOINT}
"""Row of Table 2 -> run."""

VIEW_RUNS = {"none": "registration", "intensity": "intensity", "geometric": JOINT, "both": "both-views"}
"""Row of Table 3 -> run."""

TABLES = {1: (JOINT,), 2: tuple(OBJECTIVE_RUNS.values()), 3: tuple(VIEW_RUNS.values())}
"""Runs that each table needs."""

IDENTITY = "protocol.json"

Line = Callable[[str], None]


def runs_of(tables: Sequence[int]) -> tuple[str, ...]:
    """The runs that these tables need, each once."""
    return tuple(dict.fromkeys(run for table in sorted(tables) for run in TABLES[table]))


def run_config(run: str, protocol: Protocol, settings: Mapping[str, Any]) -> TrainConfig:
    """Configuration of a run: the paper's recipe on the protocol's grid, with a user's settings on top."""
    fixed = {"spacing_mm": protocol.spacing_mm, "affine": "none"}
    return with_settings(with_settings(get_recipe(protocol.recipe), fixed | RUNS[run]), settings)


def check_folder(out: Path, protocol: Protocol, data: ProtocolData, config: TrainConfig) -> None:
    """Remember what a folder reproduces, or refuse to continue something else in it.

    Raises:
        InputError: the folder belongs to another protocol, other pairs or other settings, which are named.
    """
    named = {
        "training": [_names(data.training.scans, pair) for pair in data.training.training],
        "search": [[case.fixed.name, case.moving.name] for case in data.search.cases],
        "test": [[case.fixed.name, case.moving.name] for case in data.scored.cases],
    }
    identity = {"protocol": protocol.name, "pairs": named, "settings": as_settings(config)}
    before = load_json(out / IDENTITY)
    if not before:
        save_json(out / IDENTITY, identity)
        return
    changed = [key for key in ("protocol", "pairs") if before.get(key) != identity[key]]
    changed += changed_keys(with_settings(TrainConfig(), before.get("settings", {})), config)
    if changed:
        raise InputError(
            f"the folder {out} holds a reproduction with other settings ({'; '.join(changed)}); use another folder, or "
            "the same settings to continue this one"
        )


def _names(scans: Sequence[Any], pair: tuple[int, int]) -> list[str]:
    return [scans[index].name for index in pair]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trainer:
    """How all runs of a reproduction train."""

    data: ProtocolData
    out: Path
    device: str = "auto"
    devices: int = 1
    progress: Line | None = None
    log: Line | None = None


def trained(run: str, config: TrainConfig, trainer: Trainer) -> Path:
    """The model of a run: trained now, resumed, or already finished. All runs share one cache of prepared scans."""
    folder = trainer.out / run
    model = folder / MODEL
    if not model.is_file():
        if trainer.log:
            trainer.log(f"training: {run}")
        train(
            trainer.data.training,
            folder,
            config=config,
            resume=(folder / CHECKPOINT).exists(),
            device=trainer.device,
            devices=trainer.devices,
            cache=trainer.out / "cache",
            progress=trainer.progress,
            log=trainer.log,
        )
    # A method is named after its model's file.
    named = trainer.out / f"{run}.safetensors"
    with atomic_path(named) as staged:
        staged.write_bytes(model.read_bytes())
    return named
