"""Phantom, stage 3 of 4, fourth coat: liver, spleen, stomach, kidneys, pancreas, gall bladder and small organs.

Each organ has a pose of its own, which differs between patients; neighbours are dented where they would overlap.
Upstream: phantom_torso. Downstream: phantom_anatomy.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from corereg.data.phantom_chest import Tree, paint_tree
from corereg.data.phantom_shapes import (
    Canvas,
    Coords,
    Shape,
    capsules,
    chain,
    clipped,
    curve,
    ellipsoid,
    inset,
    union,
    without,
)
from corereg.data.phantom_torso import Habitus, abdominal_space, level, spine_y

__all__ = ["ORGANS", "Organs", "Pose", "build_organs", "draw_poses", "paint_organs"]

LIVER_HU, SPLEEN_HU, STOMACH_WALL_HU, STOMACH_HU, PANCREAS_HU, BILE_HU, ADRENAL_HU = 110, 120, 70, 30, 95, 10, 75
KIDNEY_CORTEX_HU, KIDNEY_MEDULLA_HU, KIDNEY_PELVIS_HU = 195.0, 165.0, -10.0
VEIN_HU, LIVER_VEIN_HU, STOMACH_GAS_HU = 160.0, 150.0, -980.0

ORGANS = ("liver", "spleen", "stomach", "left kidney", "right kidney", "pancreas", "gall bladder")
POSE_SHIFT_MM, POSE_SCALE_SD = 4.0, 0.06
"""Deviation of an organ's place (each axis) and size (each axis) between patients, on top of the trunk's own shape."""
POSE_LIMIT = 2.0
"""In deviations."""

WALL_GAP_MM, ORGAN_GAP_MM, KIDNEY_GAP_MM, BEHIND_GAP_MM = 3.0, 2.5, 6.0, 12.0
"""Fat between neighbours. The stomach keeps well in front of the kidney: no pocket of it may be cut off there."""
STOMACH_WALL_MM, CORTEX_MM = 4.0, 7.0

STOMACH_KNOTS = (
    *((-48, -6, 70, 26), (-66, 8, 58, 31), (-66, 38, 34, 29), (-54, 62, 6, 25)),
    *((-26, 68, -14, 20), (2, 62, -16, 15), (22, 50, -10, 9)),
)
GAS_LEVEL_MM = 64.0
"""The patient lies on the back: gas gathers where the stomach reaches furthest forward."""
PANCREAS_KNOTS = (
    *((34, 26, -36, 12), (30, 30, -20, 14), (12, 36, -10, 10), (-12, 34, 0, 10.5)),
    *((-38, 22, 12, 10.5), (-58, 8, 20, 10), (-74, -2, 26, 8.5)),
)
PORTAL_KNOTS = ((8, 20, -8, 7.5), (18, 22, 10, 7.5), (32, 24, 30, 7))
SPLENIC_KNOTS = ((8, 20, -8, 5.5), (-18, 17, 2, 5.2), (-44, 2, 16, 5.2), (-66, -12, 26, 5))
MESENTERIC_KNOTS = ((8, 20, -8, 5.5), (12, 24, -40, 5), (14, 30, -80, 4.5))
RENAL_KNOTS = (
    *(((-8, 0, -8, 4), (-30, -12, -14, 3.5), (-48, -24, -18, 3)), ((20, 6, -10, 5), (-10, 14, -10, 4.5), (-46, -20, -20, 4.5))),
    *(((-7, 2, -16, 4), (20, -14, -22, 3.5), (46, -22, -30, 3)), ((22, 2, -20, 5), (46, -18, -32, 4.5))),
)
ADRENALS = {
    "right adrenal gland": (((34, -20, 34, 4.6), (31, -24, 20, 4.8), (34, -27, 8, 4.4)), ((31, -24, 20, 4.6), (40, -30, 14, 4.2))),
    "left adrenal gland": (((-36, -12, 32, 4.6), (-34, -17, 18, 4.8), (-36, -19, 6, 4.4)), ((-34, -17, 18, 4.6), (-44, -22, 12, 4.2))),
}
Knots = tuple[tuple[float, float, float, float], ...]


@dataclass(frozen=True)
class Pose:
    """Where an organ lies in this patient, and how large it is, against the atlas."""

    shift_mm: NDArray[np.float64]
    scale: NDArray[np.float64]

    def of(self, shape: Shape) -> Shape:
        """The shape scaled about the middle of its box, then shifted."""
        middle = (np.asarray(shape.low) + np.asarray(shape.high)) / 2
        low = middle + (np.asarray(shape.low) - middle) * self.scale + self.shift_mm
        high = middle + (np.asarray(shape.high) - middle) * self.scale + self.shift_mm
        size = np.float32(self.scale.mean())
        moved = (middle + self.shift_mm).astype(np.float32)

        def sdf(coords: Coords) -> "np.ndarray[tuple[int, ...], np.dtype[np.float32]]":
            parts = zip(coords, moved, self.scale.astype(np.float32), middle.astype(np.float32), strict=True)
            x, y, z = ((c - there) / scale + here for c, there, scale, here in parts)
            return np.asarray(shape.sdf((x, y, z)) * size, np.float32)

        return Shape((float(low[0]), float(low[1]), float(low[2])), (float(high[0]), float(high[1]), float(high[2])), sdf)


def draw_poses(rng: np.random.Generator) -> dict[str, Pose]:
    """A pose for each of ORGANS."""

    def draw() -> NDArray[np.float64]:
        return np.clip(rng.standard_normal(3), -POSE_LIMIT, POSE_LIMIT)

    return {name: Pose(POSE_SHIFT_MM * draw(), 1 + POSE_SCALE_SD * draw()) for name in ORGANS}


@dataclass(frozen=True)
class Organs:
    """The shapes of one patient's organs, disjoint up to the thinnest seams."""

    liver: Shape
    spleen: Shape
    stomach: Shape
    kidneys: dict[str, Shape]
    sinuses: dict[str, Shape]
    pancreas: Shape
    gall_bladder: Shape


def build_organs(poses: dict[str, Pose], habitus: Habitus) -> Organs:
    """Place the organs of the atlas, and make room between them."""
    space = abdominal_space(habitus, WALL_GAP_MM)
    kidneys, sinuses = {}, {}
    for side, name in ((1, "right kidney"), (-1, "left kidney")):
        kidneys[name], sinuses[name] = _kidney(side, poses[name])
    gall_bladder = poses["gall bladder"].of(ellipsoid((60, 62, -16), (14, 25, 16), _tilted(0.0, 0.5)))
    pancreas = poses["pancreas"].of(chain(*curve(PANCREAS_KNOTS, 12), 8.0))

    right_lobe = ellipsoid((76, 6, 28), (64, 86, 84), power=2.2)
    left_lobe = ellipsoid((4, 48, 58), (66, 46, 38))
    caudate = ellipsoid((24, 18, 48), (26, 26, 30))
    liver = clipped(poses["liver"].of(union([right_lobe, left_lobe, caudate], 22.0)), _above_underside, 22.0)
    liver = clipped(liver, space, 10.0)
    liver = without(liver, kidneys["right kidney"], KIDNEY_GAP_MM, 8.0)
    liver = clipped(without(liver, gall_bladder, 1.0), _beside_spine, 10.0)

    spleen = poses["spleen"].of(ellipsoid((-96, -28, 30), (36, 56, 56), _tilted(0.3, 0.0)))
    spleen = without(clipped(spleen, space, 10.0), kidneys["left kidney"], KIDNEY_GAP_MM, 8.0)

    stomach = clipped(poses["stomach"].of(chain(*curve(STOMACH_KNOTS, 14), 12.0)), space, 8.0)
    for other, gap in ((liver, ORGAN_GAP_MM), (spleen, ORGAN_GAP_MM), (kidneys["left kidney"], BEHIND_GAP_MM)):
        stomach = without(stomach, other, gap)
    stomach = without(stomach, pancreas, BEHIND_GAP_MM / 2, 10.0)
    return Organs(liver, spleen, stomach, kidneys, sinuses, pancreas, gall_bladder)


def _above_underside(coords: Coords) -> "np.ndarray[tuple[int, ...], np.dtype[np.float32]]":
    """The liver's visceral surface: low at the right flank, rising to the left and to the front."""
    x, y, z = coords
    height = np.float32(4) - np.float32(0.8) * np.maximum(x - 30, -40) + np.float32(0.12) * (y - 20)
    return (height - z) * np.float32(0.8)


def _beside_spine(coords: Coords) -> "np.ndarray[tuple[int, ...], np.dtype[np.float32]]":
    """Away from the spine, the crura and the aorta."""
    x, y, z = coords
    reach = level("spine_half_width", z) + 15
    return reach - np.sqrt(x**2 + (y - spine_y(z) - 6) ** 2)


def _tilted(about_y: float, about_x: float) -> NDArray[np.float64]:
    c, s, d, t = np.cos(about_y), np.sin(about_y), np.cos(about_x), np.sin(about_x)
    return np.array([[c, 0, -s], [0, 1, 0], [s, 0, c]]) @ np.array([[1, 0, 0], [0, d, -t], [0, t, d]])


def _kidney(side: int, pose: Pose) -> tuple[Shape, Shape]:
    """A bean with its hilum turned to the spine and forward, upper pole tilted inwards; and the fat in its sinus."""
    center = np.array([side * 68, -30, -20 if side < 0 else -34], np.float64)
    axes = _tilted(-side * 0.22, 0.12)
    bean = ellipsoid(center, (27, 26, 54), axes, power=2.2)
    sinus = ellipsoid(center + (-side * 19, 9, 0), (16, 11, 21), axes)
    # One pose for both, about the middle of the bean.
    bean, sinus = pose.of(bean), pose.of(Shape(bean.low, bean.high, sinus.sdf))
    return without(bean, sinus, 0.0, 4.0), sinus


def paint_organs(canvas: Canvas, organs: Organs, liver_trees: list[Tree]) -> None:
    """The labelled organs of the belly, large ones first."""
    canvas.paint(organs.stomach, STOMACH_WALL_HU, "stomach", rough_mm=0.6)
    lumen = inset(organs.stomach, STOMACH_WALL_MM)
    canvas.paint(lumen, STOMACH_HU, texture_hu=(4, 6))
    canvas.paint(clipped(lumen, lambda coords: GAS_LEVEL_MM - coords[1], 1.0), STOMACH_GAS_HU)

    canvas.paint(organs.liver, LIVER_HU, "liver", texture_hu=(4, 6), rough_mm=1.0)
    where = canvas.window(organs.liver)
    if where is not None:
        share = np.zeros(canvas.image.shape, np.float32)
        x, y, z = (c[where] for c in canvas.coords)
        share[where] = canvas.occupancy(organs.liver.sdf((x, y, z)) + 4)
        for tree in liver_trees:
            paint_tree(canvas, tree, LIVER_VEIN_HU, share)
    canvas.paint(organs.spleen, SPLEEN_HU, "spleen", texture_hu=(3, 6), rough_mm=0.8)
    for name, kidney in organs.kidneys.items():
        canvas.paint(organs.sinuses[name], KIDNEY_PELVIS_HU, "")
        canvas.paint(kidney, KIDNEY_CORTEX_HU, name, texture_hu=(3, 6), rough_mm=0.6)
        canvas.paint(inset(kidney, CORTEX_MM), KIDNEY_MEDULLA_HU, texture_hu=(10, 14))
    for knots in RENAL_KNOTS:
        _paint_vessel(canvas, knots, None)
    canvas.paint(organs.pancreas, PANCREAS_HU, "pancreas", texture_hu=(3, 10), rough_mm=1.0)
    _paint_vessel(canvas, MESENTERIC_KNOTS, "")
    for knots in (PORTAL_KNOTS, SPLENIC_KNOTS):
        _paint_vessel(canvas, knots, "portal and splenic vein")
    canvas.paint(organs.gall_bladder, BILE_HU, "gall bladder", texture_hu=(1, 2))
    for name, limbs in ADRENALS.items():
        for knots in limbs:
            for shape in capsules(*curve(knots)):
                canvas.paint(shape, ADRENAL_HU, name, texture_hu=(0, 4))


def _paint_vessel(canvas: Canvas, knots: Knots, name: str | None) -> None:
    for shape in capsules(*curve(knots)):
        canvas.paint(shape, VEIN_HU, name)
