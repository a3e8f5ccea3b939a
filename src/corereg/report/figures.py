"""Figures of a benchmark, for a page (SVG) or a paper (PDF). The same rows give the same bytes.

Upstream: rows of `evaluation.benchmark.run`. Downstream: `cohort`.
"""

import io
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np

from corereg.evaluation.measures import MEASURES, per_label, summary, values
from corereg.report.text import printable

__all__ = ["Drawn", "make_figures"]

Rows = Mapping[str, Sequence[Mapping[str, Any]]]
"""Title of a method -> its rows."""

COLOURS = ("#0a6c87", "#d1662b", "#5b8c2a", "#8a4fae", "#b98a10", "#b23a5c", "#4a6fb5", "#6b6b6b")
"""Together with the markers, distinguishable in print and with either kind of colour blindness. Repeated if needed."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
WIDTH_INCHES, HEIGHT_INCHES = 6.4, 4.2
WIDE = 10.0
"""Ratio of a logarithmic axis's ends from which only powers of ten are labelled."""
FEW_LABELS = 8
"""Number of structures above which the figure becomes wider."""
STYLE = {
    "svg.hashsalt": "corereg",
    "svg.fonttype": "path",
    "pdf.fonttype": 42,
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e3e7eb",
    "axes.axisbelow": True,
    "figure.facecolor": "#ffffff",
}


class Drawn(NamedTuple):
    """A figure."""

    caption: str
    svg: str
    pdf: bytes


def make_figures(rows: Rows, label_names: Mapping[int, str]) -> dict[str, Drawn]:
    """Draw Dice per structure, Dice against SDlogJ and Dice against time, as far as the rows allow.

    Returns: figures by name.
    """
    rows = {printable(title): found for title, found in rows.items()}
    label_names = {label: printable(name) for label, name in label_names.items()}
    wanted: dict[str, tuple[str, Callable[[Any], bool]]] = {
        "dice-per-label": (
            "Dice of each structure over the pairs: median, quartiles, whiskers up to 1.5 times the quartile range. "
            "Points are pairs.",
            lambda figure: _box_plot(figure, rows, label_names),
        ),
        "dice-sdlogj": (
            "Accuracy against regularity: mean over the pairs with 95 % intervals. Small points are pairs. "
            "Top left is best.",
            lambda figure: _scatter(figure, rows, "sdlogj"),
        ),
        "dice-seconds": (
            "Accuracy against time per pair: mean with 95 % intervals; time on a logarithmic axis. Small "
            "points are pairs.",
            lambda figure: _scatter(figure, rows, "seconds", logarithmic=True),
        ),
    }
    matplotlib: Any = import_module("matplotlib")
    matplotlib_figure: Any = import_module("matplotlib.figure")
    made = {}
    with matplotlib.rc_context(STYLE):
        for name, (caption, draw) in wanted.items():
            figure = matplotlib_figure.Figure(figsize=(WIDTH_INCHES, HEIGHT_INCHES), layout="constrained")
            if draw(figure):
                text = io.StringIO()
                figure.savefig(text, format="svg", metadata={"Date": None, "Creator": "corereg"})
                pdf = io.BytesIO()
                figure.savefig(pdf, format="pdf", metadata={"CreationDate": None, "Creator": "corereg"})
                made[name] = Drawn(caption, text.getvalue(), pdf.getvalue())
    return made


def _box_plot(figure: Any, rows: Rows, label_names: Mapping[int, str]) -> bool:
    scores = {title: per_label(method_rows) for title, method_rows in rows.items()}
    labels = sorted({label for found in scores.values() for label in found})
    if not labels:
        return False
    if len(labels) > FEW_LABELS:
        figure.set_size_inches(WIDTH_INCHES * len(labels) / FEW_LABELS, HEIGHT_INCHES)
    axes = figure.subplots()
    width = 0.8 / len(scores)
    for place, (title, found) in enumerate(scores.items()):
        colour = COLOURS[place % len(COLOURS)]
        axes.boxplot(
            [found.get(label, []) for label in labels],
            positions=[at + (place - (len(scores) - 1) / 2) * width for at in range(len(labels))],
            widths=0.85 * width,
            patch_artist=True,
            manage_ticks=False,
            boxprops={"facecolor": colour, "alpha": 0.55, "edgecolor": colour},
            medianprops={"color": "#16191d"},
            whiskerprops={"color": colour},
            capprops={"color": colour},
            showfliers=False,
        )
        for at, label in enumerate(labels):
            centre, points = at + (place - (len(scores) - 1) / 2) * width, found.get(label, [])
            # Spread evenly, in the order of the pairs: chance would change the figure's bytes.
            spread = np.linspace(-0.25, 0.25, len(points)) * width if len(points) > 1 else [0.0] * len(points)
            axes.plot(centre + np.asarray(spread), points, ".", color=colour, markersize=3, alpha=0.7, zorder=3)
        axes.plot([], [], color=colour, linewidth=6, alpha=0.55, label=title)
    axes.set_xticks(range(len(labels)), [label_names.get(label, f"label {label}") for label in labels])
    axes.tick_params(axis="x", rotation=30)
    for text in axes.get_xticklabels():
        text.set(horizontalalignment="right", rotation_mode="anchor")
    axes.set_ylabel("Dice")
    axes.set_ylim(0, 1)
    figure.legend(loc="outside upper center", ncols=min(4, len(scores)), frameon=False)
    return True


def _scatter(figure: Any, rows: Rows, across: str, *, logarithmic: bool = False) -> bool:
    points = {title: (summary(found, across), summary(found, "dice")) for title, found in rows.items()}
    if not any(x.count and y.count for x, y in points.values()):
        return False
    axes = figure.subplots()
    for place, (title, (x, y)) in enumerate(points.items()):
        known = y.count > 1 and x.count > 1
        pairs = values(rows[title], across), values(rows[title], "dice")
        axes.plot(*pairs, ".", color=COLOURS[place % len(COLOURS)], markersize=4, alpha=0.35, zorder=1)
        errors = {"xerr": [[x.mean - x.low], [x.high - x.mean]], "yerr": [[y.mean - y.low], [y.high - y.mean]]}
        axes.errorbar(
            [x.mean],
            [y.mean],
            **(errors if known else {}),
            marker=MARKERS[place % len(MARKERS)],
            color=COLOURS[place % len(COLOURS)],
            markersize=7,
            linestyle="none",
            label=title,
        )
    if logarithmic:
        axes.set_xscale("log")
        plain = import_module("matplotlib.ticker").FuncFormatter(lambda value, _: f"{value:g}")
        axes.xaxis.set_major_formatter(plain)
        low, high = axes.get_xlim()
        axes.xaxis.set_minor_formatter(plain if high < WIDE * low else "")
    axes.set_xlabel("seconds per pair" if across == "seconds" else MEASURES[across].title)
    axes.set_ylabel("Dice")
    figure.legend(loc="outside upper center", ncols=3, frameon=False)
    return True
