"""Phantom, stage 1 of 4: tubes along curves and trees of tubes, for vessels, airways and gut.

Upstream: shapes. Downstream: wall, chest, abdomen, bowel.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from corereg.data.phantom.shapes import Array, Canvas, Vector, capsules, curve

__all__ = ["Tree", "grow_tree", "mirrored", "paint_tree", "paint_tube"]

SHRINK, SHORTEN, SPREAD = 0.78, 0.84, 0.6
"""Ratio of radii and of lengths from one generation of a tree to the next (two daughters share the flow: Murray's cube
law gives 0.79), and sine of the mean branching angle."""

LENGTH_SPREAD, ANGLE_SPREAD = (0.75, 1.25), (0.6, 1.3)
"""Smallest and largest factor on the mean length and on the mean angle."""


@dataclass(frozen=True)
class Tree:
    """Branches of a vessel tree: starts and ends (N, 2, 3), and radii at both (N, 2), in atlas millimetres."""

    lines: NDArray[np.float64]
    radii_mm: NDArray[np.float64]


def grow_tree(
    rng: np.random.Generator,
    root: Vector,
    toward: Vector,
    radius_mm: float,
    *,
    generations: int,
    step_mm: float,
) -> Tree:
    """Grow a tree that forks at every node, in randomly drawn planes.

    Args:
        root: (3,), start of the trunk.
        toward: (3,), direction of the trunk.
        step_mm: mean length of the trunk.
    """
    lines, radii = [], []
    direction = np.asarray(toward, np.float64)
    tips = [(np.asarray(root, np.float64), direction / np.linalg.norm(direction), radius_mm, step_mm)]
    for _ in range(generations):
        grown = []
        for start, heading, radius, step in tips:
            end = start + step * rng.uniform(*LENGTH_SPREAD) * heading
            lines.append((start, end))
            radii.append((radius, radius * SHRINK))
            aside = np.cross(heading, rng.standard_normal(3))
            aside *= SPREAD / np.linalg.norm(aside)
            for sign in (1, -1):
                turned = heading + sign * rng.uniform(*ANGLE_SPREAD) * aside
                grown.append((end, turned / np.linalg.norm(turned), radius * SHRINK, step * SHORTEN))
        tips = grown
    return Tree(np.array(lines), np.array(radii))


def paint_tree(canvas: Canvas, tree: Tree, hu: float, within: Array | None = None) -> None:
    """Paint the branches as details of the structure they run through, faded out outside `within` (I, J, K)."""
    for line, radii in zip(tree.lines, tree.radii_mm, strict=True):
        for shape in capsules(line, radii):
            canvas.paint(shape, hu, within=within)


def paint_tube(
    canvas: Canvas,
    knots: NDArray[np.float64],
    hu: float,
    name: str | None = None,
    *,
    thicker_mm: float = 0.0,
    texture_hu: tuple[float, float] = (0.0, 0.0),
    within: Array | None = None,
) -> None:
    """Paint a tube through knots (N, 4) of x, y, z, radius. The other arguments are those of `Canvas.paint`."""
    points, radii = curve(knots)
    for shape in capsules(points, radii + thicker_mm):
        canvas.paint(shape, hu, name, texture_hu=texture_hu, within=within)


def mirrored(table: NDArray[np.float64], side: int) -> NDArray[np.float64]:
    """A table of positions on the right (+x), mirrored to the left if `side` is -1."""
    result = table.copy()
    result[..., 0] *= side
    return result
