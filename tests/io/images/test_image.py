"""Images in and out: SimpleITK and nibabel are the oracles. What may not come in is in test_bad_images.py."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import SimpleITK
from numpy.typing import NDArray

from corereg.errors import InputError
from corereg.geometry.grid import Grid
from corereg.io.images.companions import as_mask
from corereg.io.images.image import Image, as_image, from_sitk, read_image, read_labels, to_sitk, write_image
from corereg.io.places import ensure_output_folder
from helpers.grids import make_grid
from helpers.images import FLOAT32_MM, ramp, save_nifti

FORMATS = [".nii", ".nii.gz", ".nrrd", ".nhdr", ".mha", ".mhd"]


@pytest.mark.parametrize("suffix", FORMATS)
def test_image_reads_back_with_its_array_and_grid(tmp_path: Path, grid: Grid, suffix: str) -> None:
    write_image(tmp_path / f"scan{suffix}", ramp(grid), grid)
    image = read_image(tmp_path / f"scan{suffix}")
    np.testing.assert_array_equal(image.array, ramp(grid))
    assert image.array.dtype == np.int16
    assert image.grid.close_to(grid, FLOAT32_MM)


@pytest.mark.parametrize("suffix", FORMATS)
def test_written_image_lies_where_simpleitk_sees_it(tmp_path: Path, grid: Grid, suffix: str) -> None:
    write_image(tmp_path / f"scan{suffix}", ramp(grid), grid)
    oracle = SimpleITK.ReadImage(str(tmp_path / f"scan{suffix}"))
    for index in [(0, 0, 0), (11, 0, 0), (0, 15, 0), (0, 0, 19), (3, 7, 12)]:
        lps = oracle.TransformIndexToPhysicalPoint(index)
        np.testing.assert_allclose(np.array(lps) * (-1, -1, 1), grid.to_world(np.array(index)), atol=2e-3)
        assert oracle.GetPixel(index) == ramp(grid)[index]


@pytest.mark.parametrize("suffix", [".nrrd", ".mha", ".nii.gz"])
def test_image_of_simpleitk_is_read_at_its_place(tmp_path: Path, grid: Grid, suffix: str) -> None:
    SimpleITK.WriteImage(to_sitk(ramp(grid), grid), str(tmp_path / f"scan{suffix}"))
    image = read_image(tmp_path / f"scan{suffix}")
    np.testing.assert_array_equal(image.array, ramp(grid))
    assert image.grid.close_to(grid, 2e-3)


def test_conversion_to_simpleitk_and_back_changes_nothing(grid: Grid) -> None:
    array, back = from_sitk(to_sitk(ramp(grid), grid))
    np.testing.assert_array_equal(array, ramp(grid))
    assert back.close_to(grid, 1e-9)


def test_vectors_become_components_of_simpleitk() -> None:
    grid = make_grid(orientation="PIR")
    vectors = np.random.default_rng(0).normal(size=(*grid.shape, 3)).astype(np.float32)
    image = to_sitk(vectors, grid)
    assert image.GetSize() == grid.shape
    np.testing.assert_array_equal(image.GetPixel((3, 7, 12)), vectors[3, 7, 12])


@pytest.mark.parametrize("suffix", [".nii.gz", ".mha"])
def test_series_of_one_frame_is_read_as_a_volume_and_keeps_its_header(tmp_path: Path, suffix: str) -> None:
    grid = make_grid()
    if suffix == ".mha":
        frame = to_sitk(ramp(grid), grid)
        SimpleITK.WriteImage(SimpleITK.JoinSeries([frame]), str(tmp_path / "scan.mha"))
    else:
        save_nifti(tmp_path / "scan.nii.gz", ramp(grid)[..., None], grid.affine)
    image = read_image(tmp_path / f"scan{suffix}")
    np.testing.assert_array_equal(image.array, ramp(grid))
    assert image.grid.close_to(grid, FLOAT32_MM)
    write_image(tmp_path / "out.nii.gz", image.array, image)
    again = nibabel.load(tmp_path / "out.nii.gz")
    assert again.shape == ((*grid.shape, 1) if suffix == ".nii.gz" else grid.shape)
    np.testing.assert_array_equal(np.asarray(again.dataobj).reshape(grid.shape), ramp(grid))


@pytest.mark.parametrize("suffix", FORMATS)
def test_same_array_gives_the_same_bytes(tmp_path: Path, suffix: str) -> None:
    grid = make_grid(orientation="oblique")
    for folder in ("first", "second"):
        write_image(ensure_output_folder(tmp_path / folder) / f"scan{suffix}", ramp(grid), grid)
    first, second = (sorted((tmp_path / folder).iterdir()) for folder in ("first", "second"))
    assert [file.name for file in first] == [file.name for file in second]
    assert [file.read_bytes() for file in first] == [file.read_bytes() for file in second]


@pytest.mark.parametrize(
    ("dtype", "stored"),
    [
        (bool, np.uint8),
        (np.float64, np.float32),
        (np.float16, np.float32),
        (np.uint16, np.uint16),
        (np.int64, np.int16),
        (np.uint64, np.uint8),
    ],
)
@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd"])
def test_array_is_stored_in_a_type_that_every_tool_reads(tmp_path: Path, dtype: Any, stored: Any, suffix: str) -> None:
    grid = make_grid()
    array = (ramp(grid) % 200 - (100 if dtype == np.int64 else 0)).astype(dtype)
    write_image(tmp_path / f"scan{suffix}", array, grid)
    back = read_image(tmp_path / f"scan{suffix}").array
    assert back.dtype == stored
    np.testing.assert_array_equal(back, array.astype(stored))


def test_float64_is_kept_when_asked_for(tmp_path: Path) -> None:
    grid = make_grid()
    write_image(tmp_path / "scan.nii", ramp(grid, np.float64) / 3, grid, keep_float64=True)
    np.testing.assert_array_equal(np.asarray(nibabel.load(tmp_path / "scan.nii").dataobj), ramp(grid, np.float64) / 3)


@pytest.mark.parametrize("affine", [None, np.diag([2.0, 3.0, 4.0, 1.0])])
def test_npz_of_one_array_takes_its_affine_or_warns(tmp_path: Path, affine: NDArray[Any] | None) -> None:
    array = ramp(make_grid())
    if affine is None:
        np.savez(tmp_path / "scan.npz", array)
        with pytest.warns(UserWarning, match="no `affine`, so 1 mm voxels"):
            image = read_image(tmp_path / "scan.npz")
    else:
        np.savez(tmp_path / "scan.npz", scan=array, affine=affine)
        image = read_image(tmp_path / "scan.npz")
    np.testing.assert_array_equal(image.array, array)
    np.testing.assert_array_equal(image.grid.affine, np.eye(4) if affine is None else affine)


def test_radchest_scan_runs_down_back_and_left(tmp_path: Path) -> None:
    np.savez(tmp_path / "trn00001.npz", ct=ramp(make_grid()))
    grid = read_image(tmp_path / "trn00001.npz").grid
    assert grid.orientation == "IPL"
    assert grid.spacing == pytest.approx((0.8, 0.8, 0.8))
    np.testing.assert_allclose(grid.corners_mm().mean(0), 0, atol=1e-9)


def test_labels_of_floats_are_cast_when_all_are_integers(tmp_path: Path) -> None:
    grid = make_grid()
    save_nifti(tmp_path / "labels.nii.gz", (ramp(grid) % 7 - 2).astype(np.float64), grid.affine)
    labels = read_labels(tmp_path / "labels.nii.gz")
    assert labels.array.dtype == np.int16
    np.testing.assert_array_equal(labels.array, ramp(grid) % 7 - 2)


def test_labels_may_all_be_one_organ(tmp_path: Path) -> None:
    write_image(tmp_path / "labels.nrrd", np.full(make_grid().shape, 3, np.uint8), make_grid())
    assert (read_labels(tmp_path / "labels.nrrd").array == 3).all()


def test_mask_is_true_above_zero(tmp_path: Path, grid: Grid) -> None:
    save_nifti(tmp_path / "mask.nii.gz", ramp(grid).astype(np.float32), grid.affine)
    mask = as_mask(tmp_path / "mask.nii.gz", like=grid, of="the fixed image")
    assert mask.array.dtype == bool
    np.testing.assert_array_equal(mask.array, ramp(grid) > 0)


def test_mask_in_memory_counts_like_its_file(grid: Grid) -> None:
    values = ramp(grid).astype(np.float32)
    nifti = nibabel.Nifti1Image(values, grid.affine)
    for source in (
        values,
        values > 0,
        (values > 0).astype(np.uint8),
        to_sitk(values, grid),
        nifti,
        Image(values, grid),
    ):
        mask = as_mask(source, like=grid, of="the fixed image")
        assert mask.array.dtype == bool
        np.testing.assert_array_equal(mask.array, values > 0)


def test_images_in_memory_are_taken_as_they_are(grid: Grid) -> None:
    nifti = nibabel.Nifti1Image(ramp(grid), grid.affine)
    for source in (to_sitk(ramp(grid), grid), nifti, Image(ramp(grid), grid)):
        image = as_image(source)
        np.testing.assert_array_equal(image.array, ramp(grid))
        assert image.grid.close_to(grid, FLOAT32_MM)
    assert as_image(nifti).header is nifti.header


def test_labels_in_memory_are_checked_as_labels() -> None:
    grid = make_grid()
    assert as_image(Image(np.full(grid.shape, 2.0), grid), labels=True).array.dtype == np.uint8
    with pytest.raises(InputError, match="label map of floats"):
        as_image(Image(ramp(grid) / 2, grid), labels=True)


def test_non_finite_voxels_of_a_ct_take_its_minimum_and_are_counted(tmp_path: Path) -> None:
    grid = make_grid()
    array = ramp(grid, np.float32)
    array[1, 2, 3], array[4, 5, 6], array[7, 8, 9] = np.nan, np.inf, -np.inf
    save_nifti(tmp_path / "scan.nii", array, grid.affine)
    with pytest.warns(UserWarning, match="3 NaN or infinite voxels were replaced by -1000"):
        cleaned = read_image(tmp_path / "scan.nii").array
    bad = ~np.isfinite(array)
    assert (cleaned[bad] == -1000).all()
    np.testing.assert_array_equal(cleaned[~bad], array[~bad])


def test_importing_the_module_loads_no_large_library() -> None:
    imports = "import sys, corereg.io.images.image, corereg.io.points.points"
    code = f"{imports}; print({{'torch', 'nibabel', 'SimpleITK'}} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "set()"


def test_an_array_of_booleans_becomes_an_image_of_numbers() -> None:
    grid = make_grid()
    image = as_image(ramp(grid) > ramp(grid).mean(), affine=grid.affine)
    assert image.array.dtype == np.uint8
    assert set(np.unique(image.array)) == {0, 1}
