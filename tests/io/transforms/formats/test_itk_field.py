"""Displacement fields in files: as other tools read them, and what is refused."""

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import SimpleITK
from numpy.testing import assert_allclose
from numpy.typing import NDArray

from corereg.io.images.image import Image, read_image, write_image
from corereg.io.images.itk import LPS_RAS, to_sitk
from corereg.io.transforms.transform import Transform
from helpers.images import save_nifti
from helpers.refusals import refusal
from helpers.scenes import scan, voxels_mm
from helpers.transforms import (
    FIELD_SUFFIXES,
    HEADER_GEOMETRY,
    MOVING,
    RANGE_HU,
    away_from_border,
    fixed_grid,
    in_each_orientation_and_format,
    on_an_oblique_image,
    sitk_transform,
    wavy,
)


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


@on_an_oblique_image
def test_saved_identity_is_a_field_of_zeros(tmp_path: Path, fixed: Image) -> None:
    Transform((np.eye(4),), fixed=fixed).save(tmp_path / "identity.nii.gz")
    assert_allclose(nibabel.load(tmp_path / "identity.nii.gz").get_fdata(), 0, atol=1e-5)
    points = voxels_mm(fixed.grid)
    assert_allclose(Transform.load(tmp_path / "identity.nii.gz").apply_points(points), points, atol=1e-4)


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
def test_field_with_a_nan_offset_is_refused(tmp_path: Path, value: float, suffix: str) -> None:
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
def test_anything_but_a_field_is_refused(tmp_path: Path, name: str) -> None:
    if name.startswith("text"):
        (tmp_path / name).write_text("patient 1")
    elif name.startswith("folder"):
        (tmp_path / name).mkdir()
    assert name in refusal(Transform.load, tmp_path / name)


@pytest.mark.parametrize("name", ["transform.xyz", "transform", "nowhere/transform.nii.gz", "nowhere/transform.h5"])
def test_field_is_not_written_where_it_cannot_be(tmp_path: Path, name: str) -> None:
    refusal(wavy(fixed_grid("RAS")).save, tmp_path / name)
    assert not list(tmp_path.iterdir())
