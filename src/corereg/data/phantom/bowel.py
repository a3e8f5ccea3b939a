"""Phantom, stage 3 of 4, second layer: duodenum, small bowel, colon with stool and gas. None is labelled.

Upstream: tubes. Downstream: anatomy.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from corereg.data.phantom.shapes import Canvas, capsules, curve, ellipsoid
from corereg.data.phantom.tissues import HU, TEXTURE_HU
from corereg.data.phantom.tubes import Tree, grow_tree, paint_tree

__all__ = ["Bowel", "draw_bowel", "paint_bowel"]

WALL_MM = 3.0

DUODENUM = np.array(
    (
        *((24, 50, -10, 10), (46, 44, -18, 12), (54, 26, -40, 12)),
        *((42, 18, -64, 12), (4, 22, -70, 11), (-24, 30, -56, 11)),
    ),
    float,
)
"""Knots of x, y, z, radius, as in COLON."""
COLON = np.array(
    (
        *((92, 22, -180, 26), (98, 14, -120, 25), (98, 14, -72, 22), (84, 50, -58, 20), (50, 80, -62, 19)),
        *((0, 86, -72, 18), (-50, 82, -60, 18), (-88, 56, -30, 18), (-104, 16, -22, 18)),
        *((-106, -6, -60, 17), (-106, 4, -120, 17), (-96, 20, -180, 17)),
    ),
    float,
)
HAUSTRA_MM, HAUSTRA_TURN = 3.0, 2.1
"""How far the pouches of the colon bulge, and their phase from one point of its curve to the next."""
COLON_GAS = ((88, 40, -112), (20, 93, -68), (-34, 91, -64), (-92, 62, -32), (92, 40, -160), (-100, 18, -150))
GAS_RADII_MM = (15, 8, 12)

LAYERS = (
    *((34.0, -96.0, -64.0, 64.0, 5), (60.0, -84.0, -64.0, 64.0, 5), (84.0, -104.0, -64.0, 64.0, 5)),
    *((46.0, -26.0, -78.0, -14.0, 3), (72.0, -40.0, -70.0, 30.0, 2)),
)
"""Depth (y), top height, leftmost and rightmost x, and number of rows of each layer of loops: ileum, then jejunum."""
ROW_STEP_MM, KNOTS_PER_ROW, LOOP_RADIUS_MM = 26.0, 6, 12.0
"""Distance of the rows in which a layer runs back and forth, knots in a row, and mean radius."""
WIGGLE_MM, WIGGLE_LIMIT, RADIUS_SPREAD = 6.0, 1.5, (0.75, 1.15)
"""Standard deviation of a knot's position between patients, its limit in standard deviations, range of the radius."""

MESENTERY_ROOT, MESENTERY_TOWARD = (14.0, 34.0, -70.0), (-0.1, 0.3, -1.0)
MESENTERY_RADIUS_MM, MESENTERY_GENERATIONS, MESENTERY_STEP_MM = 4.0, 6, 30.0


@dataclass(frozen=True)
class Bowel:
    """One patient's loops, as knots (N, 4), and the vessels between them."""

    loops: list[NDArray[np.float64]]
    mesentery: Tree


def draw_bowel(rng: np.random.Generator) -> Bowel:
    """Draw loops whose course differs in every patient."""
    loops = []
    for depth, top, leftmost, rightmost, rows in LAYERS:
        across = np.linspace(leftmost, rightmost, KNOTS_PER_ROW)
        knots = np.empty((rows, KNOTS_PER_ROW, 4))
        for row in range(rows):
            knots[row, :, 0] = across if row % 2 else across[::-1]
            knots[row, :, 1:3] = depth, top - ROW_STEP_MM * row
        knots[..., :3] += WIGGLE_MM * np.clip(
            rng.standard_normal((rows, KNOTS_PER_ROW, 3)), -WIGGLE_LIMIT, WIGGLE_LIMIT
        )
        knots[..., 3] = LOOP_RADIUS_MM * rng.uniform(*RADIUS_SPREAD, size=(rows, KNOTS_PER_ROW))
        loops.append(knots.reshape(-1, 4))
    mesentery = grow_tree(
        rng,
        MESENTERY_ROOT,
        MESENTERY_TOWARD,
        MESENTERY_RADIUS_MM,
        generations=MESENTERY_GENERATIONS,
        step_mm=MESENTERY_STEP_MM,
    )
    return Bowel(loops, mesentery)


def paint_bowel(canvas: Canvas, bowel: Bowel) -> None:
    """Paint vessels, then loops, duodenum and colon."""
    paint_tree(canvas, bowel.mesentery, HU["portal vein"])
    for knots in (*bowel.loops, DUODENUM):
        _paint_gut(canvas, knots, "bowel", 0.0)
    _paint_gut(canvas, COLON, "stool", HAUSTRA_MM)
    for centre in COLON_GAS:
        canvas.paint(ellipsoid(centre, GAS_RADII_MM), HU["bowel gas"])


def _paint_gut(canvas: Canvas, knots: NDArray[np.float64], content: str, bulge_mm: float) -> None:
    points, radii = curve(knots)
    radii = radii + bulge_mm * np.cos(np.arange(len(radii)) * HAUSTRA_TURN)
    for shape in capsules(points, radii):
        canvas.paint(shape, HU["bowel wall"])
    for shape in capsules(points, radii - WALL_MM):
        canvas.paint(shape, HU[content], texture_hu=TEXTURE_HU[content])
