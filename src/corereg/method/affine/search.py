"""Local search for the affine map that makes two scans look most alike. Downstream: `align`, `orientation`.

Legend: a map sends p to centre + shift + M (p - centre), where centre is the middle of the fixed image. All parameters
are in millimetres: the shift, and M (at first a rotation vector and the logarithm of a scale) times a radius, so that
one unit of any parameter moves the image about equally far.
"""

from collections.abc import Callable

import numpy as np
import scipy.optimize
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from corereg.geometry.grid import Grid, Matrix, transform_points
from corereg.method.affine.mutual_information import MutualInformation

__all__ = [
    "COARSE",
    "FINE",
    "IDENTITY",
    "MIDDLE",
    "PLAUSIBLE",
    "START",
    "Level",
    "Space",
    "middle",
    "optimised",
    "within",
]

START, COARSE, MIDDLE, FINE = (4_000, 8.0), (10_000, 8.0), (15_000, 5.0), (40_000, 4.0)
"""Each search's number of samples of the fixed image and smoothing of both images (standard deviation, mm). Less
smoothing leaves several optima a millimetre apart."""
ITERATIONS = {START: 15, COARSE: 40, MIDDLE: 40, FINE: 40}
LOSS_SCALE = 1000.0
"""Loss per unit of mutual information. The loss then curves by about 1 / mm^2, as the search assumes at its start."""
TOLERANCE = {START: 0.05, COARSE: 5e-3, MIDDLE: 5e-3, FINE: 2e-3}
"""Slope of the loss, per millimetre, below which a search ends."""
PLAUSIBLE, SEARCHED = ((0.7, 1.4), 1.5), ((0.63, 1.55), 1.7)
"""Smallest and largest stretch along any direction, and their ratio, which a shear raises as well: of a map between two
patients, and of the maps that are searched, so that a search that leads beyond the plausible is noticed."""

DERIVATIVE_MM = 0.01
"""Step of the finite differences with respect to the parameters."""
WORST = 1e4
"""Loss assigned to maps that cannot be evaluated."""

Parameters = NDArray[np.float64]
Level = tuple[int, float]
IDENTITY = np.eye(4)


class Space:
    """Builds maps (..., 4, 4) from parameters: (..., 7) for a similarity, (..., 12) for an affine map. All parameters 0
    give the map from which a search starts.
    """

    def __init__(self, fixed: Grid) -> None:
        corners = fixed.corners_mm()
        self.centre = corners.mean(0)
        self.radius_mm = float(np.linalg.norm(corners - self.centre, axis=1).mean()) / 2

    def matrix(self, linear: NDArray[np.float64], shift: NDArray[np.float64]) -> Matrix:
        matrix = np.zeros((*shift.shape[:-1], 4, 4))
        matrix[..., :3, :3] = linear
        matrix[..., :3, 3] = self.centre + shift - linear @ self.centre
        matrix[..., 3, 3] = 1
        return matrix

    def similar(self, start: Matrix) -> tuple[Callable[[Parameters], Matrix], int]:
        """`start` followed by a rotation, a scale and a shift."""

        def moved(parameters: Parameters) -> Matrix:
            turns, scale, shift = np.split(parameters / self.radius_mm, [3, 4], -1)
            rotation = Rotation.from_rotvec(turns).as_matrix() * np.exp(scale)[..., None]
            return self.matrix(rotation @ start[:3, :3], self.shift(start) + shift * self.radius_mm)

        return moved, 7

    def rigid(self, start: Matrix) -> tuple[Callable[[Parameters], Matrix], int]:
        """`start` followed by a rotation and a shift."""
        similar, _ = self.similar(start)
        return lambda parameters: similar(np.insert(parameters, 3, 0.0, axis=-1)), 6

    def affine(self, start: Matrix) -> tuple[Callable[[Parameters], Matrix], int]:
        """`start` with its matrix and its shift changed by addition."""

        def moved(parameters: Parameters) -> Matrix:
            change = parameters[..., :9].reshape(*parameters.shape[:-1], 3, 3) / self.radius_mm
            return self.matrix(start[:3, :3] + change, self.shift(start) + parameters[..., 9:])

        return moved, 12

    def shift(self, start: Matrix) -> NDArray[np.float64]:
        return np.asarray(transform_points(start, self.centre) - self.centre)


def optimised(
    metric: MutualInformation,
    start: Matrix,
    space: Callable[[Matrix], tuple[Callable[[Parameters], Matrix], int]],
    level: Level,
    before: Matrix = IDENTITY,
) -> Matrix:
    """Improve the start; return it unchanged if nothing plausible is better.

    Args:
        before: the map that already placed the moving image where the metric sees it.
    """
    moved, size = space(start)
    steps = np.eye(size) * DERIVATIVE_MM

    def loss(parameters: Parameters) -> tuple[float, Parameters]:
        matrix = moved(parameters)
        value, gradient = (
            metric.with_gradient(matrix) if within(SEARCHED, before @ matrix) else (-np.inf, np.zeros((3, 4)))
        )
        if not np.isfinite(value):
            return WORST, np.zeros(size)
        # Central differences are cheap here and accurate: both kinds of map are all but linear over this step.
        slopes = (moved(parameters + steps) - moved(parameters - steps)) / (2 * DERIVATIVE_MM)
        return -LOSS_SCALE * value, -LOSS_SCALE * (gradient * slopes[:, :3]).sum((1, 2))

    result = scipy.optimize.minimize(
        loss,
        np.zeros(size),
        jac=True,
        method="BFGS",
        options={"maxiter": ITERATIONS[level], "gtol": TOLERANCE[level]},
    )
    best = moved(result.x)
    return best if within(SEARCHED, before @ best) and metric(best) > metric(start) else start


def middle(weights: NDArray[np.float32], grid: Grid) -> NDArray[np.float64]:
    """Weighted mean of the voxels' positions, in the world."""
    total = float(weights.sum(dtype=np.float64))
    sums = [weights.sum(tuple(b for b in range(3) if b != a), dtype=np.float64) for a in range(3)]
    return grid.to_world([float(s @ np.arange(len(s))) / total for s in sums])


def within(bounds: tuple[tuple[float, float], float], matrix: Matrix) -> bool:
    (smallest, largest), ratio = bounds
    stretches = np.linalg.svd(matrix[:3, :3], compute_uv=False)
    least, most = float(stretches.min()), float(stretches.max())
    return smallest < least and most < largest and most < ratio * least
