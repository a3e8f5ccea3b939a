"""`corereg.train`: a data set of unlabelled scans in, a model file out."""

import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import torch
import yaml
from lightning_fabric import Fabric

from corereg.data.pairs import Dataset, read_dataset
from corereg.errors import InputError
from corereg.io.atomic import atomic_path, ensure_output_folder
from corereg.method.config import find_device
from corereg.method.features.model_file import save_model
from corereg.method.features.network import ConvNetModel
from corereg.provenance import versions
from corereg.training.checkpoint import CHECKPOINT, Checkpoint, check_unchanged, load_checkpoint
from corereg.training.config import TrainConfig, as_settings, with_settings
from corereg.training.loop import Run
from corereg.training.monitor import Monitor
from corereg.training.recipes import get_recipe
from corereg.training.scans.volumes import Volumes, prepare_volumes
from corereg.training.validation import Validation

__all__ = ["CONFIG", "MODEL", "TrainingResult", "train"]

CONFIG, MODEL = "config.yaml", "model.safetensors"

STOP_SIGNALS = ("SIGTERM", "SIGINT", "SIGUSR1")
"""What a user, a cluster's scheduler or a pre-empted node sends; the run saves first."""

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class TrainingResult:
    """A finished run."""

    folder: Path
    model: Path
    """Weights as a safetensors file with their card: what `--model` takes."""
    metrics: Mapping[str, float]
    """Of the last cycle."""


@dataclass(frozen=True, slots=True)
class _Task:
    """All that a process of the run needs to know."""

    dataset: Dataset
    folder: Path
    cache: Path
    config: TrainConfig
    resume: bool
    tensorboard: bool
    say: Say
    log: Say | None


def train(
    dataset: str | Path,
    out: str | Path,
    *,
    recipe: str = "default",
    config: TrainConfig | None = None,
    settings: Mapping[str, Any] | None = None,
    resume: bool = False,
    more_stages: int = 0,
    device: str = "auto",
    devices: int = 1,
    nodes: int = 1,
    cache: str | Path | None = None,
    metadata: str | Path | None = None,
    tensorboard: bool = False,
    progress: Say | None = None,
    log: Say | None = None,
) -> TrainingResult:
    """Train the network on unlabelled scans. Labels, where validation pairs have them, only measure.

    Args:
        dataset: a Learn2Reg dataset JSON, an nnU-Net raw folder, a RAD-ChestCT folder, a folder of images or a CSV of
            pairs.
        out: the run's folder: config.yaml, metrics.jsonl, progress.png, checkpoint.pt, model.safetensors.
        recipe: named configuration to start from; `config` replaces it.
        settings: single settings by (dotted) name, on top.
        resume: go on from the checkpoint in `out`, exactly where it was written.
        more_stages: cycles to add to a finished run; resumes it.
        device: auto, cpu, cuda or mps.
        devices, nodes: processes on each node, and nodes; Slurm's and torchrun's environments are understood.
        cache: folder of the prepared scans, by default in `out`; runs on the same scans can share one.
        metadata: RAD-ChestCT's table of patients, where it lies elsewhere.
        tensorboard: also write event files.
        progress: called often with a line on where the run is.
        log: called with lines worth keeping.

    Raises:
        InputError: scans, settings or a folder that cannot be used; a loss that is no number; a full disk.
        Interrupted: asked to stop by a signal; the checkpoint is written.
    """
    folder = ensure_output_folder(out)
    settled, resume = _settle(folder, recipe, config, settings or {}, resume, more_stages)
    task = _Task(
        dataset=read_dataset(dataset, pairing=settled.pairing, metadata=None if metadata is None else Path(metadata)),
        folder=folder,
        cache=folder / "cache" if cache is None else ensure_output_folder(cache),
        config=settled,
        resume=resume,
        tensorboard=tensorboard,
        say=progress or _say_nothing,
        log=log,
    )
    if devices * nodes > 1:
        # Processes of their own cannot draw on the caller's screen.
        task = replace(task, say=_say_nothing, log=_log_line)
    with atomic_path(folder / CONFIG) as staged:
        staged.write_text(yaml.safe_dump(as_settings(settled), sort_keys=False), encoding="utf-8")
    fabric = _fabric(find_device(device), devices, nodes)
    metrics: Mapping[str, float] = fabric.launch(partial(_run, task=task))
    return TrainingResult(folder, folder / MODEL, metrics)


def _say_nothing(line: str) -> None: ...


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
    """The run's configuration, and whether it goes on with an earlier one."""
    if more_stages < 0:
        raise InputError(f"got --more-stages {more_stages}, expected 1 or more; correct it")
    going_on = resume or more_stages > 0
    if not going_on and (folder / CHECKPOINT).exists():
        raise InputError(
            f"got the run folder {folder}, which holds a run already, expected a new one; use --resume, --more-stages "
            "or another folder"
        )
    if going_on and config is None and recipe == "default":
        # A run is resumed by its folder alone; what is given again is checked against it.
        config = load_checkpoint(folder / CHECKPOINT).config
    settled = with_settings(config or get_recipe(recipe), settings)
    if going_on:
        settled = replace(settled, cycles=load_checkpoint(folder / CHECKPOINT).config.cycles + more_stages)
    return settled, going_on


def _fabric(device: torch.device, devices: int, nodes: int) -> Fabric:
    """One process, or one for each device; scripts that are started once per process are joined, not started again."""
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
        # The head has no part in the contrast, and the extractor none once it is frozen.
        strategy = DDPStrategy(start_method=start, find_unused_parameters=True)
    return Fabric(accelerator=device.type, devices=devices, num_nodes=nodes, strategy=strategy, precision="32-true")


def _run(fabric: Fabric, task: _Task) -> dict[str, float]:
    """One process of the run, from the scans to the model file."""
    if fabric.world_size > 1:
        # A 1x1x1 convolution's weights are channels-last and not, both at once: no matter in the run's own processes.
        warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
    volumes = _volumes(fabric, task)
    rows, dataset = volumes.rows, task.dataset
    pairs = [(rows[f], rows[m]) for f, m in dataset.training if f in rows and m in rows]
    if not pairs:
        raise InputError(
            f"got no training pair in {dataset.name} whose scans are usable, expected one; check the scans"
        )
    resumed = _checkpoint(task, volumes) if task.resume else None
    monitor = None
    if fabric.is_global_zero:
        monitor = Monitor(task.folder, say=task.say, log=task.log, tensorboard=task.tensorboard)
    with _stop_signals() as stop:
        run = Run(
            fabric=fabric,
            config=task.config,
            volumes=volumes,
            names={row: dataset.scans[scan].name for scan, row in rows.items()},
            pairs=pairs,
            either_way=not dataset.intra_patient,
            validation=Validation.of(dataset, volumes, task.config),
            folder=task.folder,
            monitor=monitor,
            resumed=resumed,
            stop=stop.is_set,
        )
        model = run.train()
    figures = _last_figures(monitor)
    if fabric.is_global_zero:
        with atomic_path(task.folder / MODEL) as staged:
            save_model(staged, model, _card(task, volumes, model, figures, pairs))
    fabric.barrier()
    return figures


def _volumes(fabric: Fabric, task: _Task) -> Volumes:
    """The cohort, prepared by the first process of each node and then opened by the others."""
    config = task.config
    scans = sorted({scan for pair in (*task.dataset.training, *task.dataset.validation) for scan in pair})
    with fabric.rank_zero_first(local=True):
        volumes = prepare_volumes(
            task.dataset,
            folder=task.cache,
            spacing_mm=config.spacing_mm,
            modality=config.modality,
            affine=config.affine,
            scans=scans,
            progress=task.say if fabric.is_global_zero else None,
        )
    if fabric.is_global_zero and task.log:
        for name, reason in volumes.skipped:
            task.log(f"skipped {name}: {reason}")
        size = " x ".join(map(str, volumes.grid.shape))
        task.log(f"{len(volumes.rows)} scans on {size} voxels, {len(volumes.skipped)} skipped")
    return volumes


def _checkpoint(task: _Task, volumes: Volumes) -> Checkpoint:
    checkpoint = load_checkpoint(task.folder / CHECKPOINT)
    check_unchanged(checkpoint, task.config, volumes.fingerprint)
    return checkpoint


@contextmanager
def _stop_signals() -> Iterator[threading.Event]:
    """An event that is set by the signals that ask a process to end; outside the main thread none can be caught."""
    stop = threading.Event()

    def ask(number: int, frame: FrameType | None) -> None:
        stop.set()

    numbers = [getattr(signal, name) for name in STOP_SIGNALS if hasattr(signal, name)]
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.signal(number, ask) for number in numbers}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _last_figures(monitor: Monitor | None) -> dict[str, float]:
    measured = [row for row in (monitor.rows if monitor else []) if "sdlogj" in row]
    return {k: v for k, v in measured[-1].items() if k not in ("cycle", "step")} if measured else {}


def _card(
    task: _Task, volumes: Volumes, model: ConvNetModel, figures: Mapping[str, float], pairs: list[tuple[int, int]]
) -> dict[str, Any]:
    """What to know of the weights, for the file's header."""
    return {
        "name": task.folder.name,
        "date": datetime.now(timezone.utc).date().isoformat(),
        "licence": task.config.licence,
        "data": {
            "name": task.dataset.name,
            "fingerprint": volumes.fingerprint,
            "scans": len({row for pair in pairs for row in pair}),
            "pairs": len(pairs),
            "modality": volumes.modality,
            "grid": list(volumes.grid.shape),
            "spacing_mm": list(volumes.grid.spacing),
        },
        "network": asdict(model.config),
        "training": as_settings(task.config),
        "metrics": dict(figures),
        "versions": versions("corereg", "torch", "numpy"),
    }
