"""One process of a training run, from the scans to the model files."""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from lightning_fabric import Fabric

from corereg.data.pairs import Dataset
from corereg.errors import InputError
from corereg.io.atomic import atomic_path
from corereg.method.features.model_file import Network, save_model
from corereg.training.card import card
from corereg.training.checkpoint import CHECKPOINT, check_unchanged, load_checkpoint
from corereg.training.config import TrainConfig
from corereg.training.forecast import PAIR, STEP, Forecast
from corereg.training.labels.maps import read_label_maps
from corereg.training.labels.run import LabelRun
from corereg.training.loggers import open_logger
from corereg.training.loop import Run
from corereg.training.monitor import Monitor
from corereg.training.scans.volumes import Volumes, prepare_volumes
from corereg.training.session import Session
from corereg.training.stopping import stop_signals
from corereg.training.trial import FEWEST_STEPS
from corereg.training.validation import Validation

__all__ = ["BEST", "MODEL", "Line", "Task", "cohort_volumes", "figures_of", "run_process"]

MODEL, BEST = "model.safetensors", "best.safetensors"
"""The weights at the end of the run, and those of the cycle with the best validation."""

Line = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Task:
    """Everything that a process of the run needs to know."""

    dataset: Dataset
    folder: Path
    cache: Path
    config: TrainConfig
    resume: bool
    logger: str | None
    progress: Line
    log: Line | None


def run_process(fabric: Fabric, task: Task) -> list[dict[str, Any]]:
    """Train, and write the models. Returns the rows of all validations; none but in the first process."""
    if fabric.world_size > 1:
        # The weights of a 1x1x1 convolution are contiguous and channels-last at once, which DDP warns about.
        warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
    volumes = _volumes(fabric, task)
    rows, dataset = volumes.rows, task.dataset
    pairs = [(rows[f], rows[m]) for f, m in dataset.training if f in rows and m in rows]
    if not pairs:
        raise InputError(
            f"no training pair of {dataset.name} has two usable scans, expected at least one; check the scans"
        )
    maps = read_label_maps(dataset, volumes) if task.config.objective == "labels" else None
    fingerprint = volumes.fingerprint if maps is None else maps.fingerprint(volumes.fingerprint)
    resumed = None
    if task.resume:
        resumed = load_checkpoint(task.folder / CHECKPOINT)
        check_unchanged(resumed, task.config, fingerprint)

    def write(name: str, model: Network, figures: Mapping[str, float]) -> None:
        if fabric.is_global_zero:
            with atomic_path(task.folder / name) as staged:
                facts = card(task.folder.name, dataset, task.config, volumes, maps, model, figures, pairs)
                save_model(staged, model, facts)

    with stop_signals() as stop:
        session = Session(
            fabric=fabric,
            config=task.config,
            volumes=volumes,
            names={row: dataset.scans[scan].name for scan, row in rows.items()},
            fingerprint=fingerprint,
            validation=Validation.of(dataset, volumes, task.config),
            folder=task.folder,
            monitor=None,
            resumed=resumed,
            stop=stop,
            keep_best=partial(write, BEST),
        )
        run: Run | LabelRun
        if maps is None:
            run = Run(session, pairs, either_way=not dataset.intra_patient)
        else:
            run = LabelRun(session, sorted({row for pair in pairs for row in pair}), maps)
        if fabric.is_global_zero:
            session.monitor = _monitor(task, run)
        model = run.train()
    validations = session.monitor.validations() if session.monitor else []
    write(MODEL, model, figures_of(validations[-1]) if validations else {})
    if session.monitor:
        session.monitor.close()
    fabric.barrier()
    return validations


def figures_of(row: Mapping[str, Any]) -> dict[str, float]:
    """The figures of a validation, without its place in the run."""
    return {key: value for key, value in row.items() if key not in ("cycle", "step")}


def _monitor(task: Task, run: Run | LabelRun) -> Monitor:
    """The monitor of a run, which knows how long it will take. Says so if it takes long."""
    forecast = Forecast(run.work())
    forecast.reach(run.session.start[0], STEP if run.session.start[1] else PAIR, run.session.start[1])
    if forecast.left(STEP) >= FEWEST_STEPS:
        task.progress("estimating time and memory")
        for line in run.estimate(forecast):
            (task.log or task.progress)(line)
    opened = partial(open_logger, task.logger, task.folder, task.config) if task.logger else None
    return Monitor(task.folder, forecast, progress=task.progress, log=task.log, open_logger=opened)


def _volumes(fabric: Fabric, task: Task) -> Volumes:
    """The cohort, prepared by the first process of each node and then opened by the others."""
    with fabric.rank_zero_first(local=True):
        progress = task.progress if fabric.is_global_zero else None
        volumes = cohort_volumes(task.dataset, task.config, task.cache, progress)
    if fabric.is_global_zero and task.log:
        for name, reason in volumes.skipped:
            task.log(f"skipped {name}: {reason}")
        size = " x ".join(map(str, volumes.grid.shape))
        task.log(f"{len(volumes.rows)} scans on {size} voxels, {len(volumes.skipped)} skipped")
        if not task.dataset.validation and task.config.validation_pairs:
            painted = any(task.dataset.scans[scan].map_only for scan in volumes.rows)
            instead = "label maps without scans are not measured; list scans in a CSV to validate on them"
            usually = "training pairs are measured after each cycle; --val-fraction holds some out"
            task.log(f"no validation pairs: {instead if painted else usually}")
    return volumes


def cohort_volumes(
    dataset: Dataset, config: TrainConfig, cache: Path, progress: Callable[[str], None] | None = None
) -> Volumes:
    """The scans of all training and validation pairs, prepared as a run prepares them. Test scans are never opened."""
    clamped = config.clamp_abdomen or config.modality != "ct-abdomen"
    return prepare_volumes(
        dataset,
        folder=cache,
        spacing_mm=config.spacing_mm,
        # The network for labels reads and writes blocks of two voxels: its detail is that of the 1/2 grid.
        finer=config.objective == "labels",
        modality=config.modality if clamped else "ct",
        affine=config.affine,
        progress=progress,
    )
