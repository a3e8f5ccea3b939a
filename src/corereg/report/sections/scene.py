"""Data types of the picture sections: a scene goes in, sections of rows of panels come out.

Upstream: `planes`, `pictures`. Downstream: `images`, `deformation`, `viewer`.

R A S canonical axes: every volume of a `Scene` is in canonical order.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Float64, Shaped

from corereg.report.sections.pictures import Picture
from corereg.report.sections.planes import PLANES, Plane, View
from corereg.report.sections.windows import Window

__all__ = ["Bar", "Marks", "Panel", "Row", "Scene", "Section", "Slice", "Volume", "grey", "nice_top", "painted_row"]

Volume = Shaped[np.ndarray, "R A S"]
Slice = Float64[np.ndarray, "H W"]
Marks = list[tuple[int, Bool[np.ndarray, "H W"]]]

NICE_STEPS = (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0)


@dataclass(frozen=True)
class Scene:
    """All volumes that a page shows, in canonical order; None if not given."""

    view: View
    body: Bool[np.ndarray, "R A S"]
    fixed: Volume
    moving_before: Volume
    warped: Volume
    fixed_window: Window
    moving_window: Window
    displacement: Float32[np.ndarray, "3 R A S"] | None = None
    """Displacement in millimetres along the canonical axes."""
    det_j: Volume | None = None
    """Jacobian determinant, NaN where undefined."""
    uncertainty_mm: Volume | None = None
    """The error that 95 % of the voxels stay below."""
    fixed_labels: Volume | None = None
    moving_labels: Volume | None = None
    warped_labels: Volume | None = None

    @property
    def comparable(self) -> bool:
        """Whether the intensities can be subtracted; those of a CT and an MR cannot."""
        return self.fixed_window.is_ct == self.moving_window.is_ct


@dataclass(frozen=True)
class Panel:
    """One picture with its plane and a description for screen readers."""

    plane: Plane
    picture: Picture
    alt: str


@dataclass(frozen=True)
class Row:
    """The three planes of one volume."""

    key: str
    title: str
    note: str
    panels: list[Panel]


@dataclass(frozen=True)
class Bar:
    """A colour bar: the ramp, evenly spaced tick labels, and the quantity that it shows."""

    css: str
    ticks: tuple[str, ...]
    label: str


@dataclass(frozen=True)
class Section:
    """Rows under one heading, with one scale for all. `marks` is the legend: (colour, meaning)."""

    key: str
    title: str
    intro: str
    rows: list[Row]
    bar: Bar | None = None
    marks: tuple[tuple[str, str], ...] = ()


def painted_row(key: str, title: str, note: str, paint: Callable[[Plane], Picture]) -> Row:
    """Paint the three planes of one volume."""
    panels = [Panel(plane, paint(plane), f"{title}, {plane.name.lower()} plane") for plane in PLANES]
    return Row(key, title, note, panels)


def grey(scene: Scene, volume: Volume, window: Window, plane: Plane) -> Slice:
    """A slice of a volume at the view's pixels, scaled by its display window to 0..1."""
    return window.apply(scene.view.magnify(scene.view.cut(volume, plane), plane))


def nice_top(value: float) -> float:
    """The next larger round number, for the end of a colour bar."""
    if not value > 0:
        return 1.0
    power = 10.0 ** np.floor(np.log10(value))
    return float(next(step * power for step in NICE_STEPS if step * power >= value * (1 - 1e-9)))
