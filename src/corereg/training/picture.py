"""progress.png: a run at a glance."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from corereg.io.atomic import atomic_path

__all__ = ["draw_progress"]

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
