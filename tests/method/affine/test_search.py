"""Derivatives with respect to the parameters of each family of maps agree with differences."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from corereg.method.affine.search import Space, rotation
from helpers.scenes import centred_grid

GRID = centred_grid((37, 31, 33), (4.0, 4.0, 4.2), "oblique", (20.0, -8.0, 15.0))


@pytest.mark.parametrize("size", [1.0, 1e-5, 0.0])
def test_rotation_is_that_of_scipy(size: float) -> None:
    turns = size * np.array([0.5, -1.2, 0.8])
    np.testing.assert_allclose(rotation(turns), Rotation.from_rotvec(turns).as_matrix(), atol=1e-14)


@pytest.mark.parametrize("family", ["similar", "rigid", "affine"])
@pytest.mark.parametrize("size", [0.0, 25.0])
def test_slopes_agree_with_differences(family: str, size: float) -> None:
    rng = np.random.default_rng(0)
    start, gradient = np.eye(4), rng.standard_normal((3, 4))
    start[:3] += 0.1 * rng.standard_normal((3, 4))
    moves = getattr(Space(GRID), family)(start)
    place = size * rng.standard_normal(moves.size)
    differences = [
        (gradient * (moves.matrix(place + step) - moves.matrix(place - step))[:3]).sum() / 2e-4
        for step in 1e-4 * np.eye(moves.size)
    ]
    np.testing.assert_allclose(moves.slopes(place, moves.matrix(place), gradient), differences, atol=1e-8)
