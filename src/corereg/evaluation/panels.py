"""The picture sections of a report: which slices, in which colours, with which words.

Upstream: `planes`, `pictures`. Downstream: `report`, which puts them on a page.

R A S canonical axes: every volume of a `Scene` is in canonical order.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Shaped

from corereg.evaluation import pictures
from corereg.evaluation.pictures import DIVERGING, GREY, SEQUENTIAL, Picture
from corereg.evaluation.planes import PLANES, Plane, View, Window, largest_parts

__all__ = ["Bar", "Panel", "Row", "Scene", "Section", "make_sections", "nice_top", "scale_bar_mm", "structure_colour"]

Volume = Shaped[np.ndarray, "R A S"]
Slice = Float64[np.ndarray, "H W"]
Marks = list[tuple[int, Bool[np.ndarray, "H W"]]]

BACKGROUND = 0
SQUARES_PER_PLANE = 12
"""Of the checkerboard, along the shorter side of the axial plane."""
OWN_LINE_PX = 2
"""Of an image's own structures; those of the fixed image beside them are thinner."""
SCALE_BAR_MM = (100, 50, 20, 10, 5)
SCALE_BAR_FRACTION = 0.3
"""At most this much of a picture's width."""
DIFFERENCE_RANGE = 0.5
"""Of the display window: larger differences show in the last colour."""
LARGE_PERCENTILE = 99.5
"""Of the displacement inside the body: the top of its colour bar; a few outliers may lie above."""
NICE_STEPS = (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0)
JACOBIAN_OCTAVES = 1.0
"""The colours of det J end at half and at double the volume."""


@dataclass(frozen=True)
class Scene:
    """All that a report shows, in canonical order; None where it was not given."""

    view: View
    body: Bool[np.ndarray, "R A S"]
    fixed: Volume
    moving_before: Volume
    warped: Volume
    fixed_window: Window
    moving_window: Window
    displacement_mm: Volume | None = None
    det_j: Volume | None = None
    fixed_labels: Volume | None = None
    moving_labels: Volume | None = None
    warped_labels: Volume | None = None

    @property
    def comparable(self) -> bool:
        """Whether intensities may be subtracted: not those of CT and MR."""
        return self.fixed_window.is_ct == self.moving_window.is_ct


@dataclass(frozen=True)
class Panel:
    """One picture, its plane and what it shows, in words."""

    plane: Plane
    picture: Picture
    alt: str


@dataclass(frozen=True)
class Row:
    """The three planes of one thing."""

    key: str
    title: str
    note: str
    panels: list[Panel]


@dataclass(frozen=True)
class Bar:
    """A colour bar: the ramp, the numbers under it at equal distances, and what they measure."""

    css: str
    ticks: tuple[str, ...]
    label: str


@dataclass(frozen=True)
class Section:
    """Rows under one heading, with one scale for all of them. `marks` explains colours: (colour, meaning)."""

    key: str
    title: str
    intro: str
    rows: list[Row]
    bar: Bar | None = None
    marks: tuple[tuple[str, str], ...] = ()


def make_sections(scene: Scene) -> list[Section]:
    """All sections that the scene has the volumes for, in reading order."""
    sections = [_images(scene), _difference(scene), _checkerboard(scene), _displacement(scene), _jacobian(scene)]
    return [section for section in sections if section is not None]


def scale_bar_mm(view: View) -> int:
    """A round length that fits into the axial picture."""
    width = view.extent_mm[PLANES[0].columns]
    return next((length for length in SCALE_BAR_MM if length <= SCALE_BAR_FRACTION * width), SCALE_BAR_MM[-1])


def _row(key: str, title: str, note: str, paint: Callable[[Plane], Picture]) -> Row:
    panels = [Panel(plane, paint(plane), f"{title}, {plane.name.lower()} plane") for plane in PLANES]
    return Row(key, title, note, panels)


def _grey(scene: Scene, volume: Volume, window: Window, plane: Plane) -> Slice:
    return window.apply(scene.view.magnify(scene.view.cut(volume, plane), plane))


def _structures(scene: Scene, labels: Volume | None, plane: Plane, mark: int | None = None) -> Marks:
    """Outlines of all labels in a plane, in their colours or, thinner, all in one."""
    if labels is None:
        return []
    cut = scene.view.cut(labels, plane)
    return [
        (
            _colour_index(label) if mark is None else mark,
            pictures.edges(scene.view.magnify_mask(cut == label, plane), OWN_LINE_PX if mark is None else 1),
        )
        for label in np.unique(cut).tolist()
        if label != BACKGROUND
    ]


def _colour_index(label: int) -> int:
    return (label - 1) % len(pictures.STRUCTURE_COLOURS)


def structure_colour(label: int) -> str:
    """The colour of a label's outline."""
    return pictures.STRUCTURE_COLOURS[_colour_index(label)]


def _images(scene: Scene) -> Section:
    def row(key: str, title: str, note: str, volume: Volume, window: Window, labels: Volume | None) -> Row:
        def paint(plane: Plane) -> Picture:
            reference = None if volume is scene.fixed else scene.fixed_labels
            marks = _structures(scene, reference, plane, pictures.WHITE) + _structures(scene, labels, plane)
            return pictures.draw(_grey(scene, volume, window, plane), GREY, marks)

        return _row(key, title, note, paint)

    rows = [
        row("fixed", "Fixed", "the image that defines the grid", scene.fixed, scene.fixed_window, scene.fixed_labels),
        row(
            "before",
            "Moving, before",
            "resampled onto the fixed grid",
            scene.moving_before,
            scene.moving_window,
            scene.moving_labels,
        ),
        row(
            "warped",
            "Moving, after",
            "warped by the deformable registration",
            scene.warped,
            scene.moving_window,
            scene.warped_labels,
        ),
    ]
    outlined = scene.fixed_labels is not None
    intro = "Colours outline each image's own structures, white those of the fixed image." if outlined else ""
    return Section("images", "Images", intro, rows)


def _difference(scene: Scene) -> Section:
    heading = "Difference from the fixed image"
    if not scene.comparable:
        return Section("difference", heading, "Not shown: one image is CT, the other is not.", [])

    def row(key: str, title: str, note: str, volume: Volume) -> Row:
        def paint(plane: Plane) -> Picture:
            moving = _grey(scene, volume, scene.moving_window, plane)
            difference = moving - _grey(scene, scene.fixed, scene.fixed_window, plane)
            return pictures.draw(0.5 + difference / (2 * DIFFERENCE_RANGE), DIVERGING)

        return _row(key, title, note, paint)

    rows = [
        row("difference-before", "Before", "moving minus fixed", scene.moving_before),
        row("difference-after", "After", "warped minus fixed", scene.warped),
    ]
    if scene.fixed_window.is_ct:
        top = DIFFERENCE_RANGE * (scene.fixed_window.high - scene.fixed_window.low)
        ticks, unit = (f"\N{MINUS SIGN}{top:g}", "0", f"+{top:g}"), "HU"
    else:
        top = 100 * DIFFERENCE_RANGE
        ticks, unit = (f"\N{MINUS SIGN}{top:g}", "0", f"+{top:g}"), "% of the display window"
    bar = Bar(DIVERGING.css, ticks, f"moving minus fixed, {unit}")
    intro = "Both rows share one scale. Dark is agreement; intensities are clipped to the display window first."
    return Section("difference", heading, intro, rows, bar)


def _checkerboard(scene: Scene) -> Section:
    square_px = min(scene.view.size_px(PLANES[0])) // SQUARES_PER_PLANE

    def row(key: str, title: str, note: str, volume: Volume) -> Row:
        def paint(plane: Plane) -> Picture:
            fixed = _grey(scene, scene.fixed, scene.fixed_window, plane)
            moving = _grey(scene, volume, scene.moving_window, plane)
            return pictures.draw(pictures.checkerboard(fixed, moving, square_px), GREY)

        return _row(key, title, note, paint)

    rows = [
        row("checkerboard-before", "Before", "fixed and moving in turn", scene.moving_before),
        row("checkerboard-after", "After", "fixed and warped in turn", scene.warped),
    ]
    return Section("checkerboard", "Checkerboard", "Edges should run on from square to square.", rows)


def _displacement(scene: Scene) -> Section | None:
    if scene.displacement_mm is None:
        return None
    magnitude, view = scene.displacement_mm, scene.view
    inside = magnitude[scene.body] if scene.body.any() else magnitude.reshape(-1)
    top = nice_top(float(np.percentile(inside, LARGE_PERCENTILE)))

    def paint(plane: Plane) -> Picture:
        outline, outside = _body(scene, plane)
        values = view.magnify(view.cut(magnitude, plane), plane) / top
        return pictures.draw(values, SEQUENTIAL, outline, dimmed=outside)

    note = f"in the body: mean {float(inside.mean()):.3g} mm, largest {float(inside.max()):.3g} mm"
    bar = Bar(SEQUENTIAL.css, ("0", f"{top / 2:g}", f"{top:g}"), "length of the displacement, mm")
    intro = "How far each point of the fixed image moves. Dimmed outside the body."
    return Section("displacement", "Displacement", intro, [_row("displacement", "Length", note, paint)], bar)


def _jacobian(scene: Scene) -> Section | None:
    if scene.det_j is None:
        return None
    det_j, view = scene.det_j, scene.view

    def paint(plane: Plane) -> Picture:
        outline, outside = _body(scene, plane)
        values = view.magnify(view.cut(det_j, plane), plane, nearest=True)
        octaves = np.log2(np.where(values > 0, values, 1.0))
        marks = [*outline, (pictures.UNDEFINED, np.isnan(values)), (pictures.FOLD, values <= 0)]
        return pictures.draw(0.5 + octaves / (2 * JACOBIAN_OCTAVES), DIVERGING, marks, dimmed=outside)

    known, folded = np.count_nonzero(~np.isnan(det_j)), np.count_nonzero(det_j <= 0)
    if folded:
        note = f"folds at {folded} voxel{'s' if folded > 1 else ''}, {100 * folded / known:.2g} % of the volume"
    else:
        note = "no folds anywhere in the volume"
    bar = Bar(DIVERGING.css, ("half", "1", "double"), "volume after / before, det J")
    legend = ((pictures.MARKS[pictures.FOLD], "fold: det J \N{LESS-THAN OR EQUAL TO} 0"),)
    intro = (
        "How much the fixed image's volume shrinks or grows on its way to the moving image. Dimmed outside the body."
    )
    return Section("jacobian", "Volume change", intro, [_row("jacobian", "Determinant", note, paint)], bar, legend)


def _body(scene: Scene, plane: Plane) -> tuple[Marks, Bool[np.ndarray, "H W"] | None]:
    """The body's outline in a plane, and what lies outside of it; None if there is no body to tell from the rest."""
    body = scene.view.magnify_mask(largest_parts(scene.view.cut(scene.body, plane)), plane)
    return [(pictures.OUTLINE, pictures.edges(body))], ~body if body.any() else None


def nice_top(value: float) -> float:
    """The next round number, for the end of a colour bar."""
    if not value > 0:
        return 1.0
    power = 10.0 ** np.floor(np.log10(value))
    return float(next(step * power for step in NICE_STEPS if step * power >= value * (1 - 1e-9)))
