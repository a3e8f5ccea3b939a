"""Affine pre-alignment: motions of a made-up patient are found again, whatever the grids."""

from dataclasses import replace

import numpy as np
import pytest
import SimpleITK
import torch
from numpy.typing import NDArray

from corereg.data.phantom import make_breathing_pair
from corereg.geometry.grid import Grid, transform_points
from corereg.io.images.image import Image
from corereg.method.affine.agreement import Agreement
from corereg.method.affine.align import MARGINS, UNDECIDED, Alignment, _between, _share, _simplest, align
from corereg.method.affine.coarse_copies import CoarseCopy, coarse_copy, common_unit_mm
from corereg.method.affine.search import Space
from corereg.method.affine.translation import SPACING_MM, best_translation
from corereg.preprocessing.detection import Intensities
from corereg.preprocessing.intensity import normalise
from helpers.motions import motion
from helpers.scenes import affine_map, centred_grid, in_body, scan, voxels_mm

Mask = NDArray[np.bool_]

FIXED = centred_grid((37, 31, 33), (4.0, 4.0, 4.0))


def moved_scan(truth: NDArray[np.float64], grid: Grid) -> Image:
    """The patient after `truth`: what is at p in the fixed image is at `truth` p."""
    return scan(grid, affine_map(np.linalg.inv(truth)))


def prepared(image: Image) -> NDArray[np.float32]:
    return np.asarray(normalise(torch.as_tensor(image.array), "ct-abdomen").numpy())


def aligned(
    fixed: Image, moving: Image, *, fixed_mask: Mask | None = None, moving_mask: Mask | None = None, seed: int = 0
) -> Alignment:
    copies = CoarseCopy(prepared(fixed), fixed.grid, fixed_mask), CoarseCopy(prepared(moving), moving.grid, moving_mask)
    return align(*copies, seed=seed)


def error_mm(found: NDArray[np.float64], truth: NDArray[np.float64]) -> float:
    """Mean distance, over the body, between where a map sends a point and where it should."""
    points = voxels_mm(FIXED)
    points = points[in_body(points)]
    return float(np.linalg.norm(affine_map(found)(points) - affine_map(truth)(points), axis=1).mean())


@pytest.mark.parametrize(
    ("truth", "orientation"),
    [
        (motion(degrees=(-5, 4, 7), scale=(1.08, 0.94, 1.05), shift_mm=(-10, 14, 6)), "LPS"),
        (motion(degrees=(8, 9, -6), scale=0.93, shift_mm=(7, 5, -16)), "PIR"),
        (motion(degrees=(0, 10, 8), scale=(1.05, 1.06, 0.96), shift_mm=(5, -6, 8)), "oblique"),
    ],
)
def test_known_motion_is_recovered_within_a_millimetre(truth: NDArray[np.float64], orientation: str) -> None:
    x, y, z = truth[:3, 3]
    moving = moved_scan(truth, centred_grid((44, 35, 40), (3.5, 4.0, 4.2), orientation, (x + 2, y - 3, z + 4)))
    found = aligned(scan(FIXED), moving)
    assert error_mm(np.eye(4), truth) > 9
    assert error_mm(found.affine, truth) < 1
    assert found.needed
    assert found.metric_after > found.metric_before


@pytest.mark.parametrize("factor", [0.003, 0.07, 60.0])
def test_a_mouse_and_a_header_in_micrometres_are_aligned_as_a_person_is(factor: float) -> None:
    truth = motion(degrees=(-5, 4, 7), scale=(1.08, 0.94, 1.05), shift_mm=(-10, 14, 6))
    fixed, moving = (
        replace(image, grid=Grid(image.grid.shape, np.diag([factor] * 3 + [1.0]) @ image.grid.affine))
        for image in (scan(FIXED), moved_scan(truth, centred_grid((44, 35, 40), (3.5, 4.0, 4.2), "oblique")))
    )
    unit_mm = common_unit_mm(fixed.grid, moving.grid)
    found = align(*(coarse_copy(image, Intensities("ct"), unit_mm=unit_mm) for image in (fixed, moving)))
    affine = found.affine.copy()
    affine[:3, 3] /= factor
    assert error_mm(affine, truth) < 2


def test_aligned_pair_keeps_the_identity() -> None:
    moving = scan(centred_grid((40, 38, 30), (3.7, 3.7, 4.5), "PIR", (3.0, 2.0, -4.0)))
    found = aligned(scan(FIXED), moving)
    assert not found.needed
    assert found.start == "identity"
    np.testing.assert_array_equal(found.affine, np.eye(4))


def test_headers_300_mm_apart_are_brought_together() -> None:
    truth = motion(degrees=(0, 0, 5), shift_mm=(200, -180, 140))
    moving = moved_scan(truth, centred_grid((42, 36, 38), (3.8, 4.0, 4.0), "LPS", (203.0, -182.0, 143.0)))
    assert not FIXED.overlaps(moving.grid)
    found = aligned(scan(FIXED), moving)
    assert found.needed
    assert error_mm(found.affine, truth) < 1


@pytest.mark.parametrize("orientation", ["LPS", "oblique"])
def test_cropped_field_of_view_is_found_in_the_whole(orientation: str) -> None:
    crop = scan(centred_grid((20, 17, 16), (4.0, 4.0, 4.0), orientation, (22.0, -12.0, 24.0)))
    shift = np.array([120.0, -75.0, 60.0])
    affine = crop.grid.affine.copy()
    affine[:3, 3] += shift
    elsewhere = Image(crop.array, Grid(crop.grid.shape, affine))
    whole = scan(FIXED)
    found = best_translation(prepared(whole), whole.grid, prepared(elsewhere), elsewhere.grid)
    assert np.abs(found - shift).max() <= SPACING_MM
    assert error_mm(aligned(whole, elsewhere).affine, motion(shift_mm=shift)) < 1.5


@pytest.mark.filterwarnings("ignore:the affine pre-alignment would stretch")
@pytest.mark.parametrize("kind", ["abdomen", "chest"])
@pytest.mark.parametrize("upper_fixed", [False, True])
def test_bodies_of_which_each_scan_shows_another_part_are_not_drawn_over_each_other(
    kind: str, upper_fixed: bool
) -> None:
    """A quarter of the phantom is in both. Breathing leaves 12 to 24 mm to the deformation."""
    breath = make_breathing_pair(0, kind, 4.0)
    slices, shift = breath.grid.shape[2], np.array([30.0, -40.0, 60.0])
    kept = int(slices / 1.6)
    lower, upper = slice(0, kept), slice(slices - kept, slices)

    def part(array: NDArray[np.float32], where: slice, shift: NDArray[np.float64]) -> Image:
        affine = breath.grid.affine.copy()
        affine[:3, 3] = breath.grid.to_world([0, 0, where.start]) + shift
        return Image(np.ascontiguousarray(array[:, :, where]), Grid((*breath.grid.shape[:2], kept), affine))

    fixed = part(breath.fixed, upper if upper_fixed else lower, np.zeros(3))
    moving = part(breath.moving, lower if upper_fixed else upper, shift)
    copies = [coarse_copy(image, Intensities("ct")) for image in (fixed, moving)]
    points = fixed.grid.to_world(np.argwhere(fixed.array > -300)[::50])
    there = transform_points(align(copies[0], copies[1]).affine, points)
    assert np.linalg.norm(there - points - shift, axis=1).mean() < 25


def test_best_translation_of_a_pair_in_place_is_below_its_resolution() -> None:
    moving = scan(centred_grid((40, 38, 30), (3.7, 3.7, 4.5), "oblique", (3.0, 2.0, -4.0)))
    found = best_translation(prepared(scan(FIXED)), FIXED, prepared(moving), moving.grid)
    assert np.abs(found).max() <= SPACING_MM


def test_same_pair_gives_the_same_bits_and_leaves_simpleitks_threads_alone() -> None:
    moving = moved_scan(motion(degrees=(3, 5, -4), shift_mm=(8, 6, -7)), centred_grid((40, 35, 38), (4.0, 4.0, 4.0)))
    threads = SimpleITK.ProcessObject.GetGlobalDefaultNumberOfThreads()
    first, second = (aligned(scan(FIXED), moving, seed=3) for _ in range(2))
    assert first.affine.tobytes() == second.affine.tobytes()
    assert (first.metric_before, first.metric_after) == (second.metric_before, second.metric_after)
    assert SimpleITK.ProcessObject.GetGlobalDefaultNumberOfThreads() == threads


@pytest.mark.parametrize(("masked", "upper"), [("fixed", True), ("moving", False), ("both", True)])
def test_only_what_lies_in_the_masks_counts(masked: str, upper: bool) -> None:
    """Above a plane the patient moves to the right, below it to the left: the mask says which of the two is sought.

    A mask keeps the other part out of its own image's smoothing: without one of the moving image some of it is seen.
    """
    shifts = np.array([[8.0, 5.0, 0.0], [-8.0, -5.0, 0.0]])

    def back(points: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(points - np.where(points[..., 2:] > 0, *shifts))

    fixed, moving = scan(FIXED), scan(centred_grid((42, 36, 35), (4.0, 4.0, 4.0), "LPS"), back)
    masks = [(voxels_mm(image.grid)[..., 2] > 0) == upper for image in (fixed, moving)]
    found = aligned(
        fixed,
        moving,
        fixed_mask=None if masked == "moving" else masks[0],
        moving_mask=None if masked == "fixed" else masks[1],
    )
    points = voxels_mm(FIXED)
    points = points[in_body(points) & masks[0]]
    error = affine_map(found.affine)(points) - points - shifts[0 if upper else 1]
    assert np.linalg.norm(error, axis=1).mean() < (2.5 if masked == "fixed" else 1.5)


def test_pair_that_no_start_brings_together_is_left_with_a_warning() -> None:
    mask = np.zeros(FIXED.shape, dtype=bool)
    with pytest.warns(UserWarning, match="skipped"):
        found = aligned(scan(FIXED), scan(FIXED), moving_mask=mask)
    assert not found.needed
    np.testing.assert_array_equal(found.affine, np.eye(4))


def test_implausible_stretches_give_way_to_a_rigid_map_with_a_warning() -> None:
    truth = motion(degrees=(2, -3, 4), scale=(1.25, 0.75, 0.56), shift_mm=(70, -60, 50))
    moving = moved_scan(truth, centred_grid((44, 35, 40), (3.5, 4.0, 4.2), "LPS", (70.0, -60.0, 50.0)))
    with pytest.warns(UserWarning, match="implausibly"):
        found = aligned(scan(FIXED), moving)
    assert found.needed
    assert found.stretch_excess > 1
    np.testing.assert_allclose(np.linalg.svd(found.affine[:3, :3], compute_uv=False), 1, atol=1e-6)


def test_plausible_scale_of_a_child_is_found() -> None:
    truth = motion(degrees=(3, 0, -4), scale=0.75, shift_mm=(4, 6, -5))
    found = aligned(scan(FIXED), moved_scan(truth, centred_grid((44, 35, 40), (3.5, 4.0, 4.2))))
    assert error_mm(found.affine, truth) < 1
    assert 0.9 < found.stretch_excess < 1


@pytest.mark.parametrize("misplaced", [motion(), motion(degrees=(2, -2, 1), shift_mm=(3, -2, 2))])
def test_pair_of_nearly_one_size_gets_the_same_rigid_map_wherever_the_header_puts_it(
    misplaced: NDArray[np.float64],
) -> None:
    """Stretching it would gain little, and keeping a header that is nearly right would leave it where it is."""
    turned = motion(degrees=(3, -1, 2), shift_mm=(4, 3, -3))
    stretched = turned @ motion(scale=(1.02, 0.99, 1.0))
    moving = moved_scan(stretched, centred_grid((44, 36, 38), (3.8, 4.0, 4.0), "LPS"))
    elsewhere = Image(moving.array, Grid(moving.grid.shape, misplaced @ moving.grid.affine))
    found = aligned(scan(FIXED), elsewhere)
    assert found.needed
    np.testing.assert_allclose(np.linalg.svd(found.affine[:3, :3], compute_uv=False), 1, atol=1e-6)
    assert error_mm(np.linalg.inv(misplaced) @ found.affine, turned) < 0.7


def turned_by(degrees: float, shift_mm: float) -> NDArray[np.float64]:
    return motion(degrees=(0, 0, degrees), shift_mm=(shift_mm, 0, 0))


@pytest.mark.parametrize("margin", [MARGINS["affine"], MARGINS["rigid"]])
def test_around_a_margin_the_share_grows_evenly_from_nothing_to_all(margin: float) -> None:
    beyond = np.linspace(-0.05, 0.05, 101)
    shares = np.array([_share(2 * (1 + margin + each), 2.0, margin) for each in beyond])
    assert (shares[beyond < -UNDECIDED] == 0).all()
    assert (shares[beyond > UNDECIDED] == 1).all()
    assert _share(2 * (1 + margin), 2.0, margin) == pytest.approx(0.5)
    assert np.diff(shares).max() < 0.03


def test_the_map_between_two_goes_a_share_of_the_way() -> None:
    first, second = turned_by(4, 10), turned_by(10, 16)
    for share in (0.0, 0.25, 0.5, 1.0):
        found = _between(first, second, share)
        angle = np.degrees(np.arctan2(found[1, 0], found[0, 0]))
        assert angle == pytest.approx(4 + 6 * share)
        np.testing.assert_allclose(found[:3, :3] @ found[:3, :3].T, np.eye(3), atol=1e-12)
    np.testing.assert_allclose(_between(first, second, 0.0), first, atol=1e-12)
    np.testing.assert_array_equal(_between(first, second, 1.0), second)


@pytest.mark.parametrize(("apart_mm", "blended"), [(2.0, True), (40.0, False)])
def test_only_maps_near_each_other_are_blended(apart_mm: float, blended: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the affine map agrees better than the rigid one by exactly its margin."""
    rigid, affine = turned_by(0, 20), turned_by(0, 20 + apart_mm)
    odds = {0: 1.0, 20: 2.0, 20 + apart_mm: 2.0 * (1 + MARGINS["affine"]) + 1e-9}
    monkeypatch.setattr(
        "corereg.method.affine.align.local_agreement", lambda f, m, matrix: Agreement(odds[round(matrix[0, 3], 6)], 1.0)
    )
    copies = CoarseCopy(prepared(scan(FIXED)), FIXED, None), CoarseCopy(prepared(scan(FIXED)), FIXED, None)
    name, kept = _simplest({"rigid": ("moments", rigid), "affine": ("moments", affine)}, *copies, Space(FIXED))
    assert name == "moments"
    assert kept[0, 3] == pytest.approx(20 + apart_mm * (0.5 if blended else 1.0), abs=1e-3)
