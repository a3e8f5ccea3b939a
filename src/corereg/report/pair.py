"""A registration on one page: a single HTML file that shows what happened and needs nothing else.

Upstream: a finished registration. Downstream: a reader with a browser, on paper or without a network.

I J K voxel axes in array order.
"""

import math
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from corereg.errors import InputError
from corereg.evaluation.metrics import dice
from corereg.geometry.grid import Grid
from corereg.io.atomic import atomic_path
from corereg.report.pages import render
from corereg.report.sections.images import make_sections, scale_bar_mm, structure_colour
from corereg.report.sections.planes import PLANES, View, body_mask, display_window, make_view, reorient
from corereg.report.sections.scene import Scene
from corereg.report.viewer import make_viewer

__all__ = ["write_report"]

Volume = NDArray[Any]

TEMPLATE = "pair.html.j2"
HEADLINE_GROUP = "metrics"
"""The group of the summary whose first numbers stand at the top of the page."""
HEADLINE_NUMBERS = 6
OBLIQUE = 1e-3
"""Of the voxel size, along another axis: more is no rounding of the header."""
DASH = "\N{EN DASH}"
WORDS = {
    "dice": "Dice",
    "hd95": "HD95",
    "tre": "TRE",
    "sdlogj": "SDlogJ",
    "ndv": "NDV",
    "det": "det",
    "j": "J",
    "mm": "(mm)",
    "vox": "(voxels)",
    "hu": "(HU)",
    "percent": "(%)",
    "mb": "(MB)",
    "gb": "(GB)",
    "id": "ID",
    "ct": "CT",
    "mr": "MR",
    "sha256": "SHA-256",
    "corereg": "corereg",
}
"""Parts of a name that are not simply written out."""


@dataclass(frozen=True)
class Table:
    """Names and values under one heading."""

    title: str
    rows: list[tuple[str, str]]


@dataclass(frozen=True)
class Overlap:
    """Dice of one structure before and after; percentages for the bars, None where it is not known."""

    name: str
    colour: str
    before: str
    after: str
    before_percent: float | None
    after_percent: float | None


def write_report(
    path: str | os.PathLike[str],
    *,
    fixed: Volume,
    warped: Volume,
    moving_before: Volume,
    grid: Grid,
    summary: Mapping[str, object],
    command: str,
    disp_mm: Volume | None = None,
    det_j: Volume | None = None,
    fixed_labels: Volume | None = None,
    moving_labels: Volume | None = None,
    warped_labels: Volume | None = None,
    label_names: Mapping[int, str] | None = None,
    title: str = "Registration report",
    viewer: bool = True,
) -> None:
    """Write one self-contained HTML page about a registration; the same input gives the same bytes.

    Args:
        path: where to; appears only when complete.
        fixed, warped, moving_before: (I, J, K), intensities on the fixed grid; `moving_before` is the moving image
            resampled there before the deformable registration.
        grid: the fixed grid.
        summary: what to print, by group: group -> name -> value (nested as deep as need be); values that are in no
            group come first. The first numbers of the group "metrics" head the page.
        command: what made this, to the letter.
        disp_mm: (3, I, J, K), displacement in millimetres.
        det_j: (I, J, K), Jacobian determinant, NaN where it is not defined; or without an equally wide border.
        fixed_labels, moving_labels, warped_labels: (I, J, K), integers on the fixed grid; `moving_labels` those of
            `moving_before`.
        label_names: label -> name of the structure.
        title: heading of the page.
        viewer: whether to put the volumes and a viewer into it: a megabyte and up to 12 more for the volumes.

    Raises:
        InputError: a volume is not on the grid, or `path` cannot be written to.
    """
    volumes = {
        "fixed": fixed,
        "warped": warped,
        "moving_before": moving_before,
        "fixed_labels": fixed_labels,
        "moving_labels": moving_labels,
        "warped_labels": warped_labels,
    }
    for name, volume in volumes.items():
        if volume is not None and volume.shape != grid.shape:
            raise InputError(f"got {name} of shape {volume.shape}, expected that of the fixed grid, {grid.shape}")
    volumes["det_j"] = None if det_j is None else _with_border(det_j, grid)
    scene = _make_scene(volumes, disp_mm, grid)
    tables = list(_tables(summary))
    metrics = next((table.rows for table in tables if table.title == _words(HEADLINE_GROUP)), [])
    headline = [row for row in metrics if row[1] != DASH][:HEADLINE_NUMBERS]
    names = label_names or {}
    with ThreadPoolExecutor(1) as pool:  # compressing volumes and pictures lets others run
        made = pool.submit(make_viewer, scene, grid, names) if viewer else None
        sections = make_sections(scene)
    html = render(
        TEMPLATE,
        title=title,
        grid=str(grid),
        position=_position(scene.view, grid),
        oblique=_is_oblique(grid),
        planes=PLANES,
        columns=[scene.view.extent_mm[plane.columns] for plane in PLANES],
        scale_mm=scale_bar_mm(scene.view),
        sections=sections,
        headline=headline,
        tables=tables,
        overlaps=_overlaps(fixed_labels, moving_labels, warped_labels, names),
        viewer=None if made is None else made.result(),
        command=command,
    )
    with atomic_path(path) as unfinished:
        unfinished.write_text(html, "utf-8")


def _make_scene(volumes: Mapping[str, Volume | None], disp_mm: Volume | None, grid: Grid) -> Scene:
    """Everything in canonical order, with windows and planes chosen."""
    upright = {name: reorient(volume, grid) for name, volume in volumes.items() if volume is not None}
    fixed_window = display_window(upright["fixed"])
    body = body_mask(upright["fixed"], fixed_window)
    return Scene(
        view=make_view(body, grid),
        body=body,
        fixed_window=fixed_window,
        moving_window=display_window(upright["moving_before"]),
        displacement=None if disp_mm is None else _along_axes(disp_mm, grid),
        **upright,
    )


def _along_axes(disp_mm: Volume, grid: Grid) -> Volume:
    """(3, R, A, S), millimetres along the canonical axes, which differ from the world's where the scan is oblique."""
    if disp_mm.shape != (3, *grid.shape):
        raise InputError(f"got disp_mm of shape {disp_mm.shape}, expected {(3, *grid.shape)}")
    disp_mm = disp_mm.astype(np.float32, copy=False)
    canonical = grid.canonical()
    directions = np.asarray(canonical.linear / canonical.spacing, np.float32)
    if not np.array_equal(directions, np.eye(3)):
        world, disp_mm = disp_mm, np.empty_like(disp_mm)
        for i in range(grid.shape[0]):  # plane by plane, for the memory's sake
            np.einsum("wc,wjk->cjk", directions, world[:, i], out=disp_mm[:, i])
    return reorient(disp_mm, grid)


def _with_border(det_j: Volume, grid: Grid) -> Volume:
    """A Jacobian map on the whole grid: a border that was left out comes back as NaN."""
    missing = set(np.subtract(grid.shape, det_j.shape).tolist()) if det_j.ndim == 3 else set()
    border, odd = divmod(max(missing, default=-1), 2)
    if len(missing) != 1 or border < 0 or odd:
        raise InputError(f"got det_j of shape {det_j.shape}, expected {grid.shape}, or that less an equal border")
    return np.pad(det_j, border, constant_values=np.nan) if border else det_j


def _position(view: View, grid: Grid) -> str:
    """Where the planes lie in the world, e.g. "R 12, P 30, S 410 mm"."""
    position_mm = grid.canonical().to_world(np.array(view.centre_vox)).tolist()
    letters = zip(("RL", "AP", "SI"), position_mm, strict=True)
    return ", ".join(f"{pair[value < 0]} {abs(value):.0f}" for pair, value in letters) + " mm"


def _is_oblique(grid: Grid) -> bool:
    canonical = grid.canonical().linear
    return bool(np.abs(canonical - np.diag(np.diag(canonical))).max() > OBLIQUE * min(grid.spacing))


def _tables(summary: Mapping[str, object]) -> Iterator[Table]:
    """The summary as tables: what is in no group, then each group."""
    loose = {name: value for name, value in summary.items() if not isinstance(value, Mapping)}
    if loose:
        yield Table("Pair", list(_flatten(loose)))
    for name, group in summary.items():
        if isinstance(group, Mapping) and group:
            yield Table(_words(name), list(_flatten(group)))


def _flatten(group: Mapping[Any, object], parents: tuple[str, ...] = ()) -> Iterator[tuple[str, str]]:
    for key, value in group.items():
        names = (*parents, _words(str(key), first=not parents))
        if isinstance(value, Mapping):
            yield from _flatten(value, names)
        else:
            yield " \N{MIDDLE DOT} ".join(names), _format(value)


def _words(name: str, *, first: bool = True) -> str:
    """A variable's name as words: "mean_dice" -> "Mean Dice", "tre_mm" -> "TRE (mm)"."""
    words = [word for word in name.split("_") if word]
    text = " ".join(WORDS.get(word, word) for word in words)
    return text[0].upper() + text[1:] if first and words and words[0] not in WORDS else text or name


def _format(value: object) -> str:
    """A value for a reader: four significant digits, a dash for what is not known."""
    if value is None:
        return DASH
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, float | np.floating):
        number = float(value)
        if math.isnan(number):
            return DASH
        return "\N{INFINITY}" if math.isinf(number) else f"{number:.4g}".replace("-", "\N{MINUS SIGN}")
    if isinstance(value, list | tuple | np.ndarray):
        return ", ".join(_format(item) for item in value)
    return str(value)


def _overlaps(
    fixed: Volume | None, before: Volume | None, after: Volume | None, names: Mapping[int, str]
) -> list[Overlap]:
    """Dice of every structure that the fixed image and the moving image share."""
    if fixed is None or after is None:
        return []
    scores_after = dice(fixed, after, before)
    scores_before = {} if before is None else dice(fixed, before, before)
    rows = []
    for label, score in scores_after.items():
        before_score = scores_before.get(label, math.nan)
        rows.append(
            Overlap(
                name=names.get(label, f"Label {label}"),
                colour=structure_colour(label),
                before=_format(round(before_score, 3)),
                after=_format(round(score, 3)),
                before_percent=_percent(before_score),
                after_percent=_percent(score),
            )
        )
    return rows


def _percent(score: float) -> float | None:
    return None if math.isnan(score) else round(100 * score, 1)
