"""Grid, warp, resampling and displacements against analytic truth, scipy and float64 loops."""

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch.testing import assert_close

from corereg.errors import InputError
from corereg.geometry.displacement import (
    Displacement,
    compose,
    compose_all,
    invert,
    jacobian_determinant,
    sdlogj,
    subsample_displacement,
    transport_by_affines,
    unfold,
    upsample_displacement,
)
from corereg.geometry.grid import Grid
from corereg.geometry.strided import box_mean, strided_shape, subsample, upsample
from corereg.geometry.warp import affine_coords, identity_coords, inside, sample, sample_labels, warp, warp_labels
from helpers.grids import ORIENTATIONS, make_grid

SHAPE = (18, 22, 26)
DOUBLE = torch.zeros(1, dtype=torch.float64)


def waves(shape=SHAPE, amplitude=1.0, phase=0.0, dtype=torch.float64):
    """A smooth displacement (1, 3, I, J, K) whose components depend on all axes."""
    i, j, k = torch.meshgrid(*(torch.arange(n, dtype=dtype) for n in shape), indexing="ij")
    a = torch.sin(2 * torch.pi * (j / 15 + k / 21) + phase)
    b = torch.cos(2 * torch.pi * (i / 19 - k / 23) + 2 * phase)
    c = torch.sin(2 * torch.pi * (i / 17 + j / 25) - phase)
    return amplitude * torch.stack([a, b, c])[None]


def random_volume(shape=SHAPE, seed=0, dtype=torch.float64):
    values = np.random.default_rng(seed).normal(size=shape)
    return torch.as_tensor(ndimage.gaussian_filter(values, 1.5)).to(dtype)[None, None]


# Grid


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


# Warp


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


# Resampling between strides


def test_upsampling_puts_coarse_values_on_strided_voxels_and_holds_the_end():
    coarse = random_volume((5, 6, 7))
    fine = upsample(coarse, 2, (10, 12, 14))
    assert_close(subsample(fine, 2), coarse)
    assert_close(fine[:, :, -1], fine[:, :, -2])
    assert_close(fine[:, :, 1, 0, 0], (coarse[:, :, 0, 0, 0] + coarse[:, :, 1, 0, 0]) / 2)


def test_box_mean_keeps_a_constant_up_to_the_rim():
    assert_close(box_mean(torch.full((1, 3, 4, 7, 5), 8.0), times=5), torch.full((1, 3, 4, 7, 5), 8.0))


def test_box_mean_equals_a_loop_over_existing_neighbours():
    volume = random_volume((4, 5, 3))[0, 0].numpy()
    expected = np.empty_like(volume)
    for i, j, k in np.ndindex(volume.shape):
        expected[i, j, k] = volume[max(i - 1, 0) : i + 2, max(j - 1, 0) : j + 2, max(k - 1, 0) : k + 2].mean()
    assert_close(box_mean(torch.as_tensor(volume)[None, None])[0, 0], torch.as_tensor(expected))


def test_constant_displacement_survives_up_and_down_scaling_to_the_rim():
    coarse = torch.full((1, 3, 3, 4, 5), 1.0)
    fine = upsample_displacement(coarse, 8, (24, 32, 40), smoothing=2)
    assert_close(fine, torch.full_like(fine, 8.0))
    assert_close(subsample_displacement(fine, 8), coarse)


def test_linear_displacement_is_exact_between_strides():
    """Features sit on voxel 8 i: a field read as if on 8 i + 3.5 would be 3.5 voxels off."""
    shape = (24, 32, 40)
    truth = 0.1 * identity_coords(shape, like=DOUBLE)
    coarse = subsample_displacement(truth, 8)
    fine = upsample_displacement(coarse, 8, shape)
    inner = [slice(None, 8 * (n - 1) + 1) for n in strided_shape(shape, 8)]
    assert_close(fine[(..., *inner)], truth[(..., *inner)])


# Displacements


def test_warping_twice_equals_warping_once_by_the_composition():
    volume = torch.as_tensor(ndimage.gaussian_filter(np.random.default_rng(3).normal(size=SHAPE), 3))[None, None]
    first, then = 2 * waves(), 2 * waves(phase=1.3)
    twice = warp(warp(volume, first), then)
    inner = (..., *(slice(5, -5),) * 3)
    scale = volume.std()
    right = (warp(volume, compose(first, then)) - twice)[inner].abs().mean() / scale
    wrong = (warp(volume, compose(then, first)) - twice)[inner].abs().mean() / scale
    assert right < 0.03
    assert wrong > 5 * right


def test_composition_is_exact_for_affine_fields():
    """u(x) = u1(x) + u0(x + u1(x)); linear interpolation of a linear field is exact inside the grid."""
    x = identity_coords(SHAPE, like=DOUBLE)
    u1 = 0.05 * x[:, [1, 2, 0]]
    u0 = -0.08 * x[:, [2, 0, 1]] + 1
    inner = (..., *(slice(0, 14),) * 3)
    moved = x + u1
    expected = u1 - 0.08 * moved[:, [2, 0, 1]] + 1
    assert_close(compose(u0, u1)[inner], expected[inner])


def test_composition_is_associative_inside():
    a, b, c = (waves(amplitude=0.5, phase=p) for p in (0.0, 0.7, 1.9))
    inner = (..., *(slice(4, -4),) * 3)
    assert_close(compose(compose(a, b), c)[inner], compose(a, compose(b, c))[inner], atol=0.03, rtol=0)
    assert_close(compose_all([a, b, c]), compose(compose(a, b), c))


def test_inverse_composed_with_displacement_is_zero_and_residual_tells():
    disp = waves(amplitude=1.5)
    inverse, residual = invert(disp)
    inner = (..., *(slice(3, -3),) * 3)
    assert residual.max() < 2e-3
    assert compose(disp, inverse)[inner].abs().max() < 5e-3


def test_inversion_converges_where_the_map_stretches_more_than_twofold():
    """The undamped iteration diverges there."""
    disp = torch.zeros(1, 3, 40, 12, 10, dtype=torch.float64)
    i = torch.arange(40.0, dtype=torch.float64)
    disp[:, 0] = (1.3 * torch.clamp(i - 15, 0, 10)).view(-1, 1, 1)
    _, residual = invert(disp)
    assert residual[:, 15:25].max() < 5e-3


def test_residual_is_large_where_the_map_folds():
    disp = waves(amplitude=6.0)
    assert jacobian_determinant(disp).min() < 0
    assert invert(disp)[1].max() > 0.1


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_jacobian_determinant_of_axis_stretch(axis):
    disp = torch.zeros(1, 3, *SHAPE, dtype=torch.float64)
    disp[:, axis] = 0.2 * identity_coords(SHAPE, like=DOUBLE)[:, axis]
    assert_close(jacobian_determinant(disp), torch.full((1, *SHAPE), 1.2, dtype=torch.float64))


def test_jacobian_determinant_of_shear_is_one():
    disp = torch.zeros(1, 3, *SHAPE, dtype=torch.float64)
    disp[:, 0] = 0.3 * identity_coords(SHAPE, like=DOUBLE)[:, 2]
    assert_close(jacobian_determinant(disp), torch.ones(1, *SHAPE, dtype=torch.float64))


def test_jacobian_determinant_of_a_linear_map_is_its_determinant():
    matrix = torch.as_tensor(np.random.default_rng(4).normal(0, 0.2, (3, 3)))
    disp = torch.einsum("ac,bcijk->baijk", matrix, identity_coords(SHAPE, like=DOUBLE))
    expected = torch.linalg.det(matrix + torch.eye(3, dtype=torch.float64))
    assert_close(jacobian_determinant(disp), expected.expand(1, *SHAPE).contiguous())


def golden_field(a: float) -> torch.Tensor:
    """The field of the challenge's golden numbers."""
    i, j, k = np.meshgrid(*(np.arange(n) for n in (40, 36, 44)), indexing="ij")
    w = 2 * np.pi
    u = [
        np.sin(w * j / 18) * np.cos(w * k / 22),
        np.cos(w * i / 20) * np.sin(w * k / 11),
        np.sin(w * i / 10) * np.cos(w * j / 12),
    ]
    return torch.as_tensor(a * np.stack(u))[None]


@pytest.mark.parametrize(("a", "expected"), [(0, 0.0), (1, 0.02141280), (2.5, 0.14360528)])
def test_sdlogj_has_the_golden_value_of_the_challenge(a, expected):
    assert sdlogj(golden_field(a)) == pytest.approx(expected, abs=1e-6)


def test_label_transport_by_affines_is_exact():
    """F' = F o A1 and M' = M o A2: then M'(x + u'(x)) = F'(x) where M(x + u(x)) = F(x)."""
    rng = np.random.default_rng(5)
    a1, a2 = (torch.eye(4, dtype=torch.float64) for _ in range(2))
    for a in (a1, a2):
        a[:3, :3] += torch.as_tensor(rng.normal(0, 0.03, (3, 3)))
        a[:3, 3] += torch.as_tensor(rng.normal(0, 0.5, 3))
    disp = 0.05 * identity_coords(SHAPE, like=DOUBLE)[:, [1, 0, 2]] - 0.4
    moved = transport_by_affines(disp, a1, a2)
    x = torch.tensor([8.0, 9.0, 11.0, 1.0], dtype=torch.float64)
    fixed_point = a1 @ x
    match = fixed_point[:3] + 0.05 * fixed_point[[1, 0, 2]] - 0.4
    expected = torch.linalg.inv(a2) @ torch.cat([match, torch.ones(1, dtype=torch.float64)])
    assert_close((x[:3] + moved[0, :, 8, 9, 11]), expected[:3])


def test_world_displacement_does_not_change_on_another_grid_of_the_same_patient(grid):
    big = make_grid(shape=(24, 30, 28), orientation="RAS")
    disp_mm = torch.tensor([1.5, -2.0, 3.0]).view(3, 1, 1, 1).expand(3, *big.shape).contiguous()
    moved = Displacement.from_mm(disp_mm, big).at(grid)
    assert_close(moved.disp_mm(), disp_mm[:, :1, :1, :1].expand(3, *grid.shape), atol=1e-5, rtol=0)


def test_displacement_of_the_wrong_shape_is_refused(grid):
    with pytest.raises(ValueError, match="expected"):
        Displacement(torch.zeros(3, 4, 5, 6), grid)


def test_then_warps_by_the_first_and_then_by_the_second():
    grid = make_grid(shape=SHAPE)
    first, second = (Displacement(waves(phase=p, dtype=torch.float32)[0], grid) for p in (0.0, 1.0))
    expected = compose(first.disp_vox[None], second.disp_vox[None])[0]
    assert_close(first.then(second).disp_vox, expected)
    back, residual = first.inverse()
    assert residual.max() < 0.01
    assert back.grid == grid


def test_unfolding_smooths_what_folds_and_leaves_the_rest():
    disp = waves(amplitude=1.5).float()
    disp[:, :, 3:6, 10:12, 4:7] += 3.0
    folded = (jacobian_determinant(disp) <= 0)[0]
    assert 0 < int(folded.sum()) < 0.05 * folded.numel()
    clean = unfold(disp)
    assert jacobian_determinant(clean).min() > 0
    far = ndimage.distance_transform_edt(~folded.numpy()) > 12
    assert far.any()
    assert torch.equal(clean[:, :, far], disp[:, :, far])
    assert torch.equal(unfold(clean), clean)
