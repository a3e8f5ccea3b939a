"""Picture sections that show the deformation: magnitude, a deformed grid, change of volume, and how sure it is.

Upstream: `planes`, `pictures`. Downstream: `images`.

R A S canonical axes: every volume of a `Scene` is in canonical order.
"""

import numpy as np
from jaxtyping import Bool, Float32, Float64

from corereg.report.sections import pictures
from corereg.report.sections.pictures import DIVERGING, GREY, SEQUENTIAL, Picture
from corereg.report.sections.planes import Plane, largest_parts
from corereg.report.sections.scene import Bar, Marks, Scene, Section, grey, nice_top, painted_row

__all__ = ["deformed_grid_section", "displacement_section", "jacobian_section", "uncertainty_section"]

LARGE_PERCENTILE = 99.5
"""Percentile of the displacement inside the body at the top of the colour bar; a few outliers may lie above."""
JACOBIAN_OCTAVES = 1.0
"""The colours of det J range from half to double the volume."""
GRID_LINES = 14
"""Largest number of lines of the deformed grid along the shortest side."""
GRID_STEPS_MM = (2.0, 5.0, 10.0, 15.0, 20.0, 25.0, 50.0)
"""Possible distances between grid lines."""
LINE_PX = 0.9
"""Half the width of a grid line."""
BACKGROUND_BRIGHTNESS = 0.55
"""Brightness of the fixed image behind the grid."""


def displacement_section(scene: Scene) -> Section | None:
    """The magnitude of the displacement; None without one."""
    if scene.displacement is None:
        return None
    magnitude, view = _length(scene.displacement), scene.view
    inside = magnitude[scene.body] if scene.body.any() else magnitude.reshape(-1)
    top = nice_top(float(np.percentile(inside, LARGE_PERCENTILE)))

    def paint(plane: Plane) -> Picture:
        outline, outside = _body(scene, plane)
        values = view.magnify(view.cut(magnitude, plane), plane) / top
        return pictures.draw(values, SEQUENTIAL, outline, dimmed=outside)

    note = f"inside the body: mean {float(inside.mean()):.3g} mm, maximum {float(inside.max()):.3g} mm"
    bar = Bar(SEQUENTIAL.css, ("0", f"{top / 2:g}", f"{top:g}"), "displacement (mm)")
    intro = "Distance between each point of the fixed image and its match in the moving image. Dimmed outside the body."
    return Section("displacement", "Displacement", intro, [painted_row("displacement", "Magnitude", note, paint)], bar)


def _length(vectors: Float32[np.ndarray, "3 R A S"]) -> Float32[np.ndarray, "R A S"]:
    """Length of vectors, summed component by component: all at once would take gigabytes for long scans."""
    squares: Float32[np.ndarray, "R A S"] = np.square(vectors[0])
    for component in vectors[1:]:
        squares += np.square(component)
    np.sqrt(squares, out=squares)
    return squares


def deformed_grid_section(scene: Scene) -> Section | None:
    """A straight grid on the moving image, drawn where it falls on the fixed image; None without a displacement."""
    if scene.displacement is None:
        return None
    displacement, view = scene.displacement, scene.view
    shortest = min(view.extent_mm)
    step = next((mm for mm in GRID_STEPS_MM if shortest / mm <= GRID_LINES), GRID_STEPS_MM[-1])

    def paint(plane: Plane) -> Picture:
        height, width = view.size_px(plane)
        lines = np.zeros((height, width), bool)
        for axis, here in ((plane.rows, np.arange(height)[:, None]), (plane.columns, np.arange(width)[None, :])):
            pixels = (height, width)[axis == plane.columns]
            # Rows and columns run against their axes: the head is at the top, the patient's right on the left.
            position = (pixels - 0.5 - here) * view.extent_mm[axis] / pixels
            lines |= _near_lines(position + view.magnify(view.cut(displacement[axis], plane), plane), step)
        background = BACKGROUND_BRIGHTNESS * grey(scene, scene.fixed, scene.fixed_window, plane)
        return pictures.draw(background, GREY, [(pictures.WHITE, lines)])

    note = f"lines {step:g} mm apart on the moving image, drawn over the fixed image"
    intro = "A straight grid on the moving image, deformed by the transform. Lines must not cross."
    return Section("deformed-grid", "Deformed grid", intro, [painted_row("deformed-grid", "Grid", note, paint)])


def _near_lines(position_mm: Float64[np.ndarray, "H W"], step_mm: float) -> Bool[np.ndarray, "H W"]:
    """Pixels within half a line's width of a position that is a multiple of the step."""
    from_line_mm = np.abs((position_mm / step_mm + 0.5) % 1 - 0.5) * step_mm
    mm_per_pixel = np.hypot(*np.gradient(position_mm)) if min(position_mm.shape) > 1 else np.ones_like(position_mm)
    return np.asarray(from_line_mm <= LINE_PX * mm_per_pixel)


def jacobian_section(scene: Scene) -> Section | None:
    """The change of volume and where the transform folds; None without a Jacobian map."""
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
    bar = Bar(DIVERGING.css, ("half", "1", "double"), "volume in moving / volume in fixed (det J)")
    legend = ((pictures.MARKS[pictures.FOLD], "fold: det J \N{LESS-THAN OR EQUAL TO} 0"),)
    intro = "Local growth or shrinkage from the fixed to the moving image. Dimmed outside the body."
    return Section(
        "jacobian", "Volume change", intro, [painted_row("jacobian", "Determinant", note, paint)], bar, legend
    )


def uncertainty_section(scene: Scene) -> Section | None:
    """The bound of the error, in colour over the fixed image; None without one."""
    if scene.uncertainty_mm is None:
        return None
    bound, view = scene.uncertainty_mm, scene.view
    inside = bound[scene.body] if scene.body.any() else bound.reshape(-1)
    top = nice_top(float(np.percentile(inside, LARGE_PERCENTILE)))

    def paint(plane: Plane) -> Picture:
        values = view.magnify(view.cut(bound, plane), plane) / top
        return pictures.overlay(grey(scene, scene.fixed, scene.fixed_window, plane), values, SEQUENTIAL)

    note = f"inside the body: mean {float(inside.mean()):.3g} mm, 95 % below {float(np.percentile(inside, 95)):.3g} mm"
    bar = Bar(SEQUENTIAL.css, ("0", f"{top / 2:g}", f"{top:g}"), "error that 95 % of the voxels stay below (mm)")
    intro = (
        "By how much the match of each point may be off, over the fixed image: large where nothing in the images "
        "fixes the match, or where both directions disagree."
    )
    return Section("uncertainty", "Uncertainty", intro, [painted_row("uncertainty", "Bound", note, paint)], bar)


def _body(scene: Scene, plane: Plane) -> tuple[Marks, Bool[np.ndarray, "H W"] | None]:
    """Outline of the body in a plane, and the area outside it; None for the latter if no body was found."""
    body = scene.view.magnify_mask(largest_parts(scene.view.cut(scene.body, plane)), plane)
    return [(pictures.OUTLINE, pictures.edges(body))], ~body if body.any() else None
