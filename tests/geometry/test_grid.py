"""Grids: orientations, corners, strides and overlap."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

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
        ((4, 5, 6), np.array([[1.0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [10, 20, -5, 1]]), "transpose"),
    ],
)
def test_impossible_grid_is_refused(shape, affine, message):
    with pytest.raises(InputError, match=message):
        Grid(shape, affine)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_thin_slab_overlaps_the_volume_it_lies_in_and_not_the_one_it_lies_above(axis: int, orientation: str):
    """Also a slab between two voxel centres of the volume, which no voxel of the volume falls into."""
    volume = Grid((190, 160, 224), make_grid(orientation=orientation).affine)
    start = [0.0, 0.0, 0.0]
    start[axis] = 71.3
    matrix = volume.affine.copy()
    matrix[:3, axis] *= 0.2
    matrix[:3, 3] = volume.to_world(start)
    shape = [n if a != axis else 2 for a, n in enumerate(volume.shape)]
    slab = Grid((shape[0], shape[1], shape[2]), matrix)
    assert volume.overlaps(slab)
    assert slab.overlaps(volume)
    start[axis] = volume.shape[axis] + 1.0
    matrix[:3, 3] = volume.to_world(start)
    above = Grid(slab.shape, matrix)
    assert not volume.overlaps(above)
    assert not above.overlaps(volume)


def test_overlap_of_turned_grids_is_that_of_their_sampled_extents():
    """A fine lattice within one extent, looked up in the other, is the oracle."""
    rng = np.random.default_rng(5)
    lattice = np.stack(np.meshgrid(*[np.linspace(-0.5, n - 0.5, 60) for n in (7, 9, 5)], indexing="ij"), -1)
    seen = []
    for _ in range(60):
        first = Grid((7, 9, 5), make_grid(orientation="oblique").affine)
        turn = Rotation.from_rotvec(rng.normal(size=3)).as_matrix() * rng.uniform(0.5, 2.0, 3)
        matrix = np.eye(4)
        matrix[:3, :3] = turn
        matrix[:3, 3] = first.to_world([3.0, 4.0, 2.0]) + rng.normal(size=3) * 12
        second = Grid((6, 8, 11), matrix)
        inside = second.to_voxel(first.to_world(lattice.reshape(-1, 3)))
        expected = bool(((inside > -0.45) & (inside < np.array(second.shape) - 0.55)).all(1).any())
        near = bool(((inside > -0.6) & (inside < np.array(second.shape) - 0.4)).all(1).any())
        if expected == near:  # else too close to call for the lattice
            seen.append(expected)
            assert first.overlaps(second) is expected
            assert second.overlaps(first) is expected
    assert 10 < sum(seen) < len(seen) - 10


def test_grids_far_apart_do_not_overlap():
    near, far = make_grid(), make_grid(origin_mm=(500.0, 0.0, 0.0))
    assert near.overlaps(near)
    assert not near.overlaps(far)
    shift = np.eye(4)
    shift[0, 3] = 531.0
    shift[1:3, 3] = -17.5, -204.25
    assert near.overlaps(far, shift)


def test_last_row_of_rounded_numbers_is_no_reason_to_refuse():
    affine = np.diag([2.0, 1.0, 3.0, 1.0])
    affine[3] = [1e-9, 0, -1e-9, 1 + 1e-9]
    assert Grid((4, 5, 6), affine).spacing == (2.0, 1.0, 3.0)
