"""Transforms: one map of the patient whatever the storage order."""

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import SimpleITK
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray

from corereg.geometry.displacement import Displacement
from corereg.geometry.grid import Grid
from corereg.io.images.image import Image, write_image
from corereg.io.images.itk import to_sitk
from corereg.io.transforms.transform import Transform
from helpers.grids import ORIENTATIONS
from helpers.refusals import refusal
from helpers.scenes import affine_map, centred_grid, in_body, scan, voxels_mm
from helpers.transforms import (
    HEADER_GEOMETRY,
    MOVING,
    RANGE_HU,
    away_from_border,
    fixed_grid,
    in_each_orientation_and_format,
    label_map,
    on_an_oblique_image,
    reoriented,
    sitk_transform,
    small_affine,
    wave_displacement,
    wavy,
)


def test_warped_image_has_the_geometry_bytes_of_the_fixed_image(tmp_path: Path, fixed: Image) -> None:
    warped = wavy(fixed).apply(scan(MOVING))
    write_image(tmp_path / "warped.nii.gz", warped.array, warped)
    header = nibabel.load(tmp_path / "warped.nii.gz").header
    for name in (*HEADER_GEOMETRY, "pixdim", "dim"):
        assert header[name].tobytes() == fixed.header[name].tobytes(), name


@in_each_orientation_and_format
def test_loaded_transform_maps_points_and_images_as_the_saved_one(tmp_path: Path, fixed: Image, suffix: str) -> None:
    moving, saved = scan(MOVING), wavy(fixed)
    saved.save(tmp_path / f"transform{suffix}")
    loaded = Transform.load(tmp_path / f"transform{suffix}", moving=moving)
    assert loaded.fixed_grid.close_to(fixed.grid)
    points = voxels_mm(fixed.grid)
    assert_allclose(loaded.apply_points(points), saved.apply_points(points), atol=1e-3)
    assert_allclose(loaded.apply(moving).array, saved.apply(moving).array, atol=1e-3 * RANGE_HU)


def test_inverse_brings_points_back(tmp_path: Path, fixed: Image) -> None:
    transform = wavy(fixed)
    inverse = transform.inverse()
    assert inverse.fixed_grid == MOVING
    transform.save(tmp_path / "transform.nii.gz")
    inverse.save(tmp_path / "inverse.nii.gz")
    points = voxels_mm(fixed.grid)
    points = points[in_body(points)]
    there, back = (Transform.load(tmp_path / name).apply_points for name in ("transform.nii.gz", "inverse.nii.gz"))
    error = np.linalg.norm(back(there(points)) - points, axis=1)
    assert np.linalg.norm(there(points) - points, axis=1).mean() > 4
    assert error.mean() < 0.5
    reported = transform.inverse_error(inverse)
    assert reported.mean < 0.5
    assert reported.mean <= reported.p95 <= reported.max


@on_an_oblique_image
def test_inverse_of_a_loaded_field_is_found_on_the_grid_given(tmp_path: Path, fixed: Image) -> None:
    wavy(fixed).save(tmp_path / "transform.nii.gz")
    loaded = Transform.load(tmp_path / "transform.nii.gz", moving=MOVING)
    assert loaded.inverse_error(loaded.inverse()).mean < 0.5


@on_an_oblique_image
def test_inverse_without_a_moving_grid_moves_points_and_needs_a_reference_for_images(
    tmp_path: Path, fixed: Image
) -> None:
    wavy(fixed).save(tmp_path / "transform.nii.gz")
    inverse = Transform.load(tmp_path / "transform.nii.gz").inverse()
    points = np.random.default_rng(0).uniform(-25, 25, (50, 3))
    assert_allclose(inverse.apply_points(wavy(fixed).apply_points(points)), points, atol=0.5)
    assert "fixed image" in refusal(inverse.apply, fixed)
    assert inverse.apply(fixed, reference=MOVING).grid == MOVING


def test_parts_can_be_named_kept_and_left_out() -> None:
    transform = wavy(MOVING)
    assert transform.names == ("deformation", "affine")
    assert Transform((np.eye(4), np.eye(4), np.eye(4)), MOVING).names == ("affine", "affine-2", "affine-3")
    points = np.random.default_rng(0).uniform(-25, 25, (50, 3))
    deformed = transform.without("affine")
    assert deformed.names == ("deformation",)
    assert_array_equal(
        transform.named("affine").apply_points(deformed.apply_points(points)), transform.apply_points(points)
    )
    assert "expected one of deformation, affine" in refusal(transform.named, "rigid")
    assert "a distinct name for each" in refusal(Transform, (np.eye(4),), MOVING, names=("a", "b"))


def test_split_parts_do_together_what_the_whole_did() -> None:
    transform = wavy(MOVING)
    coarse = Displacement(0.8 * wave_displacement().disp_vox, wave_displacement().grid).at(
        centred_grid((30, 31, 29), (4.6, 4.5, 4.4))
    )
    parted = transform.split("deformation", coarse)
    assert parted.names == ("fine", "coarse", "affine")
    points = voxels_mm(wave_displacement().grid)[2:-2, 2:-2, 2:-2]
    assert_allclose(parted.apply_points(points), transform.apply_points(points), atol=0.01)
    assert np.abs(parted.named("fine").apply_points(points) - points).max() < 2
    assert "expected a displacement" in refusal(transform.split, "affine", coarse)


@pytest.mark.parametrize(
    "matrix", [np.zeros((4, 4)), np.diag([1.0, 1.0, 0.0, 1.0]), np.full((4, 4), np.nan), np.eye(3)]
)
def test_affine_part_that_cannot_be_inverted_is_refused(matrix: NDArray[np.float64]) -> None:
    assert "can be inverted" in refusal(Transform, (matrix,), MOVING)


def random_transform(seed: int, orientation: str) -> Transform:
    """A smooth displacement on a small grid of some orientation, before or after an affine map."""
    rng = np.random.default_rng(seed)
    grid = centred_grid((9, 8, 11), (14.0, 15.0, 11.0), orientation, tuple(rng.uniform(-3, 3, 3).tolist()))
    knots = torch.as_tensor(rng.uniform(-4, 4, (1, 3, 3, 3, 3)), dtype=torch.float32)
    smooth = torch.nn.functional.interpolate(knots, grid.shape, mode="trilinear", align_corners=True)[0]
    matrix = np.eye(4)
    matrix[:3] += rng.uniform(-0.05, 0.05, (3, 4)) @ np.diag([1, 1, 1, 60])
    parts = (Displacement.from_mm(smooth, grid), matrix)
    return Transform(parts if seed % 2 else parts[::-1], fixed=grid, moving=grid)


seeds, orientations = st.integers(0, 2**31), st.sampled_from(ORIENTATIONS)

few = settings(max_examples=10, deadline=None)

POINTS_MM = np.random.default_rng(5).uniform(-30, 30, (40, 3))


@few
@given(st.tuples(seeds, seeds, seeds), st.tuples(orientations, orientations, orientations))
def test_composition_is_associative(numbers: tuple[int, int, int], letters: tuple[str, str, str]) -> None:
    a, b, c = (random_transform(n, o) for n, o in zip(numbers, letters, strict=True))
    left, right = a.then(b).then(c), a.then(b.then(c))
    one_by_one = a.apply_points(b.apply_points(c.apply_points(POINTS_MM)))
    for composed in (left, right):
        assert_allclose(composed.apply_points(POINTS_MM), one_by_one, atol=1e-9)
        assert composed.fixed_grid == c.fixed_grid
        assert composed.moving_grid == a.moving_grid
        assert len(composed.names) == len(set(composed.names)) == 6


@few
@given(st.tuples(seeds, seeds), st.tuples(orientations, orientations))
def test_inverse_of_a_composition_is_the_inverses_in_reverse_order(
    numbers: tuple[int, int], letters: tuple[str, str]
) -> None:
    a, b = (random_transform(n, o) for n, o in zip(numbers, letters, strict=True))
    composed = a.then(b)
    inverse = composed.inverse()
    assert_allclose(
        inverse.apply_points(POINTS_MM), b.inverse().apply_points(a.inverse().apply_points(POINTS_MM)), atol=1e-9
    )
    error = np.linalg.norm(inverse.apply_points(composed.apply_points(POINTS_MM)) - POINTS_MM, axis=1)
    assert error.mean() < 0.5  # mm: the voxels are 14 mm wide


@few
@given(seeds, orientations, st.permutations(range(3)), st.tuples(st.booleans(), st.booleans(), st.booleans()))
def test_storage_order_of_a_field_does_not_change_the_transform(
    seed: int, orientation: str, order: list[int], flips: tuple[bool, bool, bool]
) -> None:
    transform = random_transform(seed, orientation)
    fields = [
        stored_otherwise(part, order, flips) if isinstance(part, Displacement) else part for part in transform.parts
    ]
    other = Transform(tuple(fields), transform.fixed)
    assert_allclose(other.apply_points(POINTS_MM), transform.apply_points(POINTS_MM), atol=1e-4)


def stored_otherwise(field: Displacement, order: list[int], flips: tuple[bool, bool, bool]) -> Displacement:
    """The same offsets in the patient, with axes permuted and then flipped."""
    to_old = np.zeros((4, 4))
    to_old[3, 3] = 1
    for new, (old, flip) in enumerate(zip(order, flips, strict=True)):
        to_old[old, new] = -1 if flip else 1
        to_old[old, 3] = field.grid.shape[old] - 1 if flip else 0
    disp_mm = field.disp_mm().permute(0, *(axis + 1 for axis in order))
    disp_mm = disp_mm.flip([axis + 1 for axis, flip in enumerate(flips) if flip])
    a, b, c = disp_mm.shape[1:]
    return Displacement.from_mm(disp_mm, Grid((a, b, c), field.grid.affine @ to_old))


@on_an_oblique_image
@pytest.mark.parametrize("letters", ["LPS", "PIR", "SAL"])
def test_transform_is_the_same_in_the_patient_when_images_are_stored_in_another_orientation(
    tmp_path: Path, fixed: Image, letters: str
) -> None:
    moving = scan(MOVING)
    stored_fixed, stored_moving = reoriented(fixed, letters), reoriented(moving, letters)
    assert stored_fixed.grid.orientation == letters
    plain, other = wavy(fixed, moving), wavy(stored_fixed, stored_moving)
    for name, transform in (("plain", plain), ("other", other)):
        transform.save(tmp_path / f"{name}.nii.gz")
    points = voxels_mm(fixed.grid)
    maps = [Transform.load(tmp_path / f"{name}.nii.gz") for name in ("plain", "other")]
    assert_allclose(maps[0].apply_points(points), maps[1].apply_points(points), atol=1e-3)
    expected = reoriented(plain.apply(moving), letters).array
    assert_allclose(other.apply(stored_moving).array, expected, atol=1e-3 * RANGE_HU)


@on_an_oblique_image
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32])
def test_label_maps_get_no_new_labels_and_keep_their_type(fixed: Image, dtype: type) -> None:
    labels = label_map(MOVING, dtype)
    warped = wavy(fixed).apply(labels, labels=True)
    assert warped.array.dtype == dtype
    assert set(np.unique(warped.array)) == set(np.unique(labels.array))


def test_warped_labels_are_those_of_simpleitks_nearest_neighbour(tmp_path: Path, fixed: Image) -> None:
    labels = label_map(MOVING, np.uint8)
    transform = wavy(fixed)
    transform.save(tmp_path / "transform.mha")
    ours = transform.apply(labels, labels=True).array
    theirs = SimpleITK.Resample(
        to_sitk(labels.array, labels.grid),
        to_sitk(fixed.array, fixed.grid),
        sitk_transform(tmp_path / "transform.mha"),
        SimpleITK.sitkNearestNeighbor,
    )
    inner = away_from_border(transform, MOVING)
    # Positions half way between two voxels may round either way.
    assert (ours == SimpleITK.GetArrayFromImage(theirs).T)[inner].mean() > 0.9999


@on_an_oblique_image
@pytest.mark.parametrize("as_grid", [True, False])
def test_reference_defines_the_output_grid(fixed: Image, as_grid: bool) -> None:
    moving, transform = scan(MOVING), wavy(fixed)
    reference = scan(centred_grid((17, 30, 22), (5.0, 2.5, 4.0), "PIR", (2.0, 3.0, -4.0)))
    warped = transform.apply(moving, reference=reference.grid if as_grid else reference)
    assert warped.grid == reference.grid
    coords = moving.grid.to_voxel(transform.apply_points(voxels_mm(reference.grid)))
    inner = ((coords > 0) & (coords < np.array(moving.grid.shape) - 1)).all(-1)
    image = to_sitk(moving.array, moving.grid)
    for index in np.argwhere(inner)[::211]:
        expected = image.EvaluateAtContinuousIndex(coords[tuple(index)].tolist())
        assert abs(warped.array[tuple(index)] - expected) < 1e-3 * RANGE_HU


def test_identity_changes_no_voxel(fixed: Image) -> None:
    same = Transform((np.eye(4),), fixed=fixed).apply(fixed)
    assert_allclose(same.array, fixed.array, atol=1e-5 * RANGE_HU, rtol=0)
    labels = label_map(fixed.grid, np.int16)
    assert_array_equal(Transform((np.eye(4),), fixed=fixed).apply(labels, labels=True).array, labels.array)


@pytest.mark.filterwarnings("ignore:.*the output shows nothing of it")
@on_an_oblique_image
def test_voxels_without_a_match_take_the_smallest_or_the_given_value(fixed: Image) -> None:
    moving = scan(MOVING)
    away = np.eye(4)
    away[0, 3] = 1000
    transform = Transform((away,), fixed=fixed)
    assert (transform.apply(moving).array == moving.array.min()).all()
    assert (transform.apply(moving, outside=7.0).array == 7).all()
    assert (transform.apply(label_map(MOVING, np.uint8), labels=True).array == 0).all()


@on_an_oblique_image
def test_loaded_affine_continues_beyond_the_grid_of_its_field(tmp_path: Path, fixed: Image) -> None:
    Transform((small_affine(),), fixed=fixed).save(tmp_path / "affine.nii.gz")
    far = np.array([[300.0, -200.0, 150.0]])
    loaded = Transform.load(tmp_path / "affine.nii.gz").apply_points(far)
    assert_allclose(loaded, affine_map(small_affine())(far), atol=1e-2)


@pytest.mark.parametrize("points", [np.zeros(2), np.zeros((4, 2)), np.zeros(())])
def test_points_of_another_dimension_are_refused(points: Any) -> None:
    assert "(..., 3)" in refusal(wavy(fixed_grid("RAS")).apply_points, points)
