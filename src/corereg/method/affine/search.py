"""Local search for the affine map that makes two scans look most alike. Downstream: `align`, `orientation`.

Legend: a map sends p to centre + shift + M (p - centre), where centre is the middle of the fixed image. All parameters
are in millimetres: the shift, and M (at first a rotation vector and the logarithm of a scale) times a radius, so that
one unit of any parameter moves the image about equally far.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from corereg.geometry.grid import Grid, Matrix, transform_points
from corereg.method.affine.descent import descend
from corereg.method.affine.mutual_information import MutualInformation

__all__ = [
    "BROAD",
    "COARSE",
    "FINE",
    "IDENTITY",
    "MIDDLE",
    "PLAUSIBLE",
    "START",
    "Family",
    "Level",
    "Space",
    "excess",
    "middle",
    "optimised",
    "rotation",
    "within",
]

START, COARSE, MIDDLE, BROAD, FINE = (4_000, 8.0), (10_000, 8.0), (15_000, 5.0), (40_000, 8.0), (40_000, 4.0)
"""Each search's number of samples of the fixed image and smoothing of both images (standard deviation, mm). Fewer
samples or less smoothing leave several optima a millimetre apart."""
ITERATIONS = {START: 15, COARSE: 40, MIDDLE: 40, BROAD: 60, FINE: 60}
LOSS_SCALE = 1000.0
"""Loss per unit of mutual information. The loss then curves by about 1 / mm^2, as the search assumes at its start."""
TOLERANCE = {START: 0.05, COARSE: 5e-3, MIDDLE: 5e-3, BROAD: 1e-3, FINE: 1e-3}
"""Slope of the loss, per millimetre, below which a search ends."""
Bounds = tuple[tuple[float, float], float]

PLAUSIBLE, SEARCHED = ((0.7, 1.4), 1.5), ((0.63, 1.55), 1.7)
"""Smallest and largest stretch along any direction, and their ratio, which a shear raises as well: of a map between two
patients, and of the maps that are searched, so that a search that leads beyond the plausible is noticed."""

GAIN = {START: 0.1, COARSE: 0.02, MIDDLE: 0.02, BROAD: 5e-4, FINE: 5e-4}
"""Gain in the loss below which a search ends: a gain of 0.02 moves the image by about 0.2 mm, or more where the loss is
flat."""
NEAR_MM, NEAR_SHARE = 10.0, 0.15
"""Two maps are near each other if they send all corners of the fixed image this close together, in millimetres and as
a share of the radius: then one search leads to both."""
SMALL_ANGLE = 1e-3
"""Radians below which a series replaces a quotient of two small numbers."""
LARGEST_LOG_SCALE = 10.0
"""Far beyond what is searched: a step too long, which is then refused, must not overflow."""
WORST = 1e4
"""Loss assigned to maps that cannot be evaluated."""

Parameters = NDArray[np.float64]
Level = tuple[int, float]
IDENTITY = np.eye(4)


class Moves(NamedTuple):
    """A family of maps with `size` parameters."""

    size: int
    matrix: Callable[[Parameters], Matrix]
    """Parameters (size,) -> map (4, 4)."""
    slopes: Callable[[Parameters, Matrix, NDArray[np.float64]], Parameters]
    """Parameters, their map, and a value's derivatives by the first three rows of the map, (3, 4) -> the derivatives by
    the parameters, (size,)."""


Family = Callable[[Matrix], Moves]
"""From a map at which a search starts to the maps that it may reach."""


class Space:
    """Builds maps (4, 4) from parameters: 7 for a similarity, 6 for a rigid and 12 for an affine map. All parameters 0
    give the map from which a search starts.
    """

    def __init__(self, fixed: Grid) -> None:
        self.corners = fixed.corners_mm()
        self.centre = self.corners.mean(0)
        self.radius_mm = float(np.linalg.norm(self.corners - self.centre, axis=1).mean()) / 2

    def matrix(self, linear: NDArray[np.float64], shift: NDArray[np.float64]) -> Matrix:
        matrix = np.eye(4)
        matrix[:3, :3] = linear
        matrix[:3, 3] = self.centre + shift - linear @ self.centre
        return matrix

    def similar(self, start: Matrix) -> Moves:
        """`start` followed by a rotation, a scale and a shift."""
        linear, offset = start[:3, :3], self.shift(start)

        def matrix(parameters: Parameters) -> Matrix:
            turns, scale = parameters[:3] / self.radius_mm, parameters[3] / self.radius_mm
            factor = np.exp(np.clip(scale, -LARGEST_LOG_SCALE, LARGEST_LOG_SCALE))
            return self.matrix(factor * rotation(turns) @ linear, offset + parameters[4:])

        def slopes(parameters: Parameters, matrix: Matrix, gradient: NDArray[np.float64]) -> Parameters:
            by_linear = self._about_centre(gradient)
            turned = np.cross(matrix[:3, :3], by_linear, axis=0).sum(1)
            by_turns = _turning(parameters[:3] / self.radius_mm).T @ turned
            by_scale = (by_linear * matrix[:3, :3]).sum()
            return np.concatenate([[*by_turns, by_scale] / np.asarray(self.radius_mm), gradient[:, 3]])

        return Moves(7, matrix, slopes)

    def rigid(self, start: Matrix) -> Moves:
        """`start`, its stretches undone, followed by a rotation and a shift."""
        left, _, right = np.linalg.svd(start[:3, :3])
        similar = self.similar(self.matrix(left @ right, self.shift(start)))

        def full(parameters: Parameters) -> Parameters:
            return np.insert(parameters, 3, 0.0)

        return Moves(
            6,
            lambda parameters: similar.matrix(full(parameters)),
            lambda parameters, *rest: np.delete(similar.slopes(full(parameters), *rest), 3),
        )

    def affine(self, start: Matrix) -> Moves:
        """`start` with its matrix and its shift changed by addition."""
        linear, offset = start[:3, :3], self.shift(start)

        def matrix(parameters: Parameters) -> Matrix:
            return self.matrix(linear + parameters[:9].reshape(3, 3) / self.radius_mm, offset + parameters[9:])

        def slopes(parameters: Parameters, matrix: Matrix, gradient: NDArray[np.float64]) -> Parameters:
            return np.concatenate([self._about_centre(gradient).ravel() / self.radius_mm, gradient[:, 3]])

        return Moves(12, matrix, slopes)

    def shift(self, start: Matrix) -> NDArray[np.float64]:
        return np.asarray(transform_points(start, self.centre) - self.centre)

    def near(self, matrix: Matrix, others: Iterable[Matrix]) -> bool:
        """Whether the map sends the corners to about the same places as one of the others."""
        corners = [transform_points(each, self.corners) for each in (matrix, *others)]
        most = min(NEAR_MM, NEAR_SHARE * self.radius_mm)
        return any(np.abs(corners[0] - other).max() < most for other in corners[1:])

    def _about_centre(self, gradient: NDArray[np.float64]) -> NDArray[np.float64]:
        """Derivatives (3, 3) with respect to a matrix that leaves the centre where it is."""
        return np.asarray(gradient[:, :3] - np.outer(gradient[:, 3], self.centre))


def rotation(turns: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rotation (3, 3) about a vector (3,), by its length in radians."""
    angle = float(np.linalg.norm(turns))
    across = _across(turns)
    return np.eye(3) + np.sinc(angle / np.pi) * across + np.sinc(angle / (2 * np.pi)) ** 2 / 2 * across @ across


def _turning(turns: NDArray[np.float64]) -> NDArray[np.float64]:
    """(3, 3): by which vector a rotation turns on when its own vector changes."""
    angle = float(np.linalg.norm(turns))
    across = _across(turns)
    second = (1 - np.sinc(angle / np.pi)) / angle**2 if angle > SMALL_ANGLE else 1 / 6
    return np.eye(3) + np.sinc(angle / (2 * np.pi)) ** 2 / 2 * across + second * across @ across


def _across(vector: NDArray[np.float64]) -> NDArray[np.float64]:
    """(3, 3), the matrix of the cross product with this vector."""
    x, y, z = vector
    return np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])


def optimised(
    metric: MutualInformation,
    start: Matrix,
    space: Family,
    level: Level,
    before: Matrix = IDENTITY,
    stop: Callable[[Matrix], bool] = lambda matrix: False,
) -> tuple[float, Matrix]:
    """The best map near the start, and its value; minus infinity and the start if that cannot be evaluated.

    Args:
        before: the map that already placed the moving image where the metric sees it.
        stop: ends the search at a map for which it is true.
    """
    moves = space(start)

    def loss(parameters: Parameters) -> tuple[float, Parameters]:
        matrix = moves.matrix(parameters)
        value, gradient = -np.inf, np.zeros((3, 4))
        if within(SEARCHED, before @ matrix):
            value, gradient = metric.with_gradient(matrix)
        if not np.isfinite(value):
            return WORST, np.zeros(moves.size)
        return -LOSS_SCALE * value, -LOSS_SCALE * moves.slopes(parameters, matrix, gradient)

    parameters, least = descend(
        loss,
        moves.size,
        iterations=ITERATIONS[level],
        slope=TOLERANCE[level],
        gain=GAIN[level],
        stop=lambda parameters: stop(moves.matrix(parameters)),
    )
    return (-np.inf, start) if least >= WORST else (-least / LOSS_SCALE, moves.matrix(parameters))


def middle(weights: NDArray[np.float32], grid: Grid) -> NDArray[np.float64]:
    """Weighted mean of the voxels' positions, in the world."""
    total = float(weights.sum(dtype=np.float64))
    sums = [weights.sum(tuple(b for b in range(3) if b != a), dtype=np.float64) for a in range(3)]
    return grid.to_world([float(s @ np.arange(len(s))) / total for s in sums])


def within(bounds: Bounds, matrix: Matrix) -> bool:
    return excess(bounds, matrix) < 1


def excess(bounds: Bounds, matrix: Matrix) -> float:
    """The stretches of a map relative to the bounds; above 1 one of them is exceeded."""
    (smallest, largest), ratio = bounds
    stretches = np.linalg.svd(matrix[:3, :3], compute_uv=False)
    least, most = float(stretches.min()), float(stretches.max())
    return max(smallest / least, most / largest, most / (ratio * least)) if least > 0 else np.inf
