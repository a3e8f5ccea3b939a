"""The page about one registration: a single HTML file with all pictures and numbers, which needs no network.

Upstream: `sections`, `summary`, `viewer`. Downstream: `workflows.register`.

I J K voxel axes in array order.
"""

import math
import os
from collections.abc import Mapping, Sequence
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
from corereg.report.sections.planes import PLANES, View, body_mask, make_view, reorient
from corereg.report.sections.scene import Scene
from corereg.report.sections.windows import display_window, window_for_body
from corereg.report.summary import formatted, headline, summary_tables
from corereg.report.viewer import make_viewer

__all__ = ["write_report"]

Volume = NDArray[Any]

TEMPLATE = "pair.html.j2"
OBLIQUE = 1e-3
"""Slant of an axis, as a fraction of the voxel size, above which a scan counts as oblique; less is rounding."""


@dataclass(frozen=True)
class Overlap:
    """Dice of one structure before and after registration, as text and in percent (for the bars; None if unknown)."""

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
    verdict: tuple[str, Sequence[str]] | None = None,
    disp_mm: Volume | None = None,
    det_j: Volume | None = None,
    uncertainty_mm: Volume | None = None,
    fixed_labels: Volume | None = None,
    moving_labels: Volume | None = None,
    warped_labels: Volume | None = None,
    label_names: Mapping[int, str] | None = None,
    title: str = "Registration report",
    viewer: bool = True,
) -> None:
    """Write one self-contained HTML page about a registration; the same input gives the same bytes.

    Args:
        path: the file to write; it appears only when complete.
        fixed, warped, moving_before: (I, J, K), intensities on the fixed grid; `moving_before` is the moving image
            resampled there before the deformable registration.
        grid: the fixed grid.
        summary: values to print, as group -> name -> value, nested to any depth; values outside any group come first.
            The first values of the group "metrics" head the page.
        command: the exact command line.
        verdict: "pass", "warn" or "fail", and reasons: the band on top.
        disp_mm: (3, I, J, K), displacement in millimetres.
        det_j: (I, J, K), Jacobian determinant, NaN where undefined; a border of equal width may be missing.
        uncertainty_mm: (I, J, K), the error that 95 % of the voxels stay below.
        fixed_labels, moving_labels, warped_labels: (I, J, K), integers on the fixed grid; `moving_labels` belong to
            `moving_before`.
        label_names: label -> name of the structure.
        title: heading of the page.
        viewer: whether to embed an interactive viewer (1 MB) with the volumes (up to 12 MB).

    Raises:
        InputError: a volume is not on the grid, or `path` cannot be written.
    """
    volumes = {
        "fixed": fixed,
        "warped": warped,
        "moving_before": moving_before,
        "fixed_labels": fixed_labels,
        "moving_labels": moving_labels,
        "warped_labels": warped_labels,
        "uncertainty_mm": uncertainty_mm,
    }
    for name, volume in volumes.items():
        if volume is not None and volume.shape != grid.shape:
            raise InputError(f"got {name} of shape {volume.shape}, expected that of the fixed grid, {grid.shape}")
    volumes["det_j"] = None if det_j is None else _with_border(det_j, grid)
    scene = _make_scene(volumes, disp_mm, grid)
    tables = list(summary_tables(summary))
    names = label_names or {}
    with ThreadPoolExecutor(1) as pool:  # compression releases the interpreter lock
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
        verdict=verdict,
        headline=headline(tables),
        tables=tables,
        overlaps=_overlaps(fixed_labels, moving_labels, warped_labels, names),
        viewer=None if made is None else made.result(),
        command=command,
    )
    with atomic_path(path) as unfinished:
        unfinished.write_text(html, "utf-8")


def _make_scene(volumes: Mapping[str, Volume | None], disp_mm: Volume | None, grid: Grid) -> Scene:
    """Bring everything into canonical order and choose display windows and planes."""
    upright = {name: reorient(volume, grid) for name, volume in volumes.items() if volume is not None}
    fixed_window = display_window(upright["fixed"])
    body = body_mask(upright["fixed"], fixed_window)
    fixed_window = window_for_body(fixed_window, upright["fixed"], body)
    moving_window = display_window(upright["moving_before"])
    return Scene(
        view=make_view(body, grid),
        body=body,
        fixed_window=fixed_window,
        # Differences need one window for both.
        moving_window=fixed_window if fixed_window.is_ct and moving_window.is_ct else moving_window,
        displacement=None if disp_mm is None else _along_axes(disp_mm, grid),
        **upright,
    )


def _along_axes(disp_mm: Volume, grid: Grid) -> Volume:
    """The displacement (3, R, A, S) in mm along the canonical axes, which differ from RAS for oblique scans."""
    if disp_mm.shape != (3, *grid.shape):
        raise InputError(f"got disp_mm of shape {disp_mm.shape}, expected {(3, *grid.shape)}")
    disp_mm = disp_mm.astype(np.float32, copy=False)
    canonical = grid.canonical()
    directions = np.asarray(canonical.linear / canonical.spacing, np.float32)
    if not np.array_equal(directions, np.eye(3)):
        world, disp_mm = disp_mm, np.empty_like(disp_mm)
        for i in range(grid.shape[0]):  # plane by plane, to save memory
            np.einsum("wc,wjk->cjk", directions, world[:, i], out=disp_mm[:, i])
    return reorient(disp_mm, grid)


def _with_border(det_j: Volume, grid: Grid) -> Volume:
    """A Jacobian map on the whole grid: a missing border is filled with NaN."""
    missing = set(np.subtract(grid.shape, det_j.shape).tolist()) if det_j.ndim == 3 else set()
    border, odd = divmod(max(missing, default=-1), 2)
    if len(missing) != 1 or border < 0 or odd:
        raise InputError(f"got det_j of shape {det_j.shape}, expected {grid.shape}, or less an equal border")
    return np.pad(det_j, border, constant_values=np.nan) if border else det_j


def _position(view: View, grid: Grid) -> str:
    """World position of the planes, such as "R 12, P 30, S 410 mm"."""
    position_mm = grid.canonical().to_world(np.array(view.centre_vox)).tolist()
    letters = zip(("RL", "AP", "SI"), position_mm, strict=True)
    return ", ".join(f"{pair[value < 0]} {abs(value):.0f}" for pair, value in letters) + " mm"


def _is_oblique(grid: Grid) -> bool:
    canonical = grid.canonical().linear
    return bool(np.abs(canonical - np.diag(np.diag(canonical))).max() > OBLIQUE * min(grid.spacing))


def _overlaps(
    fixed: Volume | None, before: Volume | None, after: Volume | None, names: Mapping[int, str]
) -> list[Overlap]:
    """Dice of every structure, before and after registration; empty without labels of both images."""
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
                before=formatted(round(before_score, 3)),
                after=formatted(round(score, 3)),
                before_percent=_percent(before_score),
                after_percent=_percent(score),
            )
        )
    return rows


def _percent(score: float) -> float | None:
    return None if math.isnan(score) else round(100 * score, 1)
