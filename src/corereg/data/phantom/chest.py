"""Phantom, stage 3 of 4, third layer: diaphragm, lungs with vessels and airways, heart, great vessels, oesophagus.

Upstream: torso, tubes. Downstream: anatomy.
"""

import numpy as np

from corereg.data.phantom.shapes import (
    Array,
    Canvas,
    Coords,
    Shape,
    clipped,
    ellipsoid,
    smooth_max,
    smooth_min,
    union,
)
from corereg.data.phantom.tissues import HU, TEXTURE_HU
from corereg.data.phantom.torso import Frame, diaphragm, level, spine_y
from corereg.data.phantom.tubes import Tree, grow_tree, mirrored, paint_tree, paint_tube

__all__ = ["draw_pulmonary", "paint_chest", "paint_great_vessels"]

DIAPHRAGM_HALF_MM, LUNG_GAP_MM, PLEURA_MM, PERICARDIUM_MM, AIRWAY_WALL_MM = 2.2, 3.0, 2.5, 5.0, 1.5
"""Half the thickness of the diaphragm; distance of the lungs from its middle, from the wall and from the heart; wall of
the airways."""

MEDIASTINUM_MM, HILUM_MM, UPPER_MM = 13.0, 17.0, 16.0
"""Half the width of the space between the lungs: minimum, addition at the hilum, addition above the heart."""
HILUM_AT, HILUM_REACH = (-8.0, 178.0), (30.0, 45.0)
"""Position (y, z) and extent of the hilum."""
UPPER_Z, UPPER_TURN_MM, UPPER_Y, UPPER_REACH_MM = 215.0, 18.0, 8.0, 40.0
COLUMNS = ((-26.0, -32.0, 14.0), (28.0, 10.0, 16.0))
"""Columns next to the heart that the lungs leave free over their whole height, for the descending aorta and the venae
cavae: x, y, radius. The pocket between each column and the heart is filled, or its tip would be a separate lung."""

HEART_AXES = np.array(((-0.66, 0.50, -0.56), (0.604, 0.797, 0.0), (0.446, -0.338, -0.828)))
"""Direction from base to apex (left, forward, down) and two directions perpendicular to it, in rows."""
HEART_BODY = ((-26, 34, 128), (60, 43, 41))
RIGHT_ATRIUM, LEFT_ATRIUM = ((24, 22, 140), (29, 31, 36)), ((-8, 4, 152), (36, 22, 24))
LEFT_BLOOD, RIGHT_BLOOD = ((-34, 28, 124), (42, 20, 20)), ((-14, 54, 126), (40, 15, 22))
RIGHT_ATRIAL_BLOOD, LEFT_ATRIAL_BLOOD = ((26, 22, 140), (23, 25, 30)), ((-8, 2, 153), (31, 17, 19))
"""Centres and radii."""
HEART_LIFT_MM = 3.0

# Knots of tubes: x, y, z, radius.
AORTA = np.array(
    (
        *((-2, 30, 166, 14), (6, 30, 184, 15.5), (10, 22, 206, 14.5), (2, 10, 227, 13.5), (-12, -6, 234, 13)),
        *((-23, -22, 224, 12.5), (-26, -31, 205, 12), (-26, -33, 170, 11.5), (-24, -29, 130, 11.5), (-19, -19, 90, 11)),
        *((-12, -9, 55, 10.5), (-8, -3, 20, 10), (-7, 2, -20, 9.5), (-7, 7, -65, 9), (-5, 8, -108, 8.5)),
    ),
    float,
)
VENA_CAVA = np.array(
    (
        *((27, 20, 128, 12), (28, 10, 100, 12.5), (28, 4, 75, 12.5), (25, 2, 40, 12), (21, 2, 5, 11.5)),
        *((19, 6, -40, 11), (18, 9, -80, 11), (15, 7, -112, 10)),
    ),
    float,
)
OESOPHAGUS = np.array(
    (
        *((-1, 0, 318, 7), (-1, -14, 270, 7.5), (-1, -21, 230, 7.5), (-3, -21, 190, 7.5), (-7, -14, 150, 7.5)),
        *((-12, -4, 115, 8), (-19, 4, 92, 8), (-34, 12, 78, 8.5)),
    ),
    float,
)
TRACHEA = np.array(((4, 16, 330, 8.5), (4, 6, 285, 8.5), (5, -2, 240, 8.5), (5, -5, 212, 9)), float)
BRONCHI = {
    1: np.array(((5, -5, 212, 8), (24, -8, 196, 6.5), (46, -10, 176, 4.5)), float),
    -1: np.array(((5, -5, 212, 7.5), (-20, -8, 192, 6), (-46, -12, 170, 4.5)), float),
}
VEINS = {
    "superior vena cava": ((28, 18, 160, 9.5), (28, 14, 200, 9), (26, 14, 235, 8.5), (34, 14, 270, 7)),
    "left brachiocephalic vein": ((26, 16, 232, 7), (0, 26, 244, 6.5), (-30, 18, 262, 6.5)),
    "right iliac vein": ((15, 7, -112, 8), (30, 0, -142, 7.5), (46, -6, -175, 7)),
    "left iliac vein": ((15, 7, -112, 8), (-10, -2, -138, 7.5), (-36, -6, -175, 7)),
}
ARTERIES = {
    "pulmonary trunk": ((-16, 44, 168, 14), (-16, 34, 192, 13), (-14, 18, 198, 12)),
    "right pulmonary artery": ((-14, 18, 198, 11), (10, 4, 190, 10), (44, -4, 186, 8)),
    "left pulmonary artery": ((-14, 18, 198, 10), (-32, -2, 200, 9.5), (-46, -8, 190, 8)),
    "brachiocephalic artery": ((12, 12, 228, 6), (16, 12, 260, 5.5), (22, 8, 300, 5)),
    "left carotid artery": ((-6, 2, 236, 4.5), (-12, 2, 270, 4), (-16, 4, 320, 4)),
    "left subclavian artery": ((-16, -12, 236, 5), (-24, -12, 268, 5), (-50, -8, 288, 5)),
    "left iliac artery": ((-5, 8, -108, 7), (-24, 10, -138, 6), (-44, 6, -175, 6)),
    "right iliac artery": ((-5, 8, -108, 7), (18, 10, -140, 6), (40, 6, -175, 6)),
}

HILUS = np.array((42.0, -6.0, 183.0))
LUNG_BRANCHES = np.array(((0.5, 0.2, 1.0), (0.9, 0.6, -0.1), (0.7, -0.6, 0.0), (0.5, -0.5, -1.0), (0.5, 0.3, -0.9)))
"""Root and directions of the trees of the right lung."""
LUNG_RADIUS_MM, LUNG_STEP_MM, LUNG_GENERATIONS = 5.5, 30.0, 6


def draw_pulmonary(rng: np.random.Generator) -> dict[int, list[Tree]]:
    """Draw the vessel trees of the right (1) and the left lung (-1)."""
    return {
        side: [
            grow_tree(
                rng,
                mirrored(HILUS, side),
                mirrored(toward, side),
                LUNG_RADIUS_MM,
                generations=LUNG_GENERATIONS,
                step_mm=LUNG_STEP_MM,
            )
            for toward in LUNG_BRANCHES
        ]
        for side in (1, -1)
    }


def paint_chest(canvas: Canvas, frame: Frame, pulmonary: dict[int, list[Tree]]) -> None:
    """Paint diaphragm, lungs with vessels (from `draw_pulmonary`) and airways, and heart."""
    sheet = smooth_max(np.abs(frame.diaphragm) - np.float32(DIAPHRAGM_HALF_MM), frame.cavity, 3.0)
    canvas.paint_sdf(sheet, HU["muscle"])
    core = _heart(frame)
    middle = smooth_min(_mediastinum(canvas.coords), _on_canvas(canvas, core) - np.float32(PERICARDIUM_MM), 12.0)
    fat = smooth_max(smooth_max(middle, frame.cavity + np.float32(PLEURA_MM), 4.0), -frame.diaphragm, 4.0)
    canvas.paint_sdf(fat, HU["mediastinal fat"], texture_hu=TEXTURE_HU["mediastinal fat"])
    space = smooth_max(frame.cavity + np.float32(PLEURA_MM), np.float32(LUNG_GAP_MM) - frame.diaphragm, 8.0)
    for side, name in ((1, "right lung"), (-1, "left lung")):
        lung = smooth_max(smooth_max(space, -middle, 8.0), -side * canvas.coords[0], 1.0)
        canvas.paint_sdf(lung, HU["lung"], name, texture_hu=TEXTURE_HU["lung"])
        share = canvas.occupancy(lung + 1)
        for tree in pulmonary[side]:
            paint_tree(canvas, tree, HU["lung vessel"], share)
        paint_tube(canvas, BRONCHI[side], HU["airway"], within=share)
    canvas.paint(core, HU["heart"], "heart", texture_hu=TEXTURE_HU["heart"])
    for centre, radii in (LEFT_BLOOD, RIGHT_BLOOD):
        canvas.paint(ellipsoid(centre, radii, HEART_AXES), HU["portal vein"])
    for centre, radii in (RIGHT_ATRIAL_BLOOD, LEFT_ATRIAL_BLOOD):
        canvas.paint(ellipsoid(centre, radii), HU["portal vein"])


def paint_great_vessels(canvas: Canvas) -> None:
    """Paint vessels, oesophagus and trachea, after the organs that they run through or next to."""
    for tissue, vessels in (("vein", VEINS), ("artery", ARTERIES)):
        for vessel in vessels.values():
            paint_tube(canvas, np.array(vessel, float), HU[tissue], "")
    paint_tube(canvas, OESOPHAGUS, HU["gullet"], "oesophagus")
    paint_tube(canvas, VENA_CAVA, HU["vein"], "inferior vena cava")
    paint_tube(canvas, AORTA, HU["artery"], "aorta")
    paint_tube(canvas, TRACHEA, HU["gullet"], "trachea", thicker_mm=AIRWAY_WALL_MM)
    for knots in BRONCHI.values():
        paint_tube(canvas, knots[:2], HU["gullet"], thicker_mm=AIRWAY_WALL_MM)
    for knots in (TRACHEA, *BRONCHI.values()):
        paint_tube(canvas, knots, HU["airway"])


def _heart(frame: Frame) -> Shape:
    """Shape of ventricles and atria, resting on the diaphragm."""
    habitus = frame.habitus
    parts = [ellipsoid(*HEART_BODY, HEART_AXES), ellipsoid(*RIGHT_ATRIUM), ellipsoid(*LEFT_ATRIUM)]
    return clipped(union(parts, 14.0), lambda coords: np.float32(HEART_LIFT_MM) - diaphragm(coords, habitus), 8.0)


def _on_canvas(canvas: Canvas, shape: Shape) -> Array:
    """A shape's distance on the whole canvas; a constant far from the shape, where it does not matter."""
    far = np.float32(30)
    sdf = np.full(canvas.image.shape, far)
    low, high = (
        tuple(float(c) for c in np.asarray(corner) + by) for corner, by in ((shape.low, -far), (shape.high, far))
    )
    where = canvas.window(Shape((low[0], low[1], low[2]), (high[0], high[1], high[2]), shape.sdf))
    if where is not None:
        x, y, z = (c[where] for c in canvas.coords)
        sdf[where] = np.minimum(shape.sdf((x, y, z)), far)
    return sdf


def _mediastinum(coords: Coords) -> Array:
    """The space between the lungs: narrow in front, wide at the hilum, around spine and great vessels behind."""
    x, y, z = coords
    hilum = np.exp(-(((y - HILUM_AT[0]) / HILUM_REACH[0]) ** 2) - ((z - HILUM_AT[1]) / HILUM_REACH[1]) ** 2)
    upper = (0.5 + 0.5 * np.tanh((z - UPPER_Z) / UPPER_TURN_MM)) * np.exp(-(((y - UPPER_Y) / UPPER_REACH_MM) ** 2))
    between = np.abs(x) - (MEDIASTINUM_MM + HILUM_MM * hilum + UPPER_MM * upper)
    half = level("spine_half_width", z)
    # The spine is round in front of the centres of its bodies; behind them everything up to the wall belongs to it.
    ahead = np.maximum(y - spine_y(z) + half * np.float32(0.3), 0)
    result = smooth_min(between, np.sqrt(x**2 + ahead**2) - half - 4, 8.0)
    for centre_x, centre_y, radius in COLUMNS:
        result = smooth_min(result, np.sqrt((x - centre_x) ** 2 + (y - centre_y) ** 2) - radius, 14.0)
    return result
