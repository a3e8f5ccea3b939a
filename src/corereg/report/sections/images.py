"""Picture sections that compare the images: slices, difference and checkerboard; and the list of all sections.

Upstream: `planes`, `pictures`, `deformation`. Downstream: `report.pair`.

R A S canonical axes: every volume of a `Scene` is in canonical order.
"""

import numpy as np

from corereg.report.sections import pictures
from corereg.report.sections.deformation import (
    deformed_grid_section,
    displacement_section,
    jacobian_section,
    uncertainty_section,
)
from corereg.report.sections.pictures import DIVERGING, GREY, Picture
from corereg.report.sections.planes import PLANES, Plane, View
from corereg.report.sections.scene import Bar, Marks, Row, Scene, Section, Volume, grey, painted_row
from corereg.report.sections.windows import Window

__all__ = ["make_sections", "scale_bar_mm", "structure_colour"]

BACKGROUND = 0
SQUARES_PER_PLANE = 12
"""Squares of the checkerboard along the shorter side of the axial plane."""
OWN_LINE_PX = 2
"""Width of the outlines of an image's own structures; those of the fixed image are thinner."""
SCALE_BAR_MM = (100, 50, 20, 10, 5)
"""Possible lengths of the scale bar."""
SCALE_BAR_FRACTION = 0.3
"""Longest scale bar, as a fraction of the picture's width."""
DIFFERENCE_RANGE = 0.5
"""Largest difference with a colour of its own, as a fraction of the display window."""


def make_sections(scene: Scene) -> list[Section]:
    """All sections for which the scene has the volumes, in reading order."""
    sections = [
        *(_images(scene), _difference(scene), _checkerboard(scene)),
        *(deformed_grid_section(scene), displacement_section(scene), jacobian_section(scene)),
        uncertainty_section(scene),
    ]
    return [section for section in sections if section is not None]


def scale_bar_mm(view: View) -> int:
    """Length of the scale bar: round, and short enough for the axial picture."""
    width = view.extent_mm[PLANES[0].columns]
    return next((length for length in SCALE_BAR_MM if length <= SCALE_BAR_FRACTION * width), SCALE_BAR_MM[-1])


def _structures(scene: Scene, labels: Volume | None, plane: Plane, mark: int | None = None) -> Marks:
    """Outlines of all labels in a plane, in their own colours, or thinner and all in the colour of `mark`."""
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
            return pictures.draw(grey(scene, volume, window, plane), GREY, marks)

        return painted_row(key, title, note, paint)

    rows = [
        row("fixed", "Fixed", "defines the grid", scene.fixed, scene.fixed_window, scene.fixed_labels),
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
    intro = [_window_words(scene.fixed_window)] if scene.fixed_window.is_ct else []
    intro += ["Coloured outlines: each image's own structures. White: those of the fixed image."] if outlined else []
    return Section("images", "Images", " ".join(intro), rows)


def _window_words(window: Window) -> str:
    low, high = (f"{value:g}".replace("-", "\N{MINUS SIGN}") for value in (window.low, window.high))
    return f"Shown in the {window.name} window, {low} to {high} HU."


def _difference(scene: Scene) -> Section:
    heading = "Difference from the fixed image"
    if not scene.comparable:
        reason = "Not shown: one image is CT and the other is not, so their intensities cannot be subtracted."
        return Section("difference", heading, reason, [])

    def row(key: str, title: str, note: str, volume: Volume) -> Row:
        def paint(plane: Plane) -> Picture:
            moving = grey(scene, volume, scene.moving_window, plane)
            difference = moving - grey(scene, scene.fixed, scene.fixed_window, plane)
            return pictures.draw(0.5 + difference / (2 * DIFFERENCE_RANGE), DIVERGING)

        return painted_row(key, title, note, paint)

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
    intro = "Dark means agreement. Both rows share one scale; intensities are clipped to the display window first."
    return Section("difference", heading, intro, rows, bar)


def _checkerboard(scene: Scene) -> Section:
    square_px = min(scene.view.size_px(PLANES[0])) // SQUARES_PER_PLANE

    def row(key: str, title: str, note: str, volume: Volume) -> Row:
        def paint(plane: Plane) -> Picture:
            fixed = grey(scene, scene.fixed, scene.fixed_window, plane)
            moving = grey(scene, volume, scene.moving_window, plane)
            return pictures.draw(pictures.checkerboard(fixed, moving, square_px), GREY)

        return painted_row(key, title, note, paint)

    rows = [
        row("checkerboard-before", "Before", "squares alternate between fixed and moving", scene.moving_before),
        row("checkerboard-after", "After", "squares alternate between fixed and warped", scene.warped),
    ]
    return Section("checkerboard", "Checkerboard", "Edges should continue from square to square.", rows)
