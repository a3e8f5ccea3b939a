"""Phantom, stage 3 of 4, second coat: diaphragm, lungs with their vessels and airways, heart, great vessels, gullet.

Upstream: phantom_torso. Downstream: phantom_anatomy.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from corereg.data.phantom_shapes import (
    Array,
    Canvas,
    Coords,
    Shape,
    capsules,
    clipped,
    curve,
    ellipsoid,
    smooth_max,
    smooth_min,
    union,
)
from corereg.data.phantom_torso import Frame, diaphragm, level, spine_y

__all__ = ["Tree", "grow_tree", "paint_chest", "paint_great_vessels", "paint_tree"]

LUNG_HU, AIRWAY_HU, BLOOD_HU, HEART_WALL_HU, PERICARDIAL_FAT_HU = -850.0, -980.0, 160.0, 95.0, -85.0
MUSCLE_HU, SOFT_HU = 52.0, 40.0
PULMONARY_HU = 60.0
"""Of the lung's own vessels: thin, so that most of them show darker."""

DIAPHRAGM_HALF_MM, LUNG_GAP_MM, PLEURA_MM = 2.2, 3.0, 2.5
MEDIASTINUM_MM, HILUM_MM, HILUM_REACH_MM, UPPER_MM = 13.0, 17.0, 30.0, 16.0
"""Half width of the mediastinum: least, added at the hilum, over this distance, added above the heart."""

HEART_AXIS = (-0.66, 0.50, -0.56)
"""From base to apex: to the left, forward, down."""

BRANCHES, SHRINK, SHORTEN, TREE_STEP_MM, SPREAD = 6, 0.78, 0.84, 30.0, 0.6
"""Of vessel trees: generations, ratio of radii and of lengths between them, first length, sine of the branching angle."""

AORTA = (
    *((-2, 30, 158, 15), (6, 30, 182, 15.5), (10, 22, 206, 14.5), (2, 10, 227, 13.5), (-12, -6, 234, 13)),
    *((-23, -22, 224, 12.5), (-26, -31, 205, 12), (-26, -33, 170, 11.5), (-24, -29, 130, 11.5), (-19, -19, 90, 11)),
    *((-12, -9, 55, 10.5), (-8, -3, 20, 10), (-7, 2, -20, 9.5), (-7, 7, -65, 9), (-5, 8, -108, 8.5)),
)
"""Knots x, y, z, radius; so are all vessels."""
VENA_CAVA = (
    *((27, 20, 128, 12), (28, 10, 100, 12.5), (28, 4, 75, 12.5), (25, 2, 40, 12), (21, 2, 5, 11.5)),
    *((19, 6, -40, 11), (18, 9, -80, 11), (15, 7, -112, 10)),
)
OESOPHAGUS = (
    *((-1, 0, 318, 7), (-1, -14, 270, 7.5), (-1, -21, 230, 7.5), (-3, -21, 190, 7.5), (-7, -14, 150, 7.5)),
    *((-12, -4, 115, 8), (-19, 4, 92, 8), (-34, 12, 78, 8.5)),
)
TRACHEA = ((4, 16, 330, 8.5), (4, 6, 285, 8.5), (5, -2, 240, 8.5), (5, -5, 212, 9))
BRONCHI = {1: ((5, -5, 212, 8), (24, -8, 196, 6.5), (46, -10, 176, 4.5)), -1: ((5, -5, 212, 7.5), (-20, -8, 192, 6), (-46, -12, 170, 4.5))}
OTHER_VESSELS = (
    ((28, 18, 160, 9.5), (28, 14, 200, 9), (26, 14, 235, 8.5), (34, 14, 270, 7)),  # superior vena cava
    ((26, 16, 232, 7), (0, 26, 244, 6.5), (-30, 18, 262, 6.5)),  # left brachiocephalic vein
    ((-16, 44, 168, 14), (-16, 34, 192, 13), (-14, 18, 198, 12)),  # pulmonary trunk
    ((-14, 18, 198, 11), (10, 4, 190, 10), (44, -4, 186, 8)),  # right pulmonary artery
    ((-14, 18, 198, 10), (-32, -2, 200, 9.5), (-46, -8, 190, 8)),  # left pulmonary artery
    ((12, 12, 228, 6), (16, 12, 260, 5.5), (22, 8, 300, 5)),  # brachiocephalic artery
    ((-6, 2, 236, 4.5), (-12, 2, 270, 4), (-16, 4, 320, 4)),  # left carotid
    ((-16, -12, 236, 5), (-24, -12, 268, 5), (-50, -8, 288, 5)),  # left subclavian
)  # fmt: skip
ILIAC = (
    ((-5, 8, -108, 7), (-24, 10, -138, 6), (-44, 6, -175, 6)),
    ((-5, 8, -108, 7), (18, 10, -140, 6), (40, 6, -175, 6)),
    ((15, 7, -112, 8), (30, 0, -142, 7.5), (46, -6, -175, 7)),
    ((15, 7, -112, 8), (-10, -2, -138, 7.5), (-36, -6, -175, 7)),
)
HILA = {1: (42.0, -5.0, 182.0), -1: (-42.0, -8.0, 184.0)}


@dataclass(frozen=True)
class Tree:
    """Branches of a vessel tree: starts and ends (N, 3), radii at both (N, 2), millimetres."""

    lines: NDArray[np.float64]
    radii_mm: NDArray[np.float64]


def grow_tree(
    rng: np.random.Generator, root: tuple[float, float, float], toward: tuple[float, float, float], radius_mm: float,
    *, generations: int = BRANCHES, step_mm: float = TREE_STEP_MM,
) -> Tree:  # fmt: skip
    """A tree that forks at every node, in planes drawn at random."""
    lines, radii = [], []
    direction = np.asarray(toward, np.float64)
    tips = [(np.asarray(root, np.float64), direction / np.linalg.norm(direction), radius_mm, step_mm)]
    for _ in range(generations):
        grown = []
        for start, heading, radius, step in tips:
            end = start + step * rng.uniform(0.75, 1.25) * heading
            lines.append((start, end))
            radii.append((radius, radius * SHRINK))
            aside = np.cross(heading, rng.standard_normal(3))
            aside *= SPREAD / np.linalg.norm(aside)
            for sign in (1, -1):
                turned = heading + sign * rng.uniform(0.6, 1.3) * aside
                grown.append((end, turned / np.linalg.norm(turned), radius * SHRINK, step * SHORTEN))
        tips = grown
    return Tree(np.array(lines), np.array(radii))


def paint_tree(canvas: Canvas, tree: Tree, hu: float, within: Array | None = None) -> None:
    """The branches, faded out outside `within` (I, J, K)."""
    for line, radii in zip(tree.lines, tree.radii_mm, strict=True):
        canvas.paint(capsules(line, radii)[0], hu, within=within)


def heart(frame: Frame) -> Shape:
    """Ventricles and atria, resting on the diaphragm."""
    axis = np.asarray(HEART_AXIS) / np.linalg.norm(HEART_AXIS)
    second = np.cross(axis, (0.0, 0.0, 1.0))
    second /= np.linalg.norm(second)
    axes = np.stack([axis, second, np.cross(axis, second)])
    body = ellipsoid((-26, 34, 128), (60, 43, 41), axes)
    atrium = ellipsoid((24, 22, 140), (29, 31, 36))
    back = ellipsoid((-8, 4, 152), (36, 22, 24))
    habitus = frame.habitus
    return clipped(union([body, atrium, back], 14.0), lambda c: np.float32(3) - diaphragm(c, habitus), 8.0)


def paint_chest(canvas: Canvas, frame: Frame, pulmonary: dict[int, list[Tree]]) -> None:
    """Diaphragm, lungs, airways, heart and the vessels around it. `pulmonary` holds each side's trees (1 right, -1)."""
    sheet = smooth_max(np.abs(frame.diaphragm) - np.float32(DIAPHRAGM_HALF_MM), frame.cavity, 3.0)
    canvas.paint_sdf(sheet, MUSCLE_HU)
    core = heart(frame)
    heart_sdf = _on_canvas(canvas, core)
    mediastinum = smooth_min(_mediastinum(canvas.coords), heart_sdf - 5, 12.0)
    middle = smooth_max(smooth_max(mediastinum, frame.cavity + 2, 4.0), -frame.diaphragm, 4.0)
    canvas.paint_sdf(middle, PERICARDIAL_FAT_HU, texture_hu=(5, 15))
    for side, name in ((1, "right lung"), (-1, "left lung")):
        space = smooth_max(frame.cavity + np.float32(PLEURA_MM), np.float32(LUNG_GAP_MM) - frame.diaphragm, 3.0)
        lung = smooth_max(smooth_max(space, -mediastinum, 8.0), -side * canvas.coords[0], 1.0)
        canvas.paint_sdf(lung, LUNG_HU, name, texture_hu=(20, 12))
        share = canvas.occupancy(lung + 1)
        for tree in pulmonary[side]:
            paint_tree(canvas, tree, PULMONARY_HU, share)
        for shape in capsules(*curve(BRONCHI[side])):
            canvas.paint(shape, AIRWAY_HU, within=share)
    _paint_heart(canvas, core)


def paint_great_vessels(canvas: Canvas) -> None:
    """Aorta, caval and pulmonary vessels, gullet, windpipe: after the organs, which they run through or beside."""
    for knots in OTHER_VESSELS + ILIAC:
        _paint_tube(canvas, knots, BLOOD_HU, "")
    _paint_tube(canvas, OESOPHAGUS, SOFT_HU, "oesophagus")
    _paint_tube(canvas, VENA_CAVA, BLOOD_HU - 15, "inferior vena cava")
    _paint_tube(canvas, AORTA, BLOOD_HU + 10, "aorta")
    for knots in (TRACHEA, BRONCHI[1][:2], BRONCHI[-1][:2]):
        _paint_tube(canvas, [(x, y, z, r + 1.5) for x, y, z, r in knots], SOFT_HU, None if knots != TRACHEA else "trachea")
    for knots in (TRACHEA, BRONCHI[1], BRONCHI[-1]):
        _paint_tube(canvas, knots, AIRWAY_HU, None)


def _paint_tube(canvas: Canvas, knots: "tuple[tuple[float, float, float, float], ...]", hu: float, name: str | None) -> None:
    for shape in capsules(*curve(knots)):
        canvas.paint(shape, hu, name)


def _paint_heart(canvas: Canvas, core: Shape) -> None:
    canvas.paint(core, HEART_WALL_HU, "heart", texture_hu=(3, 6))
    axis = np.asarray(HEART_AXIS) / np.linalg.norm(HEART_AXIS)
    second = np.cross(axis, (0.0, 0.0, 1.0))
    second /= np.linalg.norm(second)
    axes = np.stack([axis, second, np.cross(axis, second)])
    for center, radii in (
        ((-34, 28, 124), (42, 20, 20)),  # left ventricle
        ((-14, 54, 126), (40, 15, 22)),  # right ventricle
    ):
        canvas.paint(ellipsoid(center, radii, axes), BLOOD_HU)
    canvas.paint(ellipsoid((26, 22, 140), (23, 25, 30)), BLOOD_HU)
    canvas.paint(ellipsoid((-8, 2, 153), (31, 17, 19)), BLOOD_HU)


def _on_canvas(canvas: Canvas, shape: Shape) -> Array:
    """A shape's distance on the whole canvas; far away, where it does not matter, a large number."""
    sdf = np.full(canvas.image.shape, np.float32(100))
    where = canvas.window(Shape(_moved(shape.low, -30), _moved(shape.high, 30), shape.sdf))
    if where is not None:
        x, y, z = (c[where] for c in canvas.coords)
        sdf[where] = np.minimum(shape.sdf((x, y, z)), 100)
    return sdf


def _moved(corner: tuple[float, float, float], by: float) -> tuple[float, float, float]:
    x, y, z = (c + by for c in corner)
    return x, y, z


def _mediastinum(coords: Coords) -> Array:
    """What lies between the lungs: narrow in front, wide at the hilum, around the spine behind."""
    x, y, z = coords
    hilum = np.exp(-(((y + 8) / HILUM_REACH_MM) ** 2) - ((z - 178) / 45) ** 2)
    upper = 0.5 + 0.5 * np.tanh((z - 215) / 18)
    fat_middle = np.float32(MEDIASTINUM_MM) + HILUM_MM * hilum + UPPER_MM * upper * np.exp(-(((y - 8) / 40) ** 2))
    between = np.abs(x) - fat_middle
    half = level("spine_half_width", z)
    behind = (y - spine_y(z)) + half * np.float32(0.3)
    spine = np.sqrt(x**2 + (np.maximum(behind, 0)) ** 2) - half - 4
    aorta = np.sqrt((x + 26) ** 2 + (y + 32) ** 2) - 14
    cava = np.sqrt((x - 28) ** 2 + (y - 10) ** 2) - 16
    return smooth_min(smooth_min(smooth_min(between, spine, 8.0), aorta, 14.0), cava, 14.0)
