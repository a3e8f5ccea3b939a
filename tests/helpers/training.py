"""A training run of seconds, on made-up patients."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from corereg.settings import with_settings
from corereg.training.checkpoint import CHECKPOINT, load_checkpoint
from corereg.training.config import TrainConfig
from corereg.training.loop import Run
from corereg.training.recipes import get_recipe
from corereg.training.session import Session
from corereg.training.train import train
from helpers.scenes import centred_grid, hounsfield, voxels_mm

GRID = centred_grid((37, 28, 33), (4.0, 4.4, 3.6), "LPS")

SMALL: dict[str, Any] = {
    "cycles": 2,
    "steps_per_cycle": 3,
    "batch_size": 1,
    "checkpoint_every": 1,
    "contrast.points": 40,
    "contrast.margin": 1,
    "network.shallow_channels": [4, 8],
    "network.deep_channels": 16,
    "network.head_channels": 4,
    "pseudo_labels.pairs": 3,
    "pseudo_labels.refine.steps": 5,
    "validation_refine.steps": 5,
    "validation_pairs": 1,
    "precision": "fp32",
    "spacing_mm": 4.0,
}


LEAST: dict[str, Any] = {"steps_per_cycle": 1, "pseudo_labels__pairs": 1, "validation_pairs": 0}
"""For `run`, where neither the number of steps, the labels nor the measurements matter."""


def quick_recipe(name: str) -> TrainConfig:
    """In place of `get_recipe`: runs of seconds, whatever the recipe, on the grid that suits the scans."""
    painted = get_recipe(name).labels.painted
    return with_settings(TrainConfig(), SMALL | {"spacing_mm": None, "labels.painted": painted})


def patient(number: int) -> np.ndarray:
    """The made-up patient, differently grown: no two of a cohort are alike."""
    x, y, z = np.moveaxis(voxels_mm(GRID), -1, 0)
    phase = 2.1 * number
    moved = [x + 7 * np.sin(y / 25 + phase), y + 6 * np.cos(z / 22 + phase), z + 6 * np.sin(x / 28 + phase)]
    return hounsfield(np.stack(moved, -1)).astype(np.int16)


def run(dataset: Path, out: Path, cache: Path, **settings: Any) -> Any:
    options = {k: settings.pop(k) for k in ("labels", "resume", "more_stages", "devices", "log") if k in settings}
    dotted = {key.replace("__", "."): value for key, value in settings.items()}
    return train(dataset, out, settings=SMALL | dotted, device="cpu", cache=cache, **options)


def note_what_ranks_see(folder: Path) -> None:
    """For the processes of a run: write down what each drew and what it ends with."""
    drawn: list[list[int]] = []
    draw, save = Run._draw, Session.save

    def noted_draw(self: Run, chances: Any, cycle: int, step: int) -> Any:
        rows = draw(self, chances, cycle, step)
        drawn.append(rows.tolist())
        return rows

    def noted_save(self: Session, cycle: int, step: int, model: Any, optimiser: Any) -> None:
        state = {"weights": model.state_dict(), "drawn": drawn}
        torch.save(state, folder / f"rank{self.fabric.global_rank}.pt")
        save(self, cycle, step, model, optimiser)

    Run._draw, Session.save = noted_draw, noted_save  # type: ignore[method-assign]


def rows_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text("utf-8").splitlines()]


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(folder / CHECKPOINT).weights


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


def comparable(folder: Path) -> list[dict[str, Any]]:
    timings = ("images_per_second", "seconds")
    return [{k: v for k, v in row.items() if k not in timings} for row in rows_of(folder)]
