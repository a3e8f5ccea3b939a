"""Where else a run's numbers go: TensorBoard, Weights & Biases, MLflow or a CSV, through Lightning's loggers."""

import os
from collections.abc import Callable, Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from corereg.errors import InputError
from corereg.io.atomic import atomic_path
from corereg.settings import settings_of
from corereg.training.config import TrainConfig

__all__ = ["LOGGERS", "Logger", "check_logger", "close_logger", "log_row", "open_logger"]

PROJECT = "corereg"
"""Project of W&B and experiment of MLflow that runs are filed under."""

ONLINE = ("wandb", "mlflow")


@runtime_checkable
class Logger(Protocol):
    """The part of Lightning's loggers that a run uses."""

    def log_metrics(self, metrics: dict[str, float], step: int) -> None: ...

    def log_hyperparams(self, params: dict[str, Any]) -> None: ...

    def finalize(self, status: str) -> None: ...

    @property
    def experiment(self) -> Any: ...


def _tensorboard(folder: Path, known: str | None) -> Any:
    from lightning_fabric.loggers.tensorboard import TensorBoardLogger

    return TensorBoardLogger(folder, name="tensorboard", version="", default_hp_metric=False)


def _csv(folder: Path, known: str | None) -> Any:
    from lightning_fabric.loggers.csv_logs import CSVLogger

    (folder / "csv" / "metrics.csv").unlink(missing_ok=True)  # written again as a whole
    return CSVLogger(folder, name="csv", version="")


def _wandb(folder: Path, known: str | None) -> Any:
    from pytorch_lightning.loggers.wandb import WandbLogger

    return WandbLogger(project=PROJECT, name=folder.resolve().name, save_dir=folder, id=known, resume="allow")


def _mlflow(folder: Path, known: str | None) -> Any:
    from pytorch_lightning.loggers.mlflow import MLFlowLogger

    place = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{folder.resolve() / 'mlflow.db'}"
    return MLFlowLogger(PROJECT, run_name=folder.resolve().name, tracking_uri=place, run_id=known)


LOGGERS: Mapping[str, tuple[Callable[[Path, str | None], Any], tuple[str, ...]]] = {
    "tensorboard": (_tensorboard, ("tensorboard",)),
    "wandb": (_wandb, ("pytorch_lightning", "wandb")),
    "mlflow": (_mlflow, ("pytorch_lightning", "mlflow")),
    "csv": (_csv, ()),
}
"""By name: how a logger is opened, and the packages that it needs."""


def check_logger(name: str) -> None:
    """Check, before scans are read, that a logger is known and installed.

    Raises:
        InputError: it is not.
    """
    if name not in LOGGERS:
        raise InputError(f"got --logger {name}, expected one of {', '.join(LOGGERS)}; choose one")
    missing = [package for package in LOGGERS[name][1] if find_spec(package) is None]
    if missing:
        raise InputError(
            f"got --logger {name}, but {' and '.join(missing)} cannot be imported; pip install 'corereg[{name}]'"
        )


def open_logger(name: str, folder: Path, config: TrainConfig, rows: Iterable[Mapping[str, Any]]) -> Logger:
    """Open a logger. A resumed run continues its record of W&B or MLflow.

    Args:
        folder: the run's folder.
        rows: those of metrics.jsonl so far, of which a CSV is written again.
    """
    memory = folder / f"{name}.txt"
    known = memory.read_text("utf-8").strip() if memory.is_file() else None
    logger = LOGGERS[name][0](folder, known)
    if name in ONLINE:
        with atomic_path(memory) as staged:
            staged.write_text(str(logger.version), encoding="utf-8")
    if name == "csv":
        step = 0
        for row in rows:
            step += "loss" in row
            log_row(logger, row, step)
    elif known is None:
        logger.log_hyperparams({setting.path: setting.default for setting in settings_of(config)})
    return logger  # type: ignore[no-any-return]


def log_row(logger: Logger, row: Mapping[str, Any], step: int) -> None:
    """Log the numbers of a row of metrics.jsonl, at the run's step."""
    numbers = {k: v for k, v in row.items() if k not in ("cycle", "step") and isinstance(v, int | float)}
    logger.log_metrics(numbers, step=step)


def close_logger(logger: Logger) -> None:
    """Let a logger write what it has kept back."""
    logger.finalize("success")
    # Lightning leaves W&B's run open until the program ends.
    finish = getattr(logger.experiment, "finish", None)
    if finish is not None:
        finish()
