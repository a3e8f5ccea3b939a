"""Phantom, stage 3 of 4, fourth layer: liver, spleen, stomach, kidneys, pancreas, gall bladder and small organs.

Each organ has its own pose, which differs between patients; neighbours are dented where they would overlap.
Upstream: torso, tubes. Downstream: anatomy.
"""

from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from corereg.data.phantom.shapes import (
    Array,
    Canvas,
    Coords,
    Shape,
    chain,
    clipped,
    curve,
    ellipsoid,
    inset,
    smooth_max,
    turned,
    union,
    without,
)
from corereg.data.phantom.tissues import HU, TEXTURE_HU
from corereg.data.phantom.torso import Habitus, abdominal_space, level, spine_y
from corereg.data.phantom.tubes import Tree, grow_tree, mirrored, paint_tree, paint_tube

__all__ = ["Organs", "Pose", "build_organs", "draw_hepatic", "draw_poses", "paint_organs"]

ORGANS = ("liver", "spleen", "stomach", "left kidney", "right kidney", "pancreas", "gall bladder")
POSE_SHIFT_MM, POSE_SCALE_SD, POSE_LIMIT = 4.0, 0.06, 2.0
"""Standard deviation of an organ's position and size (per axis) between patients, in addition to the trunk's shape, and
its limit in standard deviations."""

WALL_GAP_MM, ORGAN_GAP_MM, KIDNEY_GAP_MM, TAIL_GAP_MM, BILE_GAP_MM = 3.0, 2.5, 6.0, 4.0, 1.0
STOMACH_BEHIND_GAP_MM = (12.0, 6.0)
"""Fat between neighbours. The stomach stays well in front of kidney and pancreas, or they would cut a pocket off it."""
STOMACH_WALL_MM, CORTEX_MM, CAPSULE_MM = 4.0, 7.0, 4.0
"""Thickness of the stomach wall and the renal cortex, and depth of the liver's vessels below its surface."""

# Centres and radii.
RIGHT_LOBE, LEFT_LOBE, CAUDATE = ((77, 6, 30), (67, 90, 88)), ((4, 46, 58), (70, 50, 40)), ((24, 18, 48), (26, 26, 30))
RIGHT_LOBE_POWER = 2.2
UNDERSIDE = (4.0, 0.8, 30.0, -40.0, 0.12, 20.0)
"""Visceral surface of the liver: height, fall per millimetre to the right of an x, smallest distance counted from
there, rise per millimetre in front of a y."""
SPINE_GAP_MM, SPINE_FORWARD_MM = 20.0, 6.0
"""Distance of the liver from the edge of the spine (crura and aorta lie between), and how far in front of the spine's
axis it is measured from."""
BEHIND_CAVA = (14.0, -12.0, 18.0)
"""x, y and radius of a column that the liver leaves free, so that the vena cava cuts no sliver off it."""
SPLEEN, SPLEEN_TURN = ((-96, -28, 30), (36, 56, 56)), 0.3
GALL_BLADDER, GALL_BLADDER_TURN = ((60, 62, -16), (14, 25, 16)), -0.5
KIDNEY_XY, KIDNEY_Z, KIDNEY_RADII, KIDNEY_POWER = (68.0, -30.0), {1: -34.0, -1: -20.0}, (27, 26, 54), 2.2
KIDNEY_TURN = (0.15, -0.22)
"""Rotations about x and y: the upper pole leans back and inwards."""
SINUS_OFFSET, SINUS_RADII = (-19.0, 9.0, 0.0), (16, 11, 21)

SHADOW_OFFSET = (-4.0, -24.0, 0.0)
"""Offset of the space behind the kidney, which the liver leaves free as well, so that no pocket of it is cut off."""

STOMACH = np.array(
    (
        *((-48, -6, 70, 26), (-66, 8, 58, 31), (-66, 38, 34, 29), (-54, 62, 6, 25)),
        *((-26, 68, -14, 20), (2, 62, -16, 15), (22, 50, -10, 9)),
    ),
    float,
)
"""Knots of x, y, z, radius, as in the tables below."""
GAS_LEVEL_MM = 64.0
"""y above which the stomach holds gas: the patient lies on the back, so gas gathers in front."""
PANCREAS = np.array(
    (
        *((34, 26, -36, 12), (30, 30, -20, 14), (12, 36, -10, 10), (-12, 34, 0, 10.5)),
        *((-38, 22, 12, 10.5), (-58, 8, 20, 10), (-74, -2, 26, 8.5)),
    ),
    float,
)
PORTAL_VEINS = (
    np.array(((8, 20, -8, 7.5), (18, 22, 10, 7.5), (32, 24, 30, 7)), float),
    np.array(((8, 20, -8, 5.5), (-18, 17, 2, 5.2), (-44, 2, 16, 5.2), (-66, -12, 26, 5)), float),
)
MESENTERIC_VEIN = np.array(((8, 20, -8, 5.5), (12, 24, -40, 5), (14, 30, -80, 4.5)), float)
RENAL_VESSELS = (
    np.array(((-8, 0, -8, 4), (-30, -12, -14, 3.5), (-48, -24, -18, 3)), float),
    np.array(((20, 6, -10, 5), (-10, 14, -10, 4.5), (-46, -20, -20, 4.5)), float),
    np.array(((-7, 2, -16, 4), (20, -14, -22, 3.5), (46, -22, -30, 3)), float),
    np.array(((22, 2, -20, 5), (46, -18, -32, 4.5)), float),
)
ADRENALS = {
    "right adrenal gland": (
        np.array(((34, -20, 34, 4.6), (31, -24, 20, 4.8), (34, -27, 8, 4.4)), float),
        np.array(((31, -24, 20, 4.6), (40, -30, 14, 4.2)), float),
    ),
    "left adrenal gland": (
        np.array(((-36, -12, 32, 4.6), (-34, -17, 18, 4.8), (-36, -19, 6, 4.4)), float),
        np.array(((-34, -17, 18, 4.6), (-44, -22, 12, 4.2)), float),
    ),
}
"""Knots of the limbs, thicker than in reality (9 mm instead of 6), so that they hold together at 3 mm."""

HEPATIC_TREES = (
    ((34, 24, 30), (1.0, -0.2, 0.1), 5.5, 5, 30.0),  # right portal branch
    ((20, 36, 44), (-0.8, 0.5, 0.3), 4.5, 4, 26.0),  # left portal branch
    ((30, 4, 80), (1.0, 0.0, -0.7), 5.5, 5, 30.0),  # right hepatic vein
    ((26, 12, 80), (0.3, 0.9, -0.6), 5.0, 4, 28.0),  # middle and left hepatic vein
)
"""Root, direction, radius, generations and first length."""


@dataclass(frozen=True)
class Pose:
    """Position and size of a patient's organ relative to the atlas, (3,) each."""

    shift_mm: NDArray[np.float64]
    scale: NDArray[np.float64]

    def of(self, shape: Shape) -> Shape:
        """The shape scaled about the centre of its box, then shifted."""
        low, high = np.array(shape.low), np.array(shape.high)
        middle, half = (low + high) / 2, (high - low) / 2
        moved = middle + self.shift_mm
        moves = [(float(a), float(b), float(c)) for a, b, c in zip(moved, self.scale, middle, strict=True)]

        sdf = partial(_posed_sdf, shape=shape, moves=moves, size=float(self.scale.mean()))
        return Shape.of(moved - half * self.scale, moved + half * self.scale, sdf)


def _posed_sdf(coords: Coords, *, shape: Shape, moves: list[tuple[float, float, float]], size: float) -> Array:
    x, y, z = ((c - there) / scale + here for c, (there, scale, here) in zip(coords, moves, strict=True))
    return np.asarray(shape.sdf((x, y, z)) * size, np.float32)


@dataclass(frozen=True)
class Organs:
    """Shapes of one patient's organs, disjoint except for very thin seams."""

    liver: Shape
    spleen: Shape
    stomach: Shape
    kidneys: dict[str, Shape]
    sinuses: dict[str, Shape]
    pancreas: Shape
    gall_bladder: Shape


def draw_poses(rng: np.random.Generator) -> dict[str, Pose]:
    """Draw a pose for each of ORGANS."""
    draws = np.clip(rng.standard_normal((len(ORGANS), 2, 3)), -POSE_LIMIT, POSE_LIMIT)
    return {
        name: Pose(POSE_SHIFT_MM * shift, 1 + POSE_SCALE_SD * scale)
        for name, (shift, scale) in zip(ORGANS, draws, strict=True)
    }


def draw_hepatic(rng: np.random.Generator) -> list[Tree]:
    """Draw the vessel trees of the liver."""
    return [
        grow_tree(rng, root, toward, radius, generations=generations, step_mm=step)
        for root, toward, radius, generations, step in HEPATIC_TREES
    ]


def build_organs(poses: dict[str, Pose], habitus: Habitus) -> Organs:
    """Place the organs of the atlas, and make room between them."""
    space = abdominal_space(habitus, WALL_GAP_MM)
    kidneys, sinuses = {}, {}
    for side, name in ((1, "right kidney"), (-1, "left kidney")):
        kidneys[name], sinuses[name] = _kidney(side, poses[name])
    gall_bladder = poses["gall bladder"].of(ellipsoid(*GALL_BLADDER, turned(about_x=GALL_BLADDER_TURN)))
    pancreas = poses["pancreas"].of(chain(*curve(PANCREAS, 12.0), 8.0))

    lobes = [ellipsoid(*RIGHT_LOBE, power=RIGHT_LOBE_POWER), ellipsoid(*LEFT_LOBE), ellipsoid(*CAUDATE)]
    liver = clipped(poses["liver"].of(union(lobes, 22.0)), _below_underside, 22.0)
    liver = without(clipped(liver, space, 10.0), kidneys["right kidney"], KIDNEY_GAP_MM, 8.0)
    behind_kidney = Pose(np.array(SHADOW_OFFSET), np.ones(3)).of(kidneys["right kidney"])
    liver = without(liver, behind_kidney, 0.0, 8.0)
    liver = clipped(without(liver, gall_bladder, BILE_GAP_MM, 5.0), _near_spine, 10.0)

    spleen = poses["spleen"].of(ellipsoid(*SPLEEN, turned(about_y=SPLEEN_TURN)))
    spleen = without(clipped(spleen, space, 10.0), kidneys["left kidney"], KIDNEY_GAP_MM, 8.0)
    spleen = without(spleen, pancreas, TAIL_GAP_MM, 8.0)

    stomach = clipped(poses["stomach"].of(chain(*curve(STOMACH, 14.0), 12.0)), space, 8.0)
    for other, gap, blend in (
        (liver, ORGAN_GAP_MM, 5.0),
        (spleen, ORGAN_GAP_MM, 5.0),
        (kidneys["left kidney"], STOMACH_BEHIND_GAP_MM[0], 5.0),
        (pancreas, STOMACH_BEHIND_GAP_MM[1], 10.0),
    ):
        stomach = without(stomach, other, gap, blend)
    return Organs(liver, spleen, stomach, kidneys, sinuses, pancreas, gall_bladder)


def _kidney(side: int, pose: Pose) -> tuple[Shape, Shape]:
    """A bean whose hilum faces the spine and the front, and the fat in its sinus."""
    centre = np.array((side * KIDNEY_XY[0], KIDNEY_XY[1], KIDNEY_Z[side]))
    about_x, about_y = KIDNEY_TURN
    axes = turned(about_x=about_x, about_y=side * about_y)
    bean = ellipsoid(centre, KIDNEY_RADII, axes, KIDNEY_POWER)
    sinus = ellipsoid(centre + mirrored(np.array(SINUS_OFFSET), side), SINUS_RADII, axes)
    # Both have the same pose, about the centre of the bean.
    bean, sinus = pose.of(bean), pose.of(Shape(bean.low, bean.high, sinus.sdf))
    return without(bean, sinus, 0.0, 4.0), sinus


def _below_underside(coords: Coords) -> Array:
    x, y, z = coords
    base, fall, from_x, least, rise, from_y = UNDERSIDE
    height = base - fall * np.maximum(x - from_x, least) + rise * (y - from_y)
    return np.asarray((height - z) / np.hypot(1.0, fall), np.float32)


def _near_spine(coords: Coords) -> Array:
    x, y, z = coords
    distance = np.sqrt(x**2 + (y - spine_y(z) - SPINE_FORWARD_MM) ** 2)
    spine = level("spine_half_width", z) + SPINE_GAP_MM - distance
    centre_x, centre_y, radius = BEHIND_CAVA
    return smooth_max(spine, radius - np.sqrt((x - centre_x) ** 2 + (y - centre_y) ** 2), 8.0)


def paint_organs(canvas: Canvas, organs: Organs, hepatic: list[Tree]) -> None:
    """Paint the labelled organs of the abdomen and their vessels, large ones first."""
    _paint_stomach(canvas, organs.stomach)
    canvas.paint(organs.liver, HU["liver"], "liver", texture_hu=TEXTURE_HU["liver"], rough_mm=1.0)
    where = canvas.window(organs.liver)
    if where is not None:
        share = np.zeros(canvas.image.shape, np.float32)
        x, y, z = (c[where] for c in canvas.coords)
        share[where] = canvas.occupancy(organs.liver.sdf((x, y, z)) + np.float32(CAPSULE_MM))
        for tree in hepatic:
            paint_tree(canvas, tree, HU["liver vein"], share)
    canvas.paint(organs.spleen, HU["spleen"], "spleen", texture_hu=TEXTURE_HU["spleen"], rough_mm=0.8)
    for name, kidney in organs.kidneys.items():
        canvas.paint(organs.sinuses[name], HU["renal sinus"], "")
        canvas.paint(kidney, HU["renal cortex"], name, texture_hu=TEXTURE_HU["renal cortex"], rough_mm=0.6)
        canvas.paint(inset(kidney, CORTEX_MM), HU["renal medulla"], texture_hu=TEXTURE_HU["renal medulla"])
    for knots in RENAL_VESSELS:
        paint_tube(canvas, knots, HU["portal vein"])
    canvas.paint(organs.pancreas, HU["pancreas"], "pancreas", texture_hu=TEXTURE_HU["pancreas"], rough_mm=1.0)
    paint_tube(canvas, MESENTERIC_VEIN, HU["portal vein"], "")
    for knots in PORTAL_VEINS:
        paint_tube(canvas, knots, HU["portal vein"], "portal and splenic vein")
    canvas.paint(organs.gall_bladder, HU["bile"], "gall bladder", texture_hu=TEXTURE_HU["bile"])
    for name, limbs in ADRENALS.items():
        for knots in limbs:
            paint_tube(canvas, knots, HU["adrenal"], name, texture_hu=TEXTURE_HU["adrenal"])


def _paint_stomach(canvas: Canvas, stomach: Shape) -> None:
    canvas.paint(stomach, HU["stomach wall"], "stomach", rough_mm=0.6)
    lumen = inset(stomach, STOMACH_WALL_MM)
    canvas.paint(lumen, HU["stomach"], texture_hu=TEXTURE_HU["stomach"])
    canvas.paint(clipped(lumen, lambda coords: np.float32(GAS_LEVEL_MM) - coords[1], 1.0), HU["stomach gas"])
