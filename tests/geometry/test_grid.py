"""Grids: orientations, corners, strides and overlap."""

import numpy as np
import pytest

from corereg.errors import InputError
from corereg.geometry.grid import Grid
from helpers.grids import ORIENTATIONS, make_grid


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_orientation_names_the_axes(orientation):
    grid = make_grid(orientation=orientation)
    assert grid.orientation == ("RAS" if orientation == "oblique" else orientation)
    assert grid.canonical().orientation == "RAS"


def test_canonical_grid_has_the_same_corners(grid):
    ours, theirs = (sorted(map(tuple, g.corners_mm().round(6))) for g in (grid, grid.canonical()))
    assert ours == theirs


def test_points_return_from_the_world(grid):
    points = np.random.default_rng(0).uniform(-5, 30, (50, 3))
    assert np.allclose(grid.to_voxel(grid.to_world(points)), points)


def test_strided_grid_point_lies_on_the_strided_voxel(grid):
    coarse = grid.strided(4)
    assert coarse.shape == (3, 4, 5)
    assert np.allclose(coarse.to_world([2, 3, 4]), grid.to_world([8, 12, 16]))


@pytest.mark.parametrize(
    ("shape", "affine", "message"),
    [
        ((4, 5, 0), np.eye(4), "shape"),
        ((4, 5, 6), np.diag([1.0, 0.0, 1.0, 1.0]), "singular"),
        ((4, 5, 6), np.full((4, 4), np.nan), "finite"),
    ],
)
def test_impossible_grid_is_refused(shape, affine, message):
    with pytest.raises(InputError, match=message):
        Grid(shape, affine)


def test_grids_far_apart_do_not_overlap():
    near, far = make_grid(), make_grid(origin_mm=(500.0, 0.0, 0.0))
    assert near.overlaps(near)
    assert not near.overlaps(far)
    shift = np.eye(4)
    shift[0, 3] = 531.0
    shift[1:3, 3] = -17.5, -204.25
    assert near.overlaps(far, shift)
