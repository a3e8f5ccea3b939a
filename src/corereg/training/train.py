"""`corereg.train`: from a data set of unlabelled scans to a model file."""

import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric

from corereg.data.hold_out import hold_out
from corereg.data.pairs import Dataset, read_dataset
from corereg.errors import InputError
from corereg.io.atomic import atomic_path, output_folder
from corereg.method.device import find_device
from corereg.progress import Occasionally
from corereg.settings import with_settings
from corereg.training.checkpoint import CHECKPOINT, load_checkpoint
from corereg.training.config import TrainConfig
from corereg.training.config_file import commented_yaml
from corereg.training.labels.maps import LISTED, check_labelled, with_label_folder
from corereg.training.loggers import check_logger
from corereg.training.process import BEST, MODEL, Line, Task, figures_of, run_process
from corereg.training.recipes import get_recipe
from corereg.training.validation import goodness

__all__ = ["BEST", "CONFIG", "MODEL", "TrainingResult", "train"]

CONFIG = "config.yaml"


@dataclass(frozen=True, slots=True)
class TrainingResult:
    """A finished run."""

    folder: Path
    model: Path
    """The weights with their card, a safetensors file for `--model`."""
    metrics: Mapping[str, float]
    """Figures of the last validation."""
    best: Path | None
    """The weights after the cycle with the best validation; None without validation."""
    best_cycle: int | None
    """That cycle, counted from 1."""
    best_metrics: Mapping[str, float]


def train(
    dataset: str | Path | Dataset,
    out: str | Path,
    *,
    recipe: str = "default",
    config: TrainConfig | None = None,
    settings: Mapping[str, Any] | None = None,
    labels: bool | str | Path = False,
    resume: bool = False,
    more_stages: int = 0,
    device: str = "auto",
    devices: int = 1,
    nodes: int = 1,
    cache: str | Path | None = None,
    metadata: str | Path | None = None,
    logger: str | None = None,
    progress: Line | None = None,
    log: Line | None = None,
) -> TrainingResult:
    """Train a network, on unlabelled scans or with label maps of some. Those of validation pairs only measure.

    Args:
        dataset: a Learn2Reg dataset JSON, an nnU-Net raw folder, a RAD-ChestCT folder, a folder of images or a CSV of
            pairs; or a data set that has been read, whose pairs are then used as they are.
        out: the run's folder: config.yaml, metrics.jsonl, progress.png, checkpoint.pt, model.safetensors and
            best.safetensors.
        recipe: named configuration to start from; `config` replaces it.
        settings: single settings by (dotted) name, on top of the recipe.
        labels: also learn from label maps: True for those that the data set lists, or a folder of maps named like their
            scans. Any number of training scans may have one, each with any of the labels.
        resume: continue from the checkpoint in `out`, exactly where it was written.
        more_stages: cycles to add to a finished run; implies `resume`.
        device: auto, cpu, cuda or mps.
        devices, nodes: processes per node, and nodes; the environments of Slurm and torchrun are understood.
        cache: folder of the prepared scans, by default in `out`; runs on the same scans can share one.
        metadata: RAD-ChestCT's table of patients, if it is not in the data set's folder.
        logger: also log to tensorboard, wandb, mlflow or csv.
        progress: called often with the live line.
        log: called with lines worth keeping.

    Raises:
        InputError: unusable scans, settings or folder; a loss that became NaN or infinite; a full disk.
        Interrupted: a signal asked the run to stop; the checkpoint is written.
    """
    if logger is not None:
        check_logger(logger)
    folder = Path(out)
    settings = dict(settings or {})
    if labels:
        settings |= {"objective": "labels", "labels.source": LISTED if labels is True else str(labels)}
    settled, resume = _settle(folder, recipe, config, settings, resume, more_stages)
    if not isinstance(dataset, Dataset):
        dataset = read_dataset(dataset, pairing=settled.pairing, metadata=None if metadata is None else Path(metadata))
    if settled.objective == "labels" and settled.labels.source != LISTED:
        dataset = with_label_folder(dataset, Path(settled.labels.source))
    if settled.val_fraction:
        dataset = hold_out(dataset, settled.val_fraction, seed=settled.seed)
    if settled.objective == "labels":
        check_labelled(dataset, painted=settled.labels.painted == 1)
    task = Task(
        dataset=dataset,
        folder=folder,
        cache=folder / "cache" if cache is None else Path(cache),
        config=settled,
        resume=resume,
        logger=logger,
        progress=progress or _ignore,
        log=log,
    )
    if devices * nodes > 1:
        # Separate processes cannot draw on the caller's screen.
        task = replace(task, progress=Occasionally(_log_line), log=_log_line)
    fabric = _fabric(find_device(device), devices, nodes)
    with output_folder(folder), _emptied_if_refused(folder), output_folder(task.cache):
        with atomic_path(folder / CONFIG) as staged:
            staged.write_text(commented_yaml(settled), encoding="utf-8")
        validations: list[dict[str, Any]] = fabric.launch(partial(run_process, task=task))
    best = max(validations, key=goodness, default=None)
    return TrainingResult(
        folder=folder,
        model=folder / MODEL,
        metrics=figures_of(validations[-1]) if validations else {},
        best=folder / BEST if best and (folder / BEST).exists() else None,
        best_cycle=int(best["cycle"]) + 1 if best else None,
        best_metrics=figures_of(best) if best else {},
    )


@contextmanager
def _emptied_if_refused(folder: Path) -> Iterator[None]:
    """Remove what a run that cannot begin has put into its folder, up to the first checkpoint."""
    before = set(folder.iterdir())
    try:
        yield
    except InputError:
        if not (folder / CHECKPOINT).exists():
            for path in set(folder.iterdir()) - before:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        raise


def _ignore(line: str) -> None: ...


def _log_line(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _settle(
    folder: Path,
    recipe: str,
    config: TrainConfig | None,
    settings: Mapping[str, Any],
    resume: bool,
    more_stages: int,
) -> tuple[TrainConfig, bool]:
    """The run's configuration, and whether it resumes an earlier run."""
    if more_stages < 0:
        raise InputError(f"got --more-stages {more_stages}, expected 1 or more; correct it")
    resume = resume or more_stages > 0
    if not resume and (folder / CHECKPOINT).exists():
        raise InputError(
            f"the folder {folder} already holds a run; continue it with --resume or --more-stages, or use another one"
        )
    if resume and config is None and recipe == "default":
        # The folder is enough to resume a run; settings given again are checked against its own.
        config = load_checkpoint(folder / CHECKPOINT).config
    settled = with_settings(config or get_recipe(recipe), settings)
    if resume:
        settled = replace(settled, cycles=load_checkpoint(folder / CHECKPOINT).config.cycles + more_stages)
    return settled, resume


def _fabric(device: torch.device, devices: int, nodes: int) -> Fabric:
    """One process, or one per device. Processes that torchrun or Slurm started are joined, not started again."""
    if devices < 1 or nodes < 1:
        raise InputError(f"got {devices} devices and {nodes} nodes, expected at least 1 of each; correct them")
    if device.type == "cuda" and devices > torch.cuda.device_count():
        raise InputError(
            f"got {devices} devices, expected at most the {torch.cuda.device_count()} of this machine; lower --devices"
        )
    started_outside = "LOCAL_RANK" in os.environ or "SLURM_NTASKS" in os.environ
    several = "ddp" if nodes > 1 or started_outside else "ddp_spawn"
    if devices * nodes == 1:
        strategy: Any = "auto"
    else:
        from lightning_fabric.strategies.ddp import DDPStrategy

        start: Any = {"ddp": "popen", "ddp_spawn": "spawn"}[several]
        # Some parameters get no gradient: the head from the contrast, a frozen extractor from anything.
        strategy = DDPStrategy(start_method=start, find_unused_parameters=True)
    return Fabric(accelerator=device.type, devices=devices, num_nodes=nodes, strategy=strategy, precision="32-true")
