"""Warping and sampling against analytic truth and scipy."""

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch.testing import assert_close

from corereg.geometry.warp import affine_coords, identity_coords, inside, sample, sample_labels, warp, warp_labels
from helpers.fields import SHAPE, random_volume, waves

DOUBLE = torch.zeros(1, dtype=torch.float64)


def test_warp_with_zero_displacement_is_identity():
    volume = random_volume()
    assert_close(warp(volume, torch.zeros(1, 3, *SHAPE, dtype=torch.float64)), volume)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_unit_displacement_along_an_axis_reads_the_next_voxel(axis):
    volume, disp = random_volume(), torch.zeros(1, 3, *SHAPE, dtype=torch.float64)
    disp[:, axis] = 1
    n = SHAPE[axis]
    assert_close(warp(volume, disp).narrow(axis + 2, 0, n - 1), volume.narrow(axis + 2, 1, n - 1))


def test_sample_equals_scipy_and_holds_the_edge():
    volume, disp = random_volume(), 4 * waves()
    coords = (identity_coords(SHAPE, like=disp) + disp)[0].numpy()
    expected = ndimage.map_coordinates(volume[0, 0].numpy(), coords, order=1, mode="nearest")
    assert_close(warp(volume, disp)[0, 0], torch.as_tensor(expected))


def test_outside_value_begins_half_a_voxel_beyond_the_outer_centres():
    volume = torch.ones(1, 1, 4, 5, 6)
    coords = torch.tensor([-0.51, -0.49, 3.49, 3.51]).view(1, 1, 4, 1, 1).expand(1, 3, 4, 1, 1)
    values = sample(volume, coords, outside=-7.0).flatten()
    assert values.tolist() == [-7.0, 1.0, 1.0, -7.0]
    assert inside(coords, (4, 5, 6)).flatten().tolist() == [False, True, True, False]


def test_labels_are_those_at_floor_of_p_plus_half():
    labels = torch.arange(1, 4 * 5 * 6 + 1).view(4, 5, 6)
    coords = torch.tensor(np.random.default_rng(1).uniform(-1.5, 7, (1, 3, 9, 8, 7)))
    coords[..., 0] = coords[..., 0].round() + 0.5
    index = np.floor(coords[0].numpy() + 0.5).astype(int)
    valid = np.all([(index[a] >= 0) & (index[a] < n) for a, n in enumerate((4, 5, 6))], axis=0)
    clipped = [np.clip(index[a], 0, n - 1) for a, n in enumerate((4, 5, 6))]
    expected = np.where(valid, labels.numpy()[tuple(clipped)], 0)
    assert np.array_equal(sample_labels(labels, coords).numpy(), expected)


def test_warped_labels_have_no_new_labels():
    labels = torch.as_tensor(np.random.default_rng(0).choice([0, 3, 200], SHAPE))
    assert set(warp_labels(labels, 3 * waves()).unique().tolist()) <= {0, 3, 200}


def test_affine_coords_are_the_matrix_times_every_voxel():
    matrix = np.random.default_rng(2).normal(size=(4, 4))
    matrix[3] = 0, 0, 0, 1
    coords = affine_coords((3, 4, 5), matrix, like=DOUBLE)[0].numpy()
    assert np.allclose(coords[:, 2, 1, 4], (matrix @ [2, 1, 4, 1])[:3])
