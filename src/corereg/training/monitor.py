"""What a user sees of a run: a live line, metrics.jsonl, progress.png and optionally a logger of Lightning."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from corereg.io.atomic import atomic_path
from corereg.progress import Step
from corereg.training.forecast import PAIR, STEP, VALIDATION, Forecast
from corereg.training.loggers import Logger, close_logger, log_row

__all__ = ["FIGURES", "METRICS", "PROGRESS", "SMOOTHED_STEPS", "Monitor", "draw_progress"]

METRICS, PROGRESS = "metrics.jsonl", "progress.png"

Line = Callable[[str], None]


class Monitor:
    """Writes the numbers of a run as they come. Only the first process of a run has a monitor.

    Args:
        folder: the run's folder.
        forecast: knows the run's work, and how much of it is left.
        progress: receives the live line; called often.
        log: receives lines worth keeping; by default the live line does.
        open_logger: opens a logger that also receives the numbers, given the rows so far.
    """

    def __init__(
        self,
        folder: Path,
        forecast: Forecast,
        *,
        progress: Line,
        log: Line | None = None,
        open_logger: Callable[[list[dict[str, Any]]], Logger] | None = None,
    ) -> None:
        self.forecast, self.open_logger = forecast, open_logger
        self.logger: Logger | None = None
        self.path, self.progress, self.log = folder / METRICS, progress, log or progress
        self.picture = folder / PROGRESS
        self.rows: list[dict[str, Any]] = []
        self.steps = 0
        """Steps in `rows`."""

    def start(self, cycle: int, step: int) -> None:
        """Drop the rows from this point on: a resumed run writes them again."""
        if self.path.is_file():
            rows = [json.loads(line) for line in self.path.read_text(encoding="utf-8").splitlines() if line]
            self.rows = [row for row in rows if (row["cycle"], row.get("step", -1)) < (cycle, step)]
        with atomic_path(self.path) as staged:
            staged.write_text("".join(json.dumps(row) + "\n" for row in self.rows), encoding="utf-8")
        self.steps = sum("loss" in row for row in self.rows)
        if self.open_logger:
            self.logger = self.open_logger(self.rows)
        self.forecast.reach(cycle, STEP if step else PAIR, step)

    def step(self, row: Mapping[str, Any], *, images: int) -> None:
        """Record a training step's losses.

        Args:
            row: cycle, step and numbers.
            images: images per step, over all processes.
        """
        self.steps += 1
        self.forecast.reach(row["cycle"], STEP, row["step"] + 1)
        times = self.forecast.measured[STEP]
        speed = images / self.forecast.seconds(STEP) if times else math.nan
        self._write(dict(row) | {"images_per_second": _rounded(speed)})
        numbers = ", ".join(f"{k} {row[k]:.4g}" for k in ("loss", "registration", "contrast") if k in row)
        rest = "" if math.isnan(speed) else f", {speed:.1f} images/s"
        steps = self.forecast.cycles[row["cycle"]][STEP]
        self._show(row["cycle"], f", step {row['step'] + 1} of {steps}: {numbers}, lr {row['learning_rate']:.2g}{rest}")

    def sweep(self, cycle: int, done: int, pairs: int) -> None:
        """Show the progress of the pseudo-labels."""
        self.forecast.reach(cycle, PAIR, done)
        self._show(cycle, f": pseudo-labels, {done} of {pairs} pairs")

    def validated(self, cycle: int, done: int, pairs: int) -> None:
        """Show the progress of the validation."""
        self.forecast.reach(cycle, VALIDATION, done)
        self._show(cycle, f": validation, {f'{done} of {pairs} pairs' if done < pairs else 'looking for features'}")

    def cycle(self, row: Mapping[str, Any]) -> None:
        """Record figures of a whole cycle: those of its pseudo-labels, or of the validation after it."""
        self._write(row)
        words = ", ".join(f"{k} {v:.4g}" for k, v in row.items() if k not in ("cycle", "step") and v is not None)
        self.log(f"{self._cycle(row['cycle'])}: {words}")

    def draw(self) -> None:
        """Redraw progress.png."""
        draw_progress(self.picture, self.rows)

    def validations(self) -> list[dict[str, Any]]:
        """The rows of the validations so far, one for each cycle."""
        return [row for row in self.rows if "sdlogj" in row]

    def close(self) -> None:
        """Let the logger write what it has kept back."""
        if self.logger:
            close_logger(self.logger)

    def _cycle(self, number: int) -> str:
        return f"cycle {number + 1} of {len(self.forecast.cycles)}"

    def _show(self, cycle: int, text: str) -> None:
        seconds, left = self.forecast.seconds_left(), self.forecast.left(STEP)
        total = sum(each[STEP] for each in self.forecast.cycles)
        known = None if math.isnan(seconds) else seconds
        self.progress(Step(f"{self._cycle(cycle)}{text}", total - left, total, known))

    def _write(self, row: Mapping[str, Any]) -> None:
        plain = {key: _rounded(value) for key, value in row.items()}
        self.rows.append(plain)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(plain) + "\n")
        if self.logger:
            log_row(self.logger, plain, self.steps)


def _rounded(value: Any) -> Any:
    """Six significant digits; NaN and infinity become null."""
    if not isinstance(value, float):
        return value
    return float(f"{value:.6g}") if math.isfinite(value) else None


SMOOTHED_STEPS = 50
"""Width of the running mean of the losses, which jump from batch to batch."""

FIGURES = (
    (("dice_before", "dice_coarse", "dice"), "Dice"),
    (("inverse_error_mm",), "inverse error, mm"),
    (("sdlogj",), "SDlogJ"),
    (("mind_auc", "match_auc"), "right matches, area under the curve"),
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
    shown = [(keys, title) for keys, title in FIGURES if any(row.get(keys[-1]) is not None for row in cycles)]
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
