"""Which series of a folder is read, and what is said about it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from corereg.io.images.image import read_image
from helpers.dicom import CAPTURE, DOSE, SEGMENTATION, SERIES, functional_group, right_handed, write_dicom, write_slices
from helpers.grids import make_grid
from helpers.images import ramp
from helpers.refusals import refusal

SCAN = ramp(make_grid(shape=(12, 16, 9)))
DEPTHS_MM = np.arange(9) * 3.0
OTHER = f"{SERIES}.77"

BLOCKS: NDArray[Any] = np.arange(30 * 16 * 12, dtype=np.uint16).reshape(30, 16, 12)
"""More frames than the scan has."""

PLACE = {
    "ImagePositionPatient": [-30, -20, 0],
    "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
    "PixelSpacing": [1.5, 2],
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_slices(tmp_path / "scan", SCAN, DEPTHS_MM)
    return tmp_path


def segmentation(folder: Path) -> Path:
    return write_dicom(
        folder / "other.dcm",
        (BLOCKS % 2).astype(np.uint8),
        SOPClassUID=SEGMENTATION,
        Modality="SEG",
        SeriesInstanceUID=OTHER,
        SharedFunctionalGroupsSequence=[functional_group()],
        PerFrameFunctionalGroupsSequence=[functional_group((-30, -20, 3.0 * k)) for k in range(len(BLOCKS))],
    )


def dose(folder: Path) -> Path:
    offsets = [2.0 * k for k in range(len(BLOCKS))]
    tags = {"GridFrameOffsetVector": offsets, "DoseGridScaling": 0.01, "SpacingBetweenSlices": 7, **PLACE}
    return write_dicom(
        folder / "other.dcm", BLOCKS, SOPClassUID=DOSE, Modality="RTDOSE", SeriesInstanceUID=OTHER, **tags
    )


def screenshot(folder: Path) -> Path:
    tags = {"SOPClassUID": CAPTURE, "Modality": "OT", "SeriesInstanceUID": OTHER}
    return write_dicom(folder / "other.dcm", np.full((300, 400), 7, np.uint16), **tags)


def screenshots_with_a_place(folder: Path) -> Path:
    for k in range(len(BLOCKS)):
        place = PLACE | {"ImagePositionPatient": [-30, -20, k]}
        tags = {"SOPClassUID": CAPTURE, "Modality": "CT", "SeriesInstanceUID": OTHER}
        write_dicom(folder / "other" / f"{k}.dcm", BLOCKS[k], **tags, **place)
    return folder / "other"


def colour(folder: Path) -> Path:
    for k in range(len(BLOCKS)):
        place = PLACE | {"ImagePositionPatient": [-30, -20, k]}
        write_dicom(folder / "other" / f"{k}.dcm", np.zeros((30, 40, 3), np.uint8), SeriesInstanceUID=OTHER, **place)
    return folder / "other"


@pytest.mark.parametrize("make", [segmentation, dose, screenshot, screenshots_with_a_place, colour])
def test_scan_is_read_whatever_else_is_in_the_folder(folder: Path, make: Any) -> None:
    make(folder)
    image = read_image(folder)
    np.testing.assert_array_equal(image.array, SCAN)
    assert (image.series, image.modality) == (SERIES, "CT")
    (remark,) = image.remarks
    assert f"read the series {SERIES} (CT, 9 slices of 12 x 16), not {OTHER}" in remark


def test_single_series_needs_no_remark(folder: Path) -> None:
    assert read_image(folder).remarks == ()


def test_dose_is_read_at_its_offsets_when_it_is_named(folder: Path) -> None:
    dose(folder)
    image = read_image(folder, series=OTHER)
    np.testing.assert_allclose(image.array, BLOCKS.T * 0.01, rtol=1e-6)
    np.testing.assert_allclose(np.diag(image.grid.affine)[:3], (-2, -1.5, 2))


def test_longest_series_is_read_whatever_its_pixels(folder: Path) -> None:
    wide = np.zeros((40, 50, 8), np.int16)
    write_slices(folder / "wide", wide, DEPTHS_MM[:8], tags=lambda k: {"SeriesInstanceUID": OTHER})
    assert read_image(folder).series == SERIES


def test_equal_series_are_refused_until_one_is_chosen(folder: Path) -> None:
    tags = {"SeriesInstanceUID": OTHER, "SeriesDescription": "venous"}
    write_slices(folder / "venous", SCAN + 1, DEPTHS_MM, tags=lambda k: tags)
    message = refusal(read_image, folder)
    assert "2 equally large series" in message
    assert f"{SERIES} (CT, 9 slices of 12 x 16)" in message
    assert f"{OTHER} (CT, venous, 9 slices of 12 x 16)" in message
    assert "--fixed-series" in message
    np.testing.assert_array_equal(read_image(folder, series=OTHER).array, SCAN + 1)


def test_two_equal_orientations_in_one_series_are_refused(folder: Path) -> None:
    grid = right_handed("LSA")
    lps = (np.diag([-1, -1, 1, 1]) @ grid.affine)[:3, :3] / grid.spacing
    cosines = [float(value) for value in (*lps[:, 0], *lps[:, 1])]
    write_slices(
        folder / "coronal",
        SCAN,
        DEPTHS_MM,
        tags=lambda k: {"ImageOrientationPatient": cosines, "ImagePositionPatient": [0, float(DEPTHS_MM[k]), 0]},
    )
    assert "export one orientation alone" in refusal(read_image, folder)


def test_folder_of_a_segmentation_alone_says_what_it_holds(tmp_path: Path) -> None:
    segmentation(tmp_path)
    assert f"{OTHER} (SEG, a segmentation object)" in refusal(read_image, tmp_path)


def test_segmentation_that_is_named_is_refused_as_no_image(folder: Path) -> None:
    segmentation(folder)
    assert "is no image" in refusal(read_image, folder, series=OTHER)


def test_unknown_series_is_refused_with_those_that_are_there(folder: Path) -> None:
    assert f"expected one of {SERIES} (CT, 9 slices of 12 x 16)" in refusal(read_image, folder, series="1.2.3")


@pytest.mark.parametrize(("kind", "chosen"), [("d4_seg", 20), ("d5_dose", 20), ("d6_screenshot", 20), ("d6b_rgb", 20)])
def test_shared_folders_give_their_scan(cases_dir: Path, kind: str, chosen: int) -> None:
    plain = read_image(cases_dir / "dicom" / "d0_plain")
    image = read_image(cases_dir / "dicom" / kind)
    assert image.array.shape[2] == chosen
    np.testing.assert_array_equal(image.array, plain.array)
    assert image.grid == plain.grid


def test_shared_folder_of_two_phases_asks(cases_dir: Path) -> None:
    assert "2 equally large series" in refusal(read_image, cases_dir / "dicom" / "d9_two")
