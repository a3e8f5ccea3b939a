"""What a user sees of a run: a live line, metrics.jsonl, progress.png and optionally TensorBoard."""

import json
import math
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from corereg.errors import InputError
from corereg.io.atomic import atomic_path
from corereg.progress import Step, duration

__all__ = ["METRICS", "PROGRESS", "SMOOTHED_STEPS", "VALIDATION", "Monitor", "check_tensorboard", "draw_progress"]

METRICS, PROGRESS = "metrics.jsonl", "progress.png"

LINES_EVERY_S = 30.0
"""Seconds between two lines of the log, which stands in for the live line where there is no terminal."""

SPEED_STEPS = 20
"""Steps over which the speed is averaged."""

Line = Callable[[str], None]


class Monitor:
    """Writes the numbers of a run as they come. Only the first process of a run has a monitor.

    Args:
        folder: the run's folder.
        cycles, steps: of the whole run, and of each cycle.
        progress: receives the live line; called often.
        log: receives lines worth keeping; None on a terminal, where the live line is enough.
        tensorboard: also write event files to the run's folder.
    """

    def __init__(
        self,
        folder: Path,
        *,
        cycles: int,
        steps: int,
        progress: Line,
        log: Line | None = None,
        tensorboard: bool = False,
    ) -> None:
        self.cycles, self.steps = cycles, steps
        self.path, self.progress, self.log = folder / METRICS, progress, log
        self.picture = folder / PROGRESS
        self.rows: list[dict[str, Any]] = []
        self.times: deque[float] = deque(maxlen=SPEED_STEPS + 1)
        self.logged = -math.inf
        self.events = _event_writer(folder) if tensorboard else None

    def start(self, cycle: int, step: int) -> None:
        """Drop the rows from this point on: a resumed run writes them again."""
        if self.path.is_file():
            rows = [json.loads(line) for line in self.path.read_text(encoding="utf-8").splitlines() if line]
            self.rows = [row for row in rows if (row["cycle"], row.get("step", -1)) < (cycle, step)]
        with atomic_path(self.path) as staged:
            staged.write_text("".join(json.dumps(row) + "\n" for row in self.rows), encoding="utf-8")

    def step(self, row: Mapping[str, Any], *, images: int, left: int) -> None:
        """Record a training step's losses.

        Args:
            row: cycle, step and numbers.
            images: images per step, over all processes.
            left: remaining steps of the run.
        """
        if self.rows and "loss" not in self.rows[-1]:
            # Labels or a validation came in between, and they are no part of the steps' speed.
            self.times.clear()
        self.times.append(time.perf_counter())
        speed = (len(self.times) - 1) / (self.times[-1] - self.times[0]) if len(self.times) > 1 else math.nan
        self._write(dict(row) | {"images_per_second": _rounded(images * speed)})
        numbers = ", ".join(f"{k} {row[k]:.4g}" for k in ("loss", "registration", "contrast") if k in row)
        rest = "" if math.isnan(speed) else f", {images * speed:.1f} images/s, {duration(left / speed)} left"
        total = self.cycles * self.steps
        place = f"{self._cycle(row['cycle'])}, step {row['step'] + 1} of {self.steps}"
        self._show(Step(f"{place}: {numbers}, lr {row['learning_rate']:.2g}{rest}", total - left, total))

    def sweep(self, cycle: int, done: int, pairs: int) -> None:
        """Show the progress of the pseudo-labels."""
        self._show(Step(f"{self._cycle(cycle)}: pseudo-labels, {done} of {pairs} pairs", done, pairs))

    def cycle(self, row: Mapping[str, Any]) -> None:
        """Record figures of a whole cycle: those of its pseudo-labels, or of the validation after it."""
        self._write(row)
        words = ", ".join(f"{k} {v:.4g}" for k, v in row.items() if k not in ("cycle", "step") and v is not None)
        (self.log or self.progress)(f"{self._cycle(row['cycle'])}: {words}")

    def draw(self) -> None:
        """Redraw progress.png."""
        draw_progress(self.picture, self.rows)

    def last_validation(self) -> dict[str, float]:
        """Figures of the last validation; empty if there was none."""
        measured = [row for row in self.rows if "sdlogj" in row]
        return {k: v for k, v in measured[-1].items() if k not in ("cycle", "step")} if measured else {}

    def _cycle(self, number: int) -> str:
        return f"cycle {number + 1} of {self.cycles}"

    def _show(self, line: str) -> None:
        self.progress(line)
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
    """Six significant digits; NaN and infinity become null."""
    if not isinstance(value, float):
        return value
    return float(f"{value:.6g}") if math.isfinite(value) else None


def check_tensorboard() -> None:
    """Check, before scans are prepared, that event files can be written.

    Raises:
        InputError: TensorBoard is not installed.
    """
    if find_spec("tensorboard") is None:
        raise InputError("got --tensorboard, but TensorBoard is not installed; pip install 'corereg[tensorboard]'")


def _event_writer(folder: Path) -> Any:
    check_tensorboard()
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder / "tensorboard"))


SMOOTHED_STEPS = 50
"""Width of the running mean of the losses, which jump from batch to batch."""

VALIDATION = (
    (("dice_before", "dice_coarse", "dice"), "Dice"),
    (("inverse_error_mm",), "inverse error, mm"),
    (("sdlogj",), "SDlogJ"),
)


def draw_progress(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Draw losses against steps, and the validation after each cycle.

    Args:
        rows: the rows of metrics.jsonl.
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
