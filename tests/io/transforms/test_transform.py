"""Transforms: files that other tools read the same way, and one map of the patient whatever the storage order."""

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
from corereg.io.images.image import Image, read_image, write_image
from corereg.io.images.itk import LPS_RAS, to_sitk
from corereg.io.transforms.transform import Transform
from helpers.grids import ORIENTATIONS
from helpers.images import save_nifti
from helpers.refusals import refusal
from helpers.scenes import affine_map, centred_grid, in_body, scan, voxels_mm
from helpers.transforms import (
    MOVING,
    RANGE_HU,
    away_from_border,
    label_map,
    reoriented,
    small_affine,
    wave_displacement,
    wavy,
)

FIELD_SUFFIXES = [".nii.gz", ".nrrd", ".mha"]
HEADER_GEOMETRY = (
    *("qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z"),
    *("srow_x", "srow_y", "srow_z", "xyzt_units"),
)


def fixed_grid(orientation: str) -> Grid:
    return centred_grid((26, 23, 29), (4.0, 4.0, 3.0), orientation)


@pytest.fixture(params=ORIENTATIONS)
def fixed(request: pytest.FixtureRequest, tmp_path: Path) -> Image:
    """A scan that has been a file, with the header that it got there."""
    image = scan(fixed_grid(request.param))
    save_nifti(tmp_path / "fixed.nii", image.array, image.grid.affine, qform_code=3, sform_code=2, xyzt_units=10)
    return read_image(tmp_path / "fixed.nii")


# Each orientation, and each format; the two have nothing to do with each other.
in_each_orientation_and_format = pytest.mark.parametrize(
    ("fixed", "suffix"),
    [*((orientation, ".nii.gz") for orientation in ORIENTATIONS), ("oblique", ".nrrd"), ("PIR", ".mha")],
    indirect=["fixed"],
)
on_an_oblique_image = pytest.mark.parametrize("fixed", ["oblique"], indirect=True)


def sitk_transform(path: Path) -> Any:
    return SimpleITK.DisplacementFieldTransform(SimpleITK.ReadImage(str(path), SimpleITK.sitkVectorFloat64))


@in_each_orientation_and_format
def test_simpleitk_resamples_with_the_saved_field_as_we_do(tmp_path: Path, fixed: Image, suffix: str) -> None:
    moving = scan(MOVING)
    transform = wavy(fixed, moving)
    transform.save(tmp_path / f"transform{suffix}")
    warped = transform.apply(moving)
    write_image(tmp_path / "warped.nii.gz", warped.array, warped)
    ours = SimpleITK.ReadImage(str(tmp_path / "warped.nii.gz"))
    theirs = SimpleITK.Resample(
        to_sitk(moving.array, moving.grid), ours, sitk_transform(tmp_path / f"transform{suffix}"), SimpleITK.sitkLinear
    )
    difference = np.abs(SimpleITK.GetArrayFromImage(ours) - SimpleITK.GetArrayFromImage(theirs)).T
    inner = away_from_border(transform, moving.grid)
    assert inner.mean() > 0.3
    assert difference[inner].max() < 1e-3 * RANGE_HU


@in_each_orientation_and_format
def test_points_move_as_simpleitk_moves_them_through_the_saved_field(tmp_path: Path, fixed: Image, suffix: str) -> None:
    wavy(fixed).save(tmp_path / f"transform{suffix}")
    ours, theirs = Transform.load(tmp_path / f"transform{suffix}"), sitk_transform(tmp_path / f"transform{suffix}")
    inner = np.random.default_rng(0).uniform(0.5, np.array(fixed.grid.shape) - 1.5, (200, 3))
    points = fixed.grid.to_world(inner)
    lps = LPS_RAS[:3, :3]
    expected = np.array([theirs.TransformPoint((lps @ p).tolist()) for p in points]) @ lps
    assert_allclose(ours.apply_points(points), expected, atol=1e-3)


def test_saved_nifti_field_declares_vectors_on_the_geometry_of_the_fixed_image(tmp_path: Path, fixed: Image) -> None:
    wavy(fixed).save(tmp_path / "transform.nii.gz")
    field = nibabel.load(tmp_path / "transform.nii.gz")
    assert field.shape == (*fixed.grid.shape, 1, 3)
    assert int(field.header["dim"][0]) == 5
    assert int(field.header["intent_code"]) == 1007
    for name in HEADER_GEOMETRY:
        assert field.header[name].tobytes() == fixed.header[name].tobytes(), name
    assert field.header["pixdim"][:4].tobytes() == fixed.header["pixdim"][:4].tobytes()


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
    assert "one of its own each" in refusal(Transform, (np.eye(4),), MOVING, names=("a", "b"))


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


@on_an_oblique_image
def test_saved_identity_is_a_field_of_zeros(tmp_path: Path, fixed: Image) -> None:
    Transform((np.eye(4),), fixed=fixed).save(tmp_path / "identity.nii.gz")
    assert_allclose(nibabel.load(tmp_path / "identity.nii.gz").get_fdata(), 0, atol=1e-5)
    points = voxels_mm(fixed.grid)
    assert_allclose(Transform.load(tmp_path / "identity.nii.gz").apply_points(points), points, atol=1e-4)


@on_an_oblique_image
def test_voxels_without_a_match_take_the_smallest_value_or_what_is_asked_for(fixed: Image) -> None:
    moving = scan(MOVING)
    away = np.eye(4)
    away[0, 3] = 1000
    transform = Transform((away,), fixed=fixed)
    assert (transform.apply(moving).array == moving.array.min()).all()
    assert (transform.apply(moving, outside=7.0).array == 7).all()
    assert (transform.apply(label_map(MOVING, np.uint8), labels=True).array == 0).all()


@on_an_oblique_image
def test_loaded_affine_goes_on_beyond_the_grid_of_its_field(tmp_path: Path, fixed: Image) -> None:
    Transform((small_affine(),), fixed=fixed).save(tmp_path / "affine.nii.gz")
    far = np.array([[300.0, -200.0, 150.0]])
    loaded = Transform.load(tmp_path / "affine.nii.gz").apply_points(far)
    assert_allclose(loaded, affine_map(small_affine())(far), atol=1e-2)


@pytest.mark.parametrize(("unit", "per_mm"), [(1, 1e-3), (3, 1e3)])
def test_field_of_an_image_in_metres_or_microns_is_read_back_as_it_was(
    tmp_path: Path, unit: int, per_mm: float
) -> None:
    image = scan(fixed_grid("oblique"))
    scaled = np.diag([per_mm, per_mm, per_mm, 1.0]) @ image.grid.affine
    save_nifti(tmp_path / "fixed.nii", image.array, scaled, xyzt_units=unit)
    stored = read_image(tmp_path / "fixed.nii")
    assert stored.grid.close_to(image.grid, 1e-2)
    wavy(stored).save(tmp_path / "transform.nii.gz")
    points = voxels_mm(image.grid)
    loaded = Transform.load(tmp_path / "transform.nii.gz")
    assert loaded.fixed_grid.close_to(image.grid, 1e-2)
    assert_allclose(loaded.apply_points(points), wavy(stored).apply_points(points), atol=1e-2)


def field_file(path: Path, values: NDArray[Any], *, intent: int = 1007) -> Path:
    image = nibabel.Nifti1Image(values, fixed_grid("LPS").affine)
    image.header["intent_code"] = intent
    image.to_filename(path)
    return path


def field_values(*trailing: int) -> NDArray[np.float32]:
    return np.random.default_rng(0).normal(size=(*fixed_grid("LPS").shape, *trailing)).astype(np.float32)


@pytest.mark.parametrize("intent", [0, 1006])
def test_field_with_an_intent_that_tools_misread_is_refused(tmp_path: Path, intent: int) -> None:
    path = field_file(tmp_path / "field.nii.gz", field_values(1, 3), intent=intent)
    assert f"intent {intent}" in refusal(Transform.load, path)


@pytest.mark.parametrize("trailing", [(3,), (1, 2), (1, 4), (3, 1), ()])
def test_field_of_another_shape_is_refused(tmp_path: Path, trailing: tuple[int, ...]) -> None:
    assert "shape" in refusal(Transform.load, field_file(tmp_path / "field.nii.gz", field_values(*trailing)))


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("suffix", FIELD_SUFFIXES)
def test_field_with_an_offset_that_is_no_number_is_refused(tmp_path: Path, value: float, suffix: str) -> None:
    values = field_values(1, 3)
    values[3, 4, 5, 0, 1] = value
    path = tmp_path / f"field{suffix}"
    if suffix == ".nii.gz":
        field_file(path, values)
    else:
        SimpleITK.WriteImage(to_sitk(values[:, :, :, 0], fixed_grid("LPS")), str(path))
    assert "NaN" in refusal(Transform.load, path)


@pytest.mark.parametrize("suffix", FIELD_SUFFIXES)
def test_truncated_field_is_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"transform{suffix}"
    wavy(fixed_grid("RAS")).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert str(path) in refusal(Transform.load, path)


@pytest.mark.parametrize("components", [1, 2])
def test_itk_file_without_three_components_is_refused(tmp_path: Path, components: int) -> None:
    values = field_values(components) if components > 1 else field_values()
    SimpleITK.WriteImage(to_sitk(values, fixed_grid("LPS")), str(tmp_path / "field.mha"))
    assert "components" in refusal(Transform.load, tmp_path / "field.mha")


@pytest.mark.parametrize("name", ["missing.nii.gz", "folder.nii.gz", "text.nii.gz", "text.nrrd", "text.h5"])
def test_what_is_no_field_is_refused(tmp_path: Path, name: str) -> None:
    if name.startswith("text"):
        (tmp_path / name).write_text("patient 1")
    elif name.startswith("folder"):
        (tmp_path / name).mkdir()
    assert name in refusal(Transform.load, tmp_path / name)


@pytest.mark.parametrize("name", ["transform.xyz", "transform", "nowhere/transform.nii.gz", "nowhere/transform.h5"])
def test_field_is_not_written_where_it_cannot_be(tmp_path: Path, name: str) -> None:
    refusal(wavy(fixed_grid("RAS")).save, tmp_path / name)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("points", [np.zeros(2), np.zeros((4, 2)), np.zeros(())])
def test_points_of_another_dimension_are_refused(points: Any) -> None:
    assert "(..., 3)" in refusal(wavy(fixed_grid("RAS")).apply_points, points)
