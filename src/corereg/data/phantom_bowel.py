"""Phantom, stage 3 of 4, coat below the organs: duodenum, small bowel, colon with stool and gas. None is labelled.

Upstream: phantom_shapes. Downstream: phantom_anatomy.
"""

from dataclasses import dataclass

import numpy as np

from corereg.data.phantom_chest import Tree, grow_tree, paint_tree
from corereg.data.phantom_shapes import Canvas, capsules, curve, ellipsoid

__all__ = ["Bowel", "draw_bowel", "paint_bowel"]

WALL_HU, CHYME_HU, STOOL_HU, GAS_HU, VESSEL_HU = 75.0, 25.0, -10.0, -900.0, 100.0
WALL_MM = 3.0

Knots = tuple[tuple[float, float, float, float], ...]
"""x, y, z, radius in atlas millimetres."""

DUODENUM: Knots = (
    *((24, 50, -10, 10), (46, 44, -18, 12), (54, 26, -40, 12)),
    *((42, 18, -64, 12), (4, 22, -70, 11), (-24, 30, -56, 11)),
)
COLON: Knots = (
    *((92, 22, -180, 26), (98, 14, -120, 25), (98, 14, -72, 22), (84, 50, -58, 20), (50, 80, -62, 19)),
    *((0, 86, -72, 18), (-50, 82, -60, 18), (-88, 56, -30, 18), (-104, 16, -22, 18)),
    *((-106, -6, -60, 17), (-106, 4, -120, 17), (-96, 20, -180, 17)),
)
HAUSTRA_MM, HAUSTRA_TURN = 3.0, 2.1
"""How far the colon's pouches bulge, and their phase from one point of its curve to the next."""
COLON_GAS: tuple[tuple[float, float, float], ...] = (
    *((88, 40, -112), (20, 93, -68), (-34, 91, -64), (-92, 62, -32), (92, 40, -160), (-100, 18, -150)),
)
GAS_RADII_MM = (15.0, 8.0, 12.0)

LAYERS: tuple[tuple[float, float, float, float, int], ...] = (
    *((34.0, -96.0, -64.0, 64.0, 5), (60.0, -84.0, -64.0, 64.0, 5), (84.0, -104.0, -64.0, 64.0, 5)),
    *((46.0, -26.0, -78.0, -14.0, 3), (72.0, -40.0, -70.0, 30.0, 2)),
)
"""Depth (y), uppermost height, leftmost and rightmost x, and rows of each layer of loops: ileum, then jejunum."""
ROW_STEP_MM, LOOP_RADIUS_MM = 26.0, 12.0
"""Each layer runs to and fro in rows."""
KNOTS_PER_ROW, WIGGLE_MM = 6, 6.0

MESENTERY_ROOT, MESENTERY_TOWARD = (14.0, 34.0, -70.0), (-0.1, 0.3, -1.0)


@dataclass(frozen=True)
class Bowel:
    """One patient's loops and the vessels between them."""

    loops: tuple[Knots, ...]
    mesentery: Tree


def draw_bowel(rng: np.random.Generator) -> Bowel:
    """Loops that lie differently in every patient."""
    loops = []
    for depth, top, leftmost, rightmost, rows in LAYERS:
        row_heights = top - ROW_STEP_MM * np.arange(rows)
        across = np.linspace(leftmost, rightmost, KNOTS_PER_ROW)
        knots: list[tuple[float, float, float, float]] = []
        for row, height in enumerate(row_heights):
            for x in across if row % 2 else across[::-1]:
                dx, dy, dz = WIGGLE_MM * np.clip(rng.standard_normal(3), -1.5, 1.5)
                radius = LOOP_RADIUS_MM * float(rng.uniform(0.75, 1.15))
                knots.append((float(x + dx), float(depth + dy), float(height + dz), radius))
        loops.append(tuple(knots))
    mesentery = grow_tree(rng, MESENTERY_ROOT, MESENTERY_TOWARD, 4.0, step_mm=30.0)
    return Bowel(tuple(loops), mesentery)


def paint_bowel(canvas: Canvas, bowel: Bowel) -> None:
    """Vessels, then loops, duodenum and colon."""
    paint_tree(canvas, bowel.mesentery, VESSEL_HU)
    for knots in bowel.loops:
        _paint_gut(canvas, knots, CHYME_HU, (10, 10))
    _paint_gut(canvas, DUODENUM, CHYME_HU, (5, 10))
    _paint_gut(canvas, COLON, STOOL_HU, (40, 70), HAUSTRA_MM)
    for centre in COLON_GAS:
        canvas.paint(ellipsoid(centre, GAS_RADII_MM), GAS_HU)


def _paint_gut(
    canvas: Canvas, knots: Knots, hu: float, texture_hu: tuple[float, float], bulge_mm: float = 0.0
) -> None:
    points, radii = curve(knots, 10)
    radii = radii + bulge_mm * np.cos(np.arange(len(radii)) * HAUSTRA_TURN)
    for shape in capsules(points, radii):
        canvas.paint(shape, WALL_HU)
    for shape in capsules(points, radii - WALL_MM):
        canvas.paint(shape, hu, texture_hu=texture_hu)
