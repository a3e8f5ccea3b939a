"""What a user sees of a run: a live line, metrics.jsonl, progress.png and, where asked for, TensorBoard."""

import json
import math
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from corereg.errors import InputError
from corereg.io.atomic import atomic_path

__all__ = ["METRICS", "PROGRESS", "SMOOTHED_STEPS", "VALIDATION", "Monitor", "draw_progress"]

METRICS, PROGRESS = "metrics.jsonl", "progress.png"

LINES_EVERY_S = 30.0
"""Where nobody looks at a terminal a line goes to the log so often."""

SPEED_STEPS = 20
"""Steps over which the speed is averaged."""

Say = Callable[[str], None]


class Monitor:
    """Writes the numbers of a run as they come; one process of the run has one.

    Args:
        folder: of the run.
        say: gets the live line; called often.
        log: gets lines worth keeping; None for a terminal, where the live line is enough.
        tensorboard: also write event files to the run's folder.
    """

    def __init__(self, folder: Path, *, say: Say, log: Say | None = None, tensorboard: bool = False) -> None:
        self.path, self.say, self.log = folder / METRICS, say, log
        self.picture = folder / PROGRESS
        self.rows: list[dict[str, Any]] = []
        self.times: deque[float] = deque(maxlen=SPEED_STEPS + 1)
        self.logged = -math.inf
        self.events = _event_writer(folder) if tensorboard else None

    def start(self, cycle: int, step: int) -> None:
        """Forget rows from this point on: a resumed run writes them again."""
        if self.path.is_file():
            rows = [json.loads(line) for line in self.path.read_text(encoding="utf-8").splitlines() if line]
            self.rows = [row for row in rows if (row["cycle"], row.get("step", -1)) < (cycle, step)]
        with atomic_path(self.path) as staged:
            staged.write_text("".join(json.dumps(row) + "\n" for row in self.rows), encoding="utf-8")

    def step(self, row: Mapping[str, Any], *, images: int, left: int) -> None:
        """A training step's losses.

        Args:
            row: cycle, step and numbers.
            images: that a step takes, over all processes.
            left: steps to go in the run.
        """
        self.times.append(time.perf_counter())
        speed = (len(self.times) - 1) / (self.times[-1] - self.times[0]) if len(self.times) > 1 else math.nan
        self._write(dict(row) | {"images_per_second": _rounded(images * speed)})
        numbers = ", ".join(f"{k} {row[k]:.4g}" for k in ("loss", "registration", "contrast") if k in row)
        rest = "" if math.isnan(speed) else f", {images * speed:.1f} images/s, {_duration(left / speed)} left"
        self._tell(f"cycle {row['cycle']}, step {row['step']}: {numbers}, lr {row['learning_rate']:.2g}{rest}")

    def sweep(self, cycle: int, done: int, pairs: int) -> None:
        """Progress of the pseudo-labels."""
        self._tell(f"cycle {cycle}: pseudo-labels, {done} of {pairs} pairs")

    def cycle(self, row: Mapping[str, Any]) -> None:
        """Figures of a whole cycle: its pseudo-labels' difficulty, or the validation after it."""
        self._write(row)
        words = ", ".join(f"{k} {v:.4g}" for k, v in row.items() if k not in ("cycle", "step") and v is not None)
        (self.log or self.say)(f"cycle {row['cycle']}: {words}")

    def draw(self) -> None:
        """Redraw progress.png."""
        from corereg.training.monitor import draw_progress

        draw_progress(self.picture, self.rows)

    def restart_clock(self) -> None:
        """Leave out of the speed what was no step."""
        self.times.clear()

    def _tell(self, line: str) -> None:
        self.say(line)
        now = time.monotonic()
        if self.log and now - self.logged >= LINES_EVERY_S:
            self.logged = now
            self.log(line)

    def _write(self, row: Mapping[str, Any]) -> None:
        plain = {key: _rounded(value) for key, value in row.items()}
        self.rows.append(plain)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(plain) + "\n")
        if self.events:
            position = sum(1 for r in self.rows if "loss" in r)
            for key, value in plain.items():
                if key not in ("cycle", "step") and isinstance(value, int | float):
                    self.events.add_scalar(key, value, position)


def _rounded(value: Any) -> Any:
    """Six figures; what is not a number is null in JSON."""
    if not isinstance(value, float):
        return value
    return float(f"{value:.6g}") if math.isfinite(value) else None


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _event_writer(folder: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise InputError(
            "got --tensorboard, expected TensorBoard to be installed for it; pip install 'corereg[tensorboard]'"
        ) from None
    return SummaryWriter(str(folder / "tensorboard"))


SMOOTHED_STEPS = 50
"""Running mean of the losses, which jump from batch to batch."""

VALIDATION = (
    (("dice_before", "dice_coarse", "dice"), "Dice"),
    (("inverse_error_mm",), "inverse error, mm"),
    (("sdlogj",), "SDlogJ"),
)


def draw_progress(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Losses against steps, and what was measured after each cycle.

    Args:
        rows: of metrics.jsonl.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    steps = [row for row in rows if row.get("loss") is not None]
    cycles = [row for row in rows if row.get("sdlogj") is not None]
    shown = [(keys, title) for keys, title in VALIDATION if any(keys[-1] in row for row in cycles)]
    figure = Figure(figsize=(4.5 * (2 + len(shown)), 3.4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, 2 + len(shown))
    for axis, key in zip(axes, ("registration", "contrast"), strict=False):
        points = [(n, row[key]) for n, row in enumerate(steps) if row.get(key) is not None]
        if points:
            x, y = zip(*points, strict=True)
            axis.plot(x, y, color="0.8", linewidth=0.5)
            axis.plot(x, _running_mean(y), color="C0")
        axis.set(title=f"{key} loss", xlabel="step")
    for axis, (keys, title) in zip(axes[2:], shown, strict=True):
        for key in keys:
            points = [(row["cycle"] + 1, row[key]) for row in cycles if row.get(key) is not None]
            if points:
                axis.plot(*zip(*points, strict=True), marker="o", label=key)
        axis.set(title=title, xlabel="after cycle")
        if len(keys) > 1:
            axis.legend()
    for axis in axes:
        axis.grid(alpha=0.3)
    with atomic_path(path) as staged:
        figure.savefig(staged, dpi=110)


def _running_mean(values: Sequence[float]) -> list[float]:
    means = []
    for end in range(1, len(values) + 1):
        window = values[max(0, end - SMOOTHED_STEPS) : end]
        means.append(sum(window) / len(window))
    return means
