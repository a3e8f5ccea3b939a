"""Phantom, stage 1 of 4: implicit shapes, and the canvas on which they are painted.

A shape is a function of position, negative inside, whose value near the boundary approximates the distance in
millimetres. An image is therefore a function of position too: deforming the positions deforms the image exactly,
without interpolation. Positions are in atlas millimetres, RAS+. Downstream: torso, tubes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "AIR_HU",
    "Array",
    "Canvas",
    "Coords",
    "Floats",
    "Shape",
    "Vector",
    "Window",
    "capsules",
    "chain",
    "clipped",
    "curve",
    "ellipsoid",
    "inset",
    "smooth_max",
    "smooth_min",
    "turned",
    "union",
    "without",
]

Array = NDArray[np.float32]
Floats = NDArray[np.floating[Any]]
Coords = tuple[Array, Array, Array]
Vector = Sequence[int | float] | NDArray[np.float64]
Point = tuple[float, float, float]
Window = tuple[slice, slice, slice]

AIR_HU = -1000.0

EDGE_WIDTH = 2.0
"""Width, in voxels, over which tissues mix at a boundary: the voxel's own extent plus a scanner's blur."""

MARGIN_MM = 6.0
"""Margin added to each shape's box for its soft boundary and rough surface."""

EVERYWHERE: Window = (slice(None), slice(None), slice(None))


@dataclass(frozen=True)
class Shape:
    """A signed distance, and the box (atlas millimetres) outside which it is positive."""

    low: Point
    high: Point
    sdf: Callable[[Coords], Array]

    @staticmethod
    def of(low: NDArray[np.float64], high: NDArray[np.float64], sdf: Callable[[Coords], Array]) -> "Shape":
        """A shape whose box is given as arrays (3,)."""
        return Shape(_point(low), _point(high), sdf)


class Canvas:
    """An image and its label map on a grid whose voxels lie at given atlas positions.

    Args:
        coords_mm: (3, I, J, K) float32, the atlas position of each voxel.
        spacing_mm: voxel size, which sets the width of soft boundaries.
        labels: label numbers by name of the structure; all other structures erase the labels they cover.
        textures: coarse and fine texture, (I, J, K) each, with zero mean and unit standard deviation.
    """

    def __init__(self, coords_mm: Array, spacing_mm: float, labels: dict[str, int], textures: tuple[Array, Array]):
        self.coords: Coords = (coords_mm[0], coords_mm[1], coords_mm[2])
        self.image = np.full(coords_mm.shape[1:], AIR_HU, np.float32)
        self.labels = np.zeros(coords_mm.shape[1:], np.uint8)
        self._edge_mm = np.float32(EDGE_WIDTH * spacing_mm)
        self._numbers = labels
        self._coarse, self._fine = textures
        others = ((1, 2), (0, 2), (0, 1))
        self._lowest = [c.min(axis=axes) for c, axes in zip(self.coords, others, strict=True)]
        self._highest = [c.max(axis=axes) for c, axes in zip(self.coords, others, strict=True)]

    def window(self, shape: Shape) -> Window | None:
        """The slices of the grid that hold all voxels in the shape's box, or None if there are none."""
        slices = []
        for low, high, lowest, highest in zip(shape.low, shape.high, self._lowest, self._highest, strict=True):
            inside = np.flatnonzero((highest > low - MARGIN_MM) & (lowest < high + MARGIN_MM))
            if inside.size == 0:
                return None
            slices.append(slice(int(inside[0]), int(inside[-1]) + 1))
        return slices[0], slices[1], slices[2]

    def occupancy(self, sdf: Floats) -> Array:
        """Share of each voxel that the shape fills: 0 to 1, one half on the boundary."""
        share = np.clip(np.float32(0.5) - sdf / self._edge_mm, 0, 1)
        return np.asarray(share * share * (3 - 2 * share), np.float32)

    def paint(
        self,
        shape: Shape,
        hu: float,
        name: str | None = None,
        *,
        texture_hu: tuple[float, float] = (0.0, 0.0),
        rough_mm: float = 0.0,
        within: Array | None = None,
    ) -> None:
        """Paint a shape of `hu` over the image, and write its label.

        Args:
            name: name of the structure; "" for a structure without a label; None leaves the labels as they are, for a
                detail inside a structure.
            texture_hu: standard deviation of the coarse and the fine texture.
            rough_mm: standard deviation of the surface, which follows the coarse texture.
            within: (I, J, K) shares to which the shape is confined.
        """
        where = self.window(shape)
        if where is None:
            return
        i, j, k = (c[where] for c in self.coords)
        sdf = shape.sdf((i, j, k))
        if rough_mm:
            sdf = sdf + np.float32(rough_mm) * self._coarse[where]
        self.paint_sdf(sdf, hu, name, where=where, texture_hu=texture_hu, within=within)

    def paint_sdf(
        self,
        sdf: Floats,
        hu: float | Array,
        name: str | None = None,
        *,
        where: Window = EVERYWHERE,
        texture_hu: tuple[float, float] = (0.0, 0.0),
        within: Array | None = None,
    ) -> None:
        """As `paint`, with a signed distance computed on the voxels of `where`, on which `hu` may vary."""
        share = self.occupancy(sdf)
        if within is not None:
            share = share * within[where]
        value = np.asarray(hu, np.float32)
        for texture, amplitude in zip((self._coarse, self._fine), texture_hu, strict=True):
            if amplitude:
                value = value + np.float32(amplitude) * texture[where]
        self.image[where] += share * (value - self.image[where])
        if name is not None:
            self.labels[where][sdf < 0] = self._numbers.get(name, 0)


def smooth_max(a: Floats, b: Floats, blend_mm: float) -> Array:
    """Intersection of two shapes, its edge rounded over `blend_mm`."""
    h = np.clip(np.float32(0.5) + (a - b) * np.float32(0.5 / blend_mm), 0, 1)
    return np.asarray(b + (a - b) * h + np.float32(blend_mm) * h * (1 - h), np.float32)


def smooth_min(a: Floats, b: Floats, blend_mm: float) -> Array:
    """Union of two shapes, its seam filled over `blend_mm`."""
    return -smooth_max(-a, -b, blend_mm)


def turned(about_x: float = 0.0, about_y: float = 0.0, about_z: float = 0.0) -> NDArray[np.float64]:
    """The three axes in rows, (3, 3), after rotations about x, then y, then z (radians)."""
    columns = np.eye(3)
    for axis, angle in enumerate((about_x, about_y, about_z)):
        c, s = np.cos(angle), np.sin(angle)
        j, k = (axis + 1) % 3, (axis + 2) % 3
        turn = np.eye(3)
        turn[j, j], turn[j, k], turn[k, j], turn[k, k] = c, -s, s, c
        columns = turn @ columns
    return np.ascontiguousarray(columns.T)


def ellipsoid(centre: Vector, radii: Vector, axes: NDArray[np.float64] | None = None, power: float = 2.0) -> Shape:
    """An ellipsoid (`power` 2) or a fuller body (above 2). `axes` (3, 3) holds the directions of the radii in rows."""
    origin, extent = np.asarray(centre, np.float64), np.asarray(radii, np.float64)
    rows = np.eye(3) if axes is None else axes
    # A power above 2 fills the corners, so that the box of the radii is the bound instead of the ellipsoid's own.
    reach = np.sqrt(((rows * extent[:, None]) ** 2).sum(0)) if power <= 2 else (np.abs(rows) * extent[:, None]).sum(0)

    sdf = partial(_ellipsoid_sdf, origin=origin, extent=extent, rows=rows, power=power)
    return Shape.of(origin - reach, origin + reach, sdf)


def _ellipsoid_sdf(
    coords: Coords, *, origin: NDArray[np.float64], extent: NDArray[np.float64], rows: NDArray[np.float64], power: float
) -> Array:
    offsets = [c - np.float32(o) for c, o in zip(coords, origin, strict=True)]
    total, slope = np.float32(0), np.float32(0)
    for row, radius in zip(rows.astype(np.float32), extent.astype(np.float32), strict=True):
        along = np.abs(sum(r * o for r, o in zip(row, offsets, strict=True) if r)) / radius
        raised = along if power == 2 else along ** np.float32(power - 1)
        total, slope = total + along * raised, slope + (raised / radius) ** 2
    level = np.sqrt(total) if power == 2 else total ** np.float32(1 / power)
    # First-order distance: (level - 1) over the length of its gradient.
    gradient = np.sqrt(slope) * np.maximum(level, 1e-3) ** np.float32(1 - power)
    return np.asarray((level - 1) / np.maximum(gradient, 1e-3 / extent.max()), np.float32)


def _capsule(start: NDArray[np.float64], end: NDArray[np.float64], start_mm: float, end_mm: float) -> Shape:
    largest = max(start_mm, end_mm)
    sdf = partial(_capsule_sdf, start=start, end=end, start_mm=start_mm, end_mm=end_mm)
    return Shape.of(np.minimum(start, end) - largest, np.maximum(start, end) + largest, sdf)


def _capsule_sdf(
    coords: Coords, *, start: NDArray[np.float64], end: NDArray[np.float64], start_mm: float, end_mm: float
) -> Array:
    a, b, c = (end - start).astype(np.float32)
    x, y, z = (axis - np.float32(s) for axis, s in zip(coords, start, strict=True))
    length2 = max(a * a + b * b + c * c, np.float32(1e-6))
    t = np.clip((x * a + y * b + z * c) / length2, 0, 1)
    distance = np.sqrt((x - t * a) ** 2 + (y - t * b) ** 2 + (z - t * c) ** 2)
    return np.asarray(distance - (np.float32(start_mm) + t * np.float32(end_mm - start_mm)), np.float32)


def capsules(points: NDArray[np.float64], radii_mm: NDArray[np.float64]) -> list[Shape]:
    """A tube along `points` (N, 3) with radii (N,), as N - 1 shapes with small boxes."""
    pairs = zip(points[:-1], points[1:], radii_mm[:-1], radii_mm[1:], strict=True)
    return [_capsule(start, end, float(a), float(b)) for start, end, a, b in pairs]


def chain(points: NDArray[np.float64], radii_mm: NDArray[np.float64], blend_mm: float) -> Shape:
    """A tube along `points` as one shape with smooth joints, for organs whose distance other organs need."""
    return union(capsules(points, radii_mm), blend_mm)


def curve(knots: NDArray[np.float64], step_mm: float = 9.0) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Points (N, 3) about `step_mm` apart, and radii (N,), of a smooth curve through knots (M, 4): x, y, z, radius."""
    from scipy.interpolate import PchipInterpolator  # scipy.interpolate takes long to import

    lengths = np.linalg.norm(np.diff(knots[:, :3], axis=0), axis=1)
    along = np.concatenate([[0.0], np.cumsum(lengths)])
    count = max(2, round(float(along[-1]) / step_mm) + 1)
    dense = PchipInterpolator(along, knots)(np.linspace(0, along[-1], count))
    return dense[:, :3], dense[:, 3]


def union(shapes: Sequence[Shape], blend_mm: float) -> Shape:
    """Union of all shapes, seams filled."""
    low = np.min([shape.low for shape in shapes], axis=0) - blend_mm / 4
    high = np.max([shape.high for shape in shapes], axis=0) + blend_mm / 4
    return Shape.of(low, high, partial(_union_sdf, shapes=shapes, blend_mm=blend_mm))


def _union_sdf(coords: Coords, *, shapes: Sequence[Shape], blend_mm: float) -> Array:
    result = shapes[0].sdf(coords)
    for shape in shapes[1:]:
        result = smooth_min(result, shape.sdf(coords), blend_mm)
    return result


def clipped(shape: Shape, bound: Callable[[Coords], Array], blend_mm: float) -> Shape:
    """The part of the shape where `bound` is negative."""
    return Shape(shape.low, shape.high, lambda coords: smooth_max(shape.sdf(coords), bound(coords), blend_mm))


def without(shape: Shape, other: Shape, gap_mm: float, blend_mm: float) -> Shape:
    """The shape, dented wherever `other` is closer than `gap_mm`."""
    return clipped(shape, lambda coords: gap_mm - other.sdf(coords), blend_mm)


def inset(shape: Shape, depth_mm: float) -> Shape:
    """The shape without its outer `depth_mm`."""
    return Shape(shape.low, shape.high, lambda coords: shape.sdf(coords) + np.float32(depth_mm))


def _point(values: NDArray[np.float64]) -> Point:
    x, y, z = (float(v) for v in values)
    return x, y, z
