"""Pixels as stored and as compressed, with GDCM's own reading as the oracle."""

from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK

from corereg.io.images.image import read_image
from helpers.dicom import SERIES, write_dicom, write_enhanced, write_slices
from helpers.grids import make_grid
from helpers.images import ramp
from helpers.refusals import refusal

DEPTHS_MM = np.arange(9) * 3.0
SCAN = ramp(make_grid(shape=(12, 16, 9)))


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16, np.int16, np.uint32, np.int32])
def test_integers_of_every_size_are_read(tmp_path: Path, dtype: type) -> None:
    stored = (SCAN % 120).astype(dtype)
    write_slices(tmp_path, stored, DEPTHS_MM)
    image = read_image(tmp_path)
    assert image.array.dtype == dtype
    np.testing.assert_array_equal(image.array, stored)


def test_unused_high_bits_do_not_count(tmp_path: Path) -> None:
    twelve = (SCAN + 1000).astype(np.uint16) % 4096
    tags = {"BitsStored": 12, "HighBit": 11}
    write_slices(tmp_path, twelve | (5 << 12), DEPTHS_MM, tags=lambda k: tags)
    np.testing.assert_array_equal(read_image(tmp_path).array, twelve)


def test_slices_of_both_signs_are_read_by_their_own(tmp_path: Path) -> None:
    signed, unsigned = SCAN[:, :, :5], np.abs(SCAN[:, :, 5:]).astype(np.uint16) + 40000
    write_slices(tmp_path / "a", signed, DEPTHS_MM[:5])
    write_slices(tmp_path / "b", unsigned, DEPTHS_MM[5:])
    expected = np.concatenate([signed, unsigned.astype(np.int32)], 2)
    np.testing.assert_array_equal(read_image(tmp_path).array, expected)


@pytest.mark.parametrize("compressor", ["JPEG", "JPEG2000"])
@pytest.mark.parametrize("enhanced", [False, True])
def test_compressed_pixels_are_read_and_rescaled(tmp_path: Path, compressor: str, enhanced: bool) -> None:
    stored = (SCAN + 1024).astype(np.uint16)
    slopes = [1 + 0.5 * (k % 2) for k in range(9)]
    if enhanced:
        frames = [compressed(stored[:, :, k], tmp_path / f"{k}.dcm", compressor) for k in range(9)]
        path = write_enhanced(tmp_path / "scan" / "EN.dcm", stored, DEPTHS_MM, slopes=slopes)
        data = pydicom.dcmread(path)
        data.PixelData = pydicom.encaps.encapsulate([fragment for _, fragment in frames])
        data["PixelData"].VR = "OB"
        data.file_meta.TransferSyntaxUID = frames[0][0]
        data.save_as(path)
    else:
        for k in range(9):
            syntax, fragment = compressed(stored[:, :, k], tmp_path / f"{k}.dcm", compressor)
            place = {"ImagePositionPatient": [0, 0, 3 * k], "ImageOrientationPatient": [1, 0, 0, 0, 1, 0]}
            path = write_dicom(
                tmp_path / "scan" / f"{k}.dcm",
                np.ascontiguousarray(stored[:, :, k].T),
                PixelSpacing=[1.5, 2],
                RescaleSlope=slopes[k],
                RescaleIntercept=-1024,
                **place,
            )
            data = pydicom.dcmread(path)
            data.PixelData = pydicom.encaps.encapsulate([fragment])
            data["PixelData"].VR = "OB"
            data.file_meta.TransferSyntaxUID = syntax
            data.save_as(path)
    np.testing.assert_allclose(read_image(tmp_path / "scan").array, stored * np.array(slopes) - 1024)


def compressed(plane: np.ndarray, path: Path, compressor: str) -> tuple[str, bytes]:
    """Transfer syntax and bit stream of one slice (I, J), losslessly by GDCM."""
    writer = SimpleITK.ImageFileWriter()
    writer.SetImageIO("GDCMImageIO")
    writer.UseCompressionOn()
    writer.SetCompressor(compressor)
    writer.SetFileName(str(path))
    writer.Execute(SimpleITK.GetImageFromArray(np.ascontiguousarray(plane.T)[None]))
    data = pydicom.dcmread(path)
    return data.file_meta.TransferSyntaxUID, next(pydicom.encaps.generate_frames(data.PixelData, number_of_frames=1))


def test_series_without_readable_pixels_is_refused(tmp_path: Path) -> None:
    write_slices(tmp_path, SCAN, DEPTHS_MM, tags=lambda k: {"PixelData": b"\0" * 10})
    message = refusal(read_image, tmp_path)
    assert f"series {SERIES}" in message
    assert "pixels cannot be read" in message


def test_frames_that_do_not_fit_into_the_memory_are_refused_before_they_are_read(tmp_path: Path) -> None:
    huge = {"Rows": 65535, "Columns": 65535}
    write_slices(tmp_path, SCAN, DEPTHS_MM, tags=lambda k: huge)
    assert "155 GB" in refusal(read_image, tmp_path)
