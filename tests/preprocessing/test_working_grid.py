"""The working grid of a pair, and images brought to it. SimpleITK is the oracle."""

import warnings

import numpy as np
import pytest
import SimpleITK
import torch
from numpy.testing import assert_allclose

from corereg.geometry.grid import Grid
from corereg.io.images.itk import to_sitk
from corereg.preprocessing.working_grid import (
    BYTES_PER_VOXEL,
    FINE_BYTES_PER_VOXEL,
    MOST_VOXELS,
    choose_working_grid,
    resample_image,
    resample_mask,
    shrink,
)
from helpers.grids import ORIENTATIONS, make_grid
from helpers.refusals import refusal
from helpers.scenes import centred_grid, hounsfield, scan, voxels_mm

CPU = torch.device("cpu")

PLENTY = 2**40


def chosen(fixed: Grid, moving: Grid | None = None, spacing_mm: float | None = None, memory: int = PLENTY) -> Grid:
    return choose_working_grid(fixed, moving or fixed, spacing_mm=spacing_mm, memory_bytes=memory)


def test_working_grid_covers_the_fixed_image_in_isotropic_voxels_and_multiples_of_16(grid: Grid) -> None:
    working = chosen(grid, spacing_mm=1.4)
    assert_allclose(working.spacing, 1.4)
    assert all(n % 16 == 0 for n in working.shape)
    coords = working.to_voxel(voxels_mm(grid))
    assert (coords > -1e-6).all()
    assert (coords < np.array(working.shape) - 1 + 1e-3).all()


def test_working_grid_starts_on_voxel_0_of_the_canonical_orientation(grid: Grid) -> None:
    working = chosen(grid, spacing_mm=2.0)
    canonical = grid.canonical()
    assert_allclose(working.to_world((0, 0, 0)), canonical.to_world((0, 0, 0)))
    assert_allclose(working.linear / working.spacing, canonical.linear / canonical.spacing, atol=1e-12)
    assert working.orientation == "RAS"


@pytest.mark.parametrize("orientation", ["LPS", "PIR", "SAL"])
def test_working_grid_does_not_depend_on_the_storage_order(orientation: str) -> None:
    letters = dict(zip("RLAPSI", (0, 0, 1, 1, 2, 2), strict=True))
    shape, spacing = (60, 50, 40), (2.5, 2.0, 3.0)
    stored = [letters[letter] for letter in orientation]
    plain = centred_grid(shape, spacing)
    a, b, c = stored
    other = centred_grid((shape[a], shape[b], shape[c]), (spacing[a], spacing[b], spacing[c]), orientation)
    assert chosen(plain).close_to(chosen(other), 1e-9)


@pytest.mark.parametrize(
    ("fixed_mm", "moving_mm", "fixed_size", "expected_mm"),
    [
        (3.0, 3.0, 120, 3.0),
        (3.0, 1.0, 120, 3.0),
        (1.0, 3.0, 400, 3.0),
        (1.0, 1.0, 400, 1.96),
        (1.0, 1.0, 200, 2 ** (1 / 3)),
        (1.0, 1.0, 120, 1.25),
        (1.0, 1.0, 48, 1.0),
        (0.5, 1.5, 96, 1.5),
    ],
)
def test_working_spacing_follows_the_coarser_scan_and_the_field_of_view(
    fixed_mm: float, moving_mm: float, fixed_size: int, expected_mm: float
) -> None:
    fixed = centred_grid((fixed_size, fixed_size - 7, fixed_size - 11), (fixed_mm, fixed_mm, fixed_mm), "LPS")
    moving = centred_grid((90, 80, 70), (moving_mm, moving_mm, 2 * moving_mm))
    assert_allclose(chosen(fixed, moving).spacing, expected_mm)


@pytest.mark.parametrize(
    ("shape", "spacing", "expected_mm"),
    [
        ((181, 217, 181), (1.0, 1.0, 1.0), 1.0),  # a head
        ((256, 256, 34), (1.25, 1.25, 7.7), 2.0),  # slices of an abdomen
        ((216, 256, 10), (1.4, 1.4, 10.0), 2.0),  # slices of a heart
        ((512, 512, 120), (0.7, 0.7, 2.5), 1.72),  # at 1.07 mm, 31 million voxels are too many
        ((512, 512, 620), (0.9, 0.9, 0.8), 2.0),
    ],
)
def test_working_spacing_of_usual_scans(
    shape: tuple[int, int, int], spacing: tuple[float, float, float], expected_mm: float
) -> None:
    working = chosen(centred_grid(shape, spacing, "LPS"))
    assert_allclose(working.spacing, expected_mm, atol=0.03)
    assert expected_mm == 2.0 or np.prod(working.shape) <= 9_000_000


def test_rounding_in_a_header_adds_no_voxel() -> None:
    grid = Grid((65, 49, 33), np.diag([2.0000003, 2.0000003, 2.0000003, 1.0]))
    assert chosen(grid, spacing_mm=2.0).shape == (80, 64, 48)
    exact = Grid((64, 48, 32), np.diag([2.0000003, 2.0000003, 2.0000003, 1.0]))
    assert chosen(exact, spacing_mm=2.0).shape == exact.shape


def test_little_memory_makes_the_automatic_spacing_coarser() -> None:
    fixed = centred_grid((300, 260, 280), (1.0, 1.0, 1.0), "oblique")
    need = int(BYTES_PER_VOXEL * np.prod(chosen(fixed).shape))
    with pytest.warns(UserWarning, match="outputs"), pytest.warns(UserWarning, match="--memory"):
        working = chosen(fixed, memory=need // 3)
    assert 2.0 < min(working.spacing) < 5.0
    assert BYTES_PER_VOXEL * np.prod(working.shape) <= need // 3


def test_grid_refined_in_full_is_planned_with_the_memory_that_takes() -> None:
    fixed = centred_grid((180, 200, 190), (1.0, 1.0, 1.0), "oblique")
    voxels = np.prod(chosen(fixed).shape)
    assert 6e6 < voxels <= MOST_VOXELS
    memory = int(FINE_BYTES_PER_VOXEL * voxels)
    assert chosen(fixed, memory=memory).shape == chosen(fixed).shape
    with pytest.warns(UserWarning, match="--memory"):
        assert min(chosen(fixed, memory=memory // 2).spacing) > 1.1


def test_explicit_spacing_beyond_the_memory_is_refused_with_one_that_fits() -> None:
    fixed = centred_grid((300, 260, 280), (1.0, 1.0, 1.0))
    memory = 3 * 2**30
    message = refusal(chosen, fixed, spacing_mm=0.5, memory=memory)
    assert "0.5 mm" in message
    assert "3.0 GiB" in message
    fitting = float(message.split("--spacing ")[1].split()[0])
    assert_allclose(chosen(fixed, spacing_mm=fitting, memory=memory).spacing, fitting)


def test_outputs_on_a_fine_grid_that_need_more_than_the_registration_are_announced() -> None:
    fixed = centred_grid((400, 300, 350), (0.5, 0.6, 0.5))
    with pytest.warns(UserWarning, match=r"outputs .* takes about 2\.\d GiB, more than the 1\.0 GiB available"):
        working = chosen(fixed, spacing_mm=2.0, memory=2**30)
    assert_allclose(working.spacing, 2.0)


def test_outputs_on_a_canvas_around_the_fixed_image_are_announced() -> None:
    shown, canvas = (
        make_grid((48, 52, 40), (1.0, 1.1, 1.2), "oblique"),
        make_grid((500, 300, 260), (1.0, 1.1, 1.2), "oblique"),
    )
    with pytest.warns(UserWarning, match=r"outputs for a fixed image of .*500.* takes about 2\.\d GiB"):
        choose_working_grid(shown, shown, memory_bytes=2**30, written=canvas)


@pytest.mark.parametrize("spacing_mm", [None, 3.0])
def test_memory_too_little_for_any_grid_is_refused(spacing_mm: float | None) -> None:
    refusal(chosen, centred_grid((60, 50, 40), (2.0, 2.0, 2.0)), spacing_mm=spacing_mm, memory=2**20)


def test_memory_that_is_named_as_enough_is_enough() -> None:
    fixed = centred_grid((60, 50, 40), (2.0, 2.0, 2.0))
    message = refusal(chosen, fixed, memory=10**5)
    assert "close other programs" not in message
    enough = round(float(message.split("--memory ")[1].split()[0]) * 10**9)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert chosen(fixed, memory=enough).shape == (32, 32, 32)


@pytest.mark.parametrize("spacing_mm", [1e9, 300.0, 1e-9, 1e-320])
def test_spacing_far_from_the_scans_is_refused_with_the_ones_that_can_be(spacing_mm: float) -> None:
    fixed = centred_grid((60, 50, 40), (2.0, 2.5, 2.0))
    message = refusal(chosen, fixed, spacing_mm=spacing_mm)
    assert "expected 0.002 to 31 mm" in message
    assert "--spacing" in message


@pytest.mark.parametrize("spacing_mm", [0.0, -1.0, float("nan"), float("inf")])
def test_spacing_that_is_not_positive_is_refused(spacing_mm: float) -> None:
    assert "spacing" in refusal(chosen, make_grid(), spacing_mm=spacing_mm)


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_resampled_image_is_simpleitks(orientation: str) -> None:
    image = scan(centred_grid((34, 29, 31), (3.5, 4.0, 4.5), orientation))
    working = centred_grid((36, 40, 44), (3.0, 3.0, 3.0), "RAS", (3.0, -4.0, 5.0))
    volume, weight = resample_image(image.array, image.grid, working, device=CPU)
    like = to_sitk(np.zeros(working.shape, np.float32), working)
    source = to_sitk(image.array, image.grid)
    oracle = SimpleITK.Resample(source, like, SimpleITK.Transform(), SimpleITK.sitkLinear, 5000.0)
    expected = SimpleITK.GetArrayFromImage(oracle).T
    inside = expected < 4000
    coords = image.grid.to_voxel(voxels_mm(working))
    # Positions on the outermost faces may round to either side.
    faces = np.abs(np.stack([coords + 0.5, coords - np.array(image.grid.shape) + 0.5])).min((0, -1)) < 1e-3
    assert 0.1 < inside.mean() < 1
    assert (faces | (inside == (weight[0, 0].numpy() > 0))).all()
    assert_allclose(volume[0, 0].numpy()[inside & ~faces], expected[inside & ~faces], atol=0.05)


def test_resampled_image_follows_the_affine_from_working_to_image_world() -> None:
    image = scan(centred_grid((34, 29, 31), (3.5, 4.0, 4.5), "oblique", (9.0, -7.0, 4.0)))
    shift = np.eye(4)
    shift[:3, 3] = 9.0, -7.0, 4.0
    working = centred_grid((36, 40, 44), (3.0, 3.0, 3.0))
    volume, weight = resample_image(image.array, image.grid, working, affine=shift, device=CPU)
    inside = weight[0, 0].numpy() > 0
    expected = hounsfield(voxels_mm(working) + shift[:3, 3])
    assert np.abs(volume[0, 0].numpy() - expected)[inside].mean() < 15


def test_resampled_image_holds_its_edge_outside_its_field_of_view() -> None:
    image = scan(centred_grid((20, 18, 16), (4.0, 4.0, 4.0)))
    volume, weight = resample_image(image.array, image.grid, centred_grid((64, 60, 56), (4.0, 4.0, 4.0)), device=CPU)
    assert float(weight.mean()) < 0.1
    assert float(volume.min()) >= image.array.min()
    assert float(volume.max()) <= image.array.max()


def test_resampled_mask_is_0_or_1_and_0_outside(grid: Grid) -> None:
    mask = np.ones(grid.shape, dtype=bool)
    mask[: grid.shape[0] // 2] = False
    working = chosen(grid, spacing_mm=1.5)
    seen = resample_mask(mask, grid, working, device=CPU)[0, 0].numpy()
    assert set(np.unique(seen)) == {0.0, 1.0}
    coords = grid.to_voxel(voxels_mm(working))
    index = np.floor(coords + 0.5).astype(int)
    valid = ((index >= 0) & (index < grid.shape)).all(-1)
    expected = valid & (index[..., 0] >= grid.shape[0] // 2)
    ties = (np.abs(coords - np.floor(coords) - 0.5) < 1e-3).any(-1)
    assert (ties | (seen.astype(bool) == expected)).all()


def test_fine_voxels_are_averaged_and_stay_where_they_are(grid: Grid) -> None:
    fine = Grid((grid.shape[0] * 3, grid.shape[1] * 2, grid.shape[2]), grid.affine @ np.diag([1 / 3, 1 / 2, 1, 1]))
    position = voxels_mm(fine) @ np.array([0.3, -0.2, 0.1])
    volume, shrunk = shrink(position, fine, 1.2, device=CPU)
    assert shrunk.shape == tuple(volume.shape[2:])
    assert max(shrunk.shape) < max(fine.shape)
    # The mean of a linear function over a block is its value in the block's middle, except in blocks cut by the end.
    inner = (slice(1, -1),) * 3
    expected = voxels_mm(shrunk) @ np.array([0.3, -0.2, 0.1])
    assert_allclose(volume[0, 0].numpy()[inner], expected[inner], atol=1e-3)


def test_coarse_voxels_are_left_alone(grid: Grid) -> None:
    array = np.random.default_rng(0).normal(size=grid.shape).astype(np.float32)
    volume, same = shrink(array, grid, 0.9, device=CPU)
    assert same == grid
    np.testing.assert_array_equal(volume[0, 0].numpy(), array)
