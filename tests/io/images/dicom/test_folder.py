"""DICOM folders, written by GDCM and read back as volumes. SimpleITK's own reader is the oracle."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK

from corereg.io.images.image import read_image, write_image
from helpers.dicom import SERIES, right_handed, write_series
from helpers.grids import make_grid
from helpers.images import ramp
from helpers.refusals import refusal

DECIMALS_MM = 1e-4
"""DICOM writes positions as decimal strings of at most 16 characters."""


@pytest.mark.parametrize("orientation", ["RAS", "LPS", "PIR", "oblique"])
def test_series_is_read_in_hounsfield_units_at_its_place(tmp_path: Path, orientation: str) -> None:
    grid = right_handed(orientation)
    write_series(tmp_path / "study" / "series", ramp(grid), grid)
    (tmp_path / "study" / "DICOMDIR.txt").write_text("not an image")
    image = read_image(tmp_path)
    np.testing.assert_array_equal(image.array, ramp(grid))
    assert image.grid.close_to(grid, DECIMALS_MM)
    names = SimpleITK.ImageSeriesReader.GetGDCMSeriesFileNames(str(tmp_path / "study" / "series"))
    oracle = SimpleITK.ReadImage(names)
    index = (3, 7, 12)
    lps = np.array(oracle.TransformIndexToPhysicalPoint(index))
    np.testing.assert_allclose(image.grid.to_world(np.array(index)), lps * (-1, -1, 1), atol=DECIMALS_MM)
    assert oracle.GetPixel(index) == image.array[index]


def test_series_becomes_a_nifti_file_at_the_same_place(tmp_path: Path) -> None:
    grid = right_handed("oblique")
    write_series(tmp_path / "series", ramp(grid), grid)
    image = read_image(tmp_path / "series")
    write_image(tmp_path / "scan.nii.gz", image.array, image)
    assert read_image(tmp_path / "scan.nii.gz").grid.close_to(grid, DECIMALS_MM)


def test_largest_series_is_read_unless_another_is_named(tmp_path: Path) -> None:
    large, small = make_grid(orientation="LPS"), make_grid(shape=(12, 16, 5), orientation="LPS")
    write_series(tmp_path / "a", ramp(small), small, series=f"{SERIES}.77")
    write_series(tmp_path / "b", ramp(large), large)
    assert read_image(tmp_path).array.shape == large.shape
    assert read_image(tmp_path, series=f"{SERIES}.77").array.shape == small.shape


def test_localiser_in_the_same_series_is_left_out(tmp_path: Path) -> None:
    axial, coronal = make_grid(orientation="LPS"), right_handed("LSA")
    write_series(tmp_path / "a", ramp(coronal), coronal, skip=tuple(range(2, 20)))
    write_series(tmp_path / "b", ramp(axial), axial)
    assert read_image(tmp_path).grid.close_to(axial, DECIMALS_MM)


def test_slice_that_lies_there_twice_counts_once(tmp_path: Path) -> None:
    grid = make_grid(orientation="LPS")
    write_series(tmp_path / "a", ramp(grid), grid)
    shutil.copytree(tmp_path / "a", tmp_path / "copy")
    np.testing.assert_array_equal(read_image(tmp_path).array, ramp(grid))


def test_each_slice_is_rescaled_by_its_own_slope(tmp_path: Path) -> None:
    grid = make_grid(orientation="LPS")
    slope = np.where(np.arange(20) < 10, 1, 0.5)
    write_series(tmp_path / "a", ramp(grid), grid, slope=lambda k: slope[k])
    image = read_image(tmp_path / "a")
    assert image.array.dtype == np.float32
    np.testing.assert_array_equal(image.array, (ramp(grid, np.float64) + 1024) * slope - 1024)


def test_tilted_gantry_gives_a_sheared_grid_and_is_reported(tmp_path: Path) -> None:
    grid = make_grid(orientation="LPS")
    tilt = np.array([0.0, 0.6, 0.0])
    write_series(tmp_path / "a", ramp(grid), grid, shift_mm=lambda k: tilt * k)
    with pytest.warns(UserWarning, match=r"shifted sideways by 11.3 degrees \(tilted gantry\)"):
        image = read_image(tmp_path / "a")
    np.testing.assert_array_equal(image.array, ramp(grid))
    np.testing.assert_allclose(image.grid.affine[:3, 2], grid.affine[:3, 2] + (0, -0.6, 0), atol=DECIMALS_MM)


def test_series_of_one_slice_is_refused(tmp_path: Path) -> None:
    grid = make_grid(orientation="LPS")
    write_series(tmp_path / "a", ramp(grid), grid, skip=tuple(range(1, 20)))
    assert "single slice" in refusal(read_image, tmp_path / "a")


def test_damaged_slice_is_left_out_and_reported(tmp_path: Path) -> None:
    grid = make_grid(shape=(12, 16, 5), orientation="LPS")
    write_series(tmp_path / "a", ramp(grid), grid)
    file = min((tmp_path / "a").iterdir())
    file.write_bytes(file.read_bytes()[:-200])
    with pytest.warns(UserWarning, match="damaged slices were left out: 1, the first of them IM0000"):
        image = read_image(tmp_path / "a")
    np.testing.assert_array_equal(image.array, ramp(grid)[:, :, 1:])


def test_file_that_pydicom_cannot_read_is_reported(tmp_path: Path) -> None:
    grid = make_grid(shape=(12, 16, 5), orientation="LPS")
    write_series(tmp_path / "a", ramp(grid), grid)
    (tmp_path / "a" / "broken.dcm").write_bytes(bytes(128) + b"DICM" + b"\xff" * 99)
    with pytest.warns(UserWarning, match="damaged DICOM files were left out: 1, the first of them broken.dcm"):
        np.testing.assert_array_equal(read_image(tmp_path / "a").array, ramp(grid))


def test_folder_with_a_name_that_is_not_utf8_is_read(tmp_path: Path) -> None:
    grid = make_grid(shape=(12, 16, 5), orientation="LPS")
    write_series(tmp_path / "a", ramp(grid), grid)
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xe9tude"))
    (tmp_path / "a").rename(odd)
    np.testing.assert_array_equal(read_image(odd).array, ramp(grid))


def test_notes_of_macos_are_no_slices(tmp_path: Path) -> None:
    grid = make_grid(shape=(12, 16, 5), orientation="LPS")
    write_series(tmp_path, ramp(grid), grid)
    shutil.copy(min(tmp_path.iterdir()), tmp_path / "._IM0000")
    (tmp_path / "._IM0007").write_bytes(bytes(128) + b"DICM\xff\xff")
    np.testing.assert_array_equal(read_image(tmp_path).array, ramp(grid))
