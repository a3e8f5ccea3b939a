"""Figure 3: three test pairs before and after registration, with the outlines of their structures."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from corereg.evaluation.cases import Case, Cases, LoadedCase, standing_still
from corereg.evaluation.field_files import read_field
from corereg.geometry.grid import Grid
from corereg.io.atomic import atomic_path

__all__ = ["draw_pair", "shown_cases"]

SHOWN_PAIRS = 3
WINDOW_HU = (-200.0, 300.0)
OUTLINE_COLOURS = "tab10"
INCHES_PER_PANEL, DPI = 2.6, 110
ANTERIOR, RIGHT, SUPERIOR = 1, 0, 2
"""World axes of a coronal slice: across it, and in it."""


def shown_cases(cases: Cases) -> tuple[Case, ...]:
    """The first, the middle and the last pair of the list, so that nobody chooses them by their result."""
    count = len(cases.cases)
    places = sorted({0, count // 2, count - 1})[:SHOWN_PAIRS]
    return tuple(cases.cases[place] for place in places)


def draw_pair(path: Path, case: Case, fields: Mapping[str, Path]) -> None:
    """Draw a coronal slice: the fixed scan, the moving scan as it lies, and warped by each method.

    Outlines are those of the structures of the scan that is shown, as warped with it; the fixed scan's are dotted.

    Args:
        fields: displacement fields by the method's title.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    loaded = LoadedCase(case)
    assert loaded.labels is not None
    fixed, fixed_labels = loaded.images[0], loaded.labels[0].array
    slicer = _Slice(fixed.grid, fixed_labels)
    panels = [("fixed", slicer.of(fixed.array), slicer.of(fixed_labels))]
    still = standing_still(*loaded.grids)
    displacements = {"before": still} | {
        title: read_field(field, *loaded.grids).disp_vox for title, field in fields.items()
    }
    for title, disp_vox in displacements.items():
        image, labels = slicer.warped(loaded.images[1].array, loaded.labels[1].array, disp_vox)
        panels.append((title, image, labels))
    figure = Figure(figsize=(INCHES_PER_PANEL * len(panels), 1.15 * INCHES_PER_PANEL), layout="constrained")
    FigureCanvasAgg(figure)
    numbers = [int(n) for n in np.unique(fixed_labels) if n]
    for axis, (title, image, labels) in zip(np.atleast_1d(figure.subplots(1, len(panels))), panels, strict=True):
        axis.imshow(image, cmap="gray", vmin=WINDOW_HU[0], vmax=WINDOW_HU[1], origin="lower", aspect=slicer.aspect)
        _outline(axis, panels[0][2], numbers, "dotted")
        _outline(axis, labels, numbers, "solid")
        axis.set_title(title, fontsize=9)
        axis.set_axis_off()
    figure.suptitle(case.name, fontsize=9)
    with atomic_path(path) as staged:
        figure.savefig(staged, dpi=DPI, metadata={"Software": None})


def _outline(axis: Any, labels: NDArray[Any], numbers: Sequence[int], style: str) -> None:
    from matplotlib import colormaps

    colours = colormaps[OUTLINE_COLOURS].colors  # type: ignore[attr-defined]
    for place, number in enumerate(numbers):
        mask = labels == number
        if mask.any() and not mask.all():
            colour = colours[place % len(colours)]
            axis.contour(mask.astype(float), [0.5], colors=[colour], linewidths=0.8, linestyles=style)


class _Slice:
    """The coronal slice of a grid through the middle of what is labelled, right and head as radiologists look at it."""

    def __init__(self, grid: Grid, labels: NDArray[Any]) -> None:
        axis_of = [int(np.abs(grid.affine[world, :3]).argmax()) for world in (RIGHT, ANTERIOR, SUPERIOR)]
        self.across, self.order = axis_of[ANTERIOR], (axis_of[SUPERIOR], axis_of[RIGHT])
        inside = np.argwhere(labels > 0)
        middle = inside.mean(0) if len(inside) else (np.array(grid.shape) - 1) / 2
        self.place = round(float(middle[self.across]))
        # Towards the head upwards, and the patient's right on the left.
        self.flip = grid.affine[SUPERIOR, self.order[0]] < 0, grid.affine[RIGHT, self.order[1]] > 0
        self.aspect = grid.spacing[self.order[0]] / grid.spacing[self.order[1]]

    def of(self, volume: NDArray[Any]) -> NDArray[Any]:
        return self._turned(volume.take(self.place, self.across))

    def warped(
        self, image: NDArray[Any], labels: NDArray[Any], disp_vox: NDArray[np.float32]
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        """Slices of the moving image and its labels at x + u(x), for the positions x of this slice."""
        offsets = disp_vox.take(self.place, self.across + 1)
        index = np.indices(disp_vox.shape[1:], np.float64).take(self.place, self.across + 1)
        coords = index + offsets
        values = ndimage.map_coordinates(image.astype(np.float32), coords, order=1, mode="nearest")
        numbers = ndimage.map_coordinates(labels, coords, order=0, mode="constant")
        return self._turned(values), self._turned(numbers)

    def _turned(self, plane: NDArray[Any]) -> NDArray[Any]:
        """The plane with rows towards the head and columns towards the patient's left."""
        turned = plane if self.order[0] < self.order[1] else plane.T
        up, left = self.flip
        turned = turned[::-1] if up else turned
        return turned[:, ::-1] if left else turned
