"""Displacements: scaling, composition, inversion and Jacobians against analytic truth and float64 loops."""

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch.testing import assert_close

from corereg.geometry.displacement import (
    Displacement,
    compose,
    invert,
    jacobian_determinant,
    sdlogj,
    subsample_displacement,
    transport_by_affines,
    unfold,
    upsample_displacement,
)
from corereg.geometry.grid import Grid
from corereg.geometry.strided import strided_shape
from corereg.geometry.warp import identity_coords, warp
from helpers.fields import SHAPE, waves
from helpers.grids import make_grid

DOUBLE = torch.zeros(1, dtype=torch.float64)


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


@pytest.mark.parametrize("orientation", ["PIR", "oblique"])
def test_displacement_that_covers_a_scan_moves_all_of_it_as_before(orientation):
    small = make_grid(shape=SHAPE, orientation=orientation)
    field = Displacement(waves(dtype=torch.float32)[0], small)
    affine = small.affine.copy()
    affine[:3, 3] = small.to_world((-2.8, -3.2, 0.4))
    scan = Grid((SHAPE[0] + 4, SHAPE[1], SHAPE[2] + 3), affine)
    covering = field.covering(scan, at_most=4.0)
    assert covering.grid.shape == (SHAPE[0] + 4, SHAPE[1] + 3, SHAPE[2] + 3)
    assert_close(covering.grid.to_world((0, 0, 0)), small.to_world((-3, -3, 0)))
    assert_close(covering.disp_vox, field.at(covering.grid).disp_vox, atol=1e-6, rtol=0)
    assert field.covering(scan, at_most=1.0) is field
    assert field.covering(small, at_most=4.0) is field


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
