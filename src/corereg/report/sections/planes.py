"""Cuts upright slices from a volume: three orthogonal planes in radiological display.

Upstream: volumes on any grid. Downstream: `pictures`. All array axes are in canonical order (closest to RAS+). Rows and
columns of a slice run towards the patient's left, back and feet: the patient's right is on the left, the front on the
left or at the top, the head at the top. Pixels are square in millimetres and equally large in all planes of a view.

I J K voxel axes in array order, R A S canonical axes, H W rows and columns of a slice.
"""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Shaped
from scipy import ndimage

from corereg.geometry.grid import Grid
from corereg.report.sections.windows import Window

__all__ = ["PLANES", "Plane", "View", "body_mask", "largest_parts", "make_view", "reorient"]

TOWARDS_POSITIVE = "RAS"
TOWARDS_NEGATIVE = "LPI"
ROW_WIDTH_PX = 1200
"""Width of the three planes side by side, in pixels: that of a page."""
ROW_PIXELS = 600_000
"""Largest number of pixels of the three planes together: keeps the page of a long scan below 3 MB."""
CT_BODY_HU = -500.0
"""Halfway between air and water."""
OTHER_BODY_FRACTION = 0.1
"""Threshold of the body, as a fraction of the display window: above background noise, below tissue."""
PART_FRACTION = 0.02
"""Smallest part of the body, as a fraction of a slice; smaller pieces are noise, tubes or the table."""


@dataclass(frozen=True)
class Plane:
    """One of the three orthogonal planes: the canonical axis normal to it, and those along its columns and rows."""

    name: str
    normal: int
    columns: int
    rows: int

    @property
    def edges(self) -> dict[str, str]:
        """Anatomical letters at the edges of the picture."""
        return {
            "left": TOWARDS_POSITIVE[self.columns],
            "right": TOWARDS_NEGATIVE[self.columns],
            "top": TOWARDS_POSITIVE[self.rows],
            "bottom": TOWARDS_NEGATIVE[self.rows],
        }


PLANES = (Plane("Axial", 2, 0, 1), Plane("Coronal", 1, 0, 2), Plane("Sagittal", 0, 1, 2))


@dataclass(frozen=True)
class View:
    """Three planes through one point of a volume in canonical order.

    Args:
        shape, spacing_mm: shape and voxel size of the canonical volume.
        centre_vox: the canonical voxel that all planes pass through.
    """

    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    centre_vox: tuple[int, int, int]

    @property
    def extent_mm(self) -> tuple[float, float, float]:
        """Size of the volume along R, A, S."""
        right, front, head = (n * s for n, s in zip(self.shape, self.spacing_mm, strict=True))
        return right, front, head

    @property
    def pixel_mm(self) -> float:
        """Size of a pixel, the same in all planes: the three planes fill a row, unless that takes too many pixels."""
        width_mm = sum(self.extent_mm[plane.columns] for plane in PLANES)
        area_mm2 = sum(self.extent_mm[plane.columns] * self.extent_mm[plane.rows] for plane in PLANES)
        return max(width_mm / ROW_WIDTH_PX, math.sqrt(area_mm2 / ROW_PIXELS))

    def size_px(self, plane: Plane) -> tuple[int, int]:
        """Rows and columns of a plane's picture."""
        rows, columns = (max(1, round(self.extent_mm[a] / self.pixel_mm)) for a in (plane.rows, plane.columns))
        return rows, columns

    def cut(self, volume: Shaped[np.ndarray, "R A S"], plane: Plane) -> Shaped[np.ndarray, "rows columns"]:
        """The slice of a canonical volume in a plane, upright, in voxels."""
        # The axes left after the cut are in the order columns, rows, and run towards R, A and S.
        return np.asarray(np.moveaxis(volume, plane.normal, 0)[self.centre_vox[plane.normal]].T[::-1, ::-1])

    def magnify(
        self, values: Shaped[np.ndarray, "rows columns"], plane: Plane, *, nearest: bool = False
    ) -> Float64[np.ndarray, "H W"]:
        """Resample a slice to the view's pixels, linearly or with nearest neighbours."""
        found = np.asarray(values, np.float64)
        for axis, pixels in enumerate(self.size_px(plane)):
            voxels = values.shape[axis]
            position = ((np.arange(pixels) + 0.5) * voxels / pixels - 0.5).clip(0, voxels - 1)
            if nearest:
                found = found.take(np.floor(position + 0.5).astype(int), axis)
            else:
                low = position.astype(int)
                high = np.minimum(low + 1, voxels - 1)
                share = np.expand_dims(position - low, 1 - axis)
                found = (1 - share) * found.take(low, axis) + share * found.take(high, axis)
        return found

    def magnify_mask(self, mask: Bool[np.ndarray, "rows columns"], plane: Plane) -> Bool[np.ndarray, "H W"]:
        """Resample a mask to the view's pixels; its edge runs halfway between voxels inside and outside."""
        return np.asarray(self.magnify(mask, plane) >= 0.5)


def reorient(volume: Shaped[np.ndarray, "*C I J K"], grid: Grid) -> Shaped[np.ndarray, "*C R A S"]:
    """Reorder and flip the array axes of a volume to those of `grid.canonical()`; returns a view, not a copy."""
    to_stored = np.rint(grid.canonical().to_voxels_of(grid)[:3, :3])
    stored_axes = np.abs(to_stored).argmax(0).tolist()
    signs = [to_stored[stored, canonical] for canonical, stored in enumerate(stored_axes)]
    leading = volume.ndim - len(stored_axes)
    order = (*range(leading), *(leading + axis for axis in stored_axes))
    return np.asarray(
        np.flip(volume.transpose(order), tuple(leading + axis for axis, sign in enumerate(signs) if sign < 0))
    )


def body_mask(volume: Shaped[np.ndarray, "R A S"], window: Window) -> Bool[np.ndarray, "R A S"]:
    """Rough mask of the patient: everything brighter than air (CT) or background, with lungs and bowel filled."""
    threshold = CT_BODY_HU if window.is_ct else window.low + OTHER_BODY_FRACTION * (window.high - window.low)
    mask = np.asarray(volume > threshold)
    # Air enclosed within an axial slice belongs to the patient; in 3D it may connect to the outside.
    in_axial_slices = ndimage.generate_binary_structure(3, 1)
    in_axial_slices[:, :, [0, 2]] = False
    air, count = ndimage.label(~mask, in_axial_slices)
    outside = np.zeros(count + 1, bool)
    for side in (air[0], air[-1], air[:, 0], air[:, -1]):
        outside[side] = True
    return np.asarray(mask | ~outside[air])


def largest_parts(mask: Bool[np.ndarray, "H W"]) -> Bool[np.ndarray, "H W"]:
    """The large connected parts of a mask in a slice, with holes filled."""
    parts, _ = ndimage.label(mask)
    sizes = np.bincount(parts.reshape(-1))
    large = sizes >= PART_FRACTION * mask.size
    large[0] = False
    return np.asarray(ndimage.binary_fill_holes(large[parts]))


def make_view(body: Bool[np.ndarray, "R A S"], grid: Grid) -> View:
    """Choose the planes through the body's centre of mass, or through the middle of the volume if no body was found.

    Args:
        body: mask of the body, in canonical order.
        grid: grid of the volume as stored.
    """
    canonical = grid.canonical()
    centre = []
    for axis, size in enumerate(body.shape):
        profile = np.count_nonzero(body, axis=tuple(other for other in range(3) if other != axis))
        centre.append(round(np.average(np.arange(size), weights=profile) if profile.any() else (size - 1) / 2))
    right, front, head = centre
    return View(canonical.shape, canonical.spacing, (right, front, head))
