"""Slices in order and in their places, however their headers are rounded, spaced and sorted."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from corereg.io.images.image import Image, read_image
from helpers.dicom import write_enhanced, write_series, write_slices
from helpers.grids import make_grid
from helpers.images import ramp
from helpers.refusals import refusal

COUNT, STEP_MM = 20, 3.0
DEPTHS_MM = np.arange(COUNT) * STEP_MM


def content(depths_mm: Any) -> Any:
    """(I, J, K), rising with depth, another value at each pixel."""
    plane = np.arange(12 * 16).reshape(12, 16, 1)
    return (plane + 10 * np.asarray(depths_mm)).astype(np.int16)


def assert_whole(image: Image) -> None:
    np.testing.assert_array_equal(image.array, content(DEPTHS_MM))
    z = image.grid.to_world([[0, 0, 0], [0, 0, COUNT - 1]])[:, 2]
    np.testing.assert_allclose(z, [0, 57], atol=1e-6)


@pytest.mark.parametrize(
    "tags",
    [
        lambda k: {"PixelSpacing": [1.5, 2] if k < 12 else [1.500001, 1.99999]},
        lambda k: {"SpacingBetweenSlices": 3 if k < 12 else 3.00001},
        lambda k: {"SliceThickness": 3 if k % 2 else 2.9999},
        lambda k: {"ImageOrientationPatient": [1, 0.000499 if k % 3 else 0.000501, 0, -0.0005, 1, 0]},
    ],
    ids=["pixel spacing", "spacing between slices", "thickness", "cosines"],
)
def test_rounded_headers_lose_no_slice(tmp_path: Path, tags: Any) -> None:
    write_slices(tmp_path, content(DEPTHS_MM), DEPTHS_MM, tags=tags)
    assert_whole(read_image(tmp_path))


def test_other_pixel_spacing_is_another_stack_and_reported(tmp_path: Path) -> None:
    zoomed = lambda k: {"PixelSpacing": [1.5, 2] if k < 12 else [1.6, 2]}  # noqa: E731
    write_slices(tmp_path, content(DEPTHS_MM), DEPTHS_MM, tags=zoomed)
    with pytest.warns(UserWarning, match="8 slices were left out, whose size or pixel spacing differs"):
        image = read_image(tmp_path)
    np.testing.assert_array_equal(image.array, content(DEPTHS_MM[:12]))
    assert "8 slices" in image.remarks[0]


def test_frames_of_an_enhanced_file_are_sorted_by_position(tmp_path: Path) -> None:
    order = np.random.default_rng(0).permutation(COUNT).tolist()
    write_enhanced(tmp_path / "a" / "EN.dcm", content(DEPTHS_MM), DEPTHS_MM)
    write_enhanced(tmp_path / "b" / "EN.dcm", content(DEPTHS_MM), DEPTHS_MM, order=order)
    ordered, shuffled = read_image(tmp_path / "a"), read_image(tmp_path / "b")
    np.testing.assert_array_equal(shuffled.array, ordered.array)
    np.testing.assert_array_equal(ordered.array, content(DEPTHS_MM) - 1024)
    np.testing.assert_allclose(np.diag(shuffled.grid.affine)[:3], (-2, -1.5, 3))
    assert shuffled.grid == ordered.grid


def test_each_frame_of_an_enhanced_file_has_its_own_rescale(tmp_path: Path) -> None:
    slopes = [1 + 0.25 * (k % 4) for k in range(COUNT)]
    write_enhanced(tmp_path / "EN.dcm", content(DEPTHS_MM), DEPTHS_MM, slopes=slopes)
    expected = content(DEPTHS_MM) * np.array(slopes) - 1024
    np.testing.assert_allclose(read_image(tmp_path).array, expected, rtol=1e-6)


@pytest.mark.parametrize("enhanced", [False, True])
def test_two_missing_slices_are_interpolated_and_reported(tmp_path: Path, enhanced: bool) -> None:
    depths = np.delete(DEPTHS_MM, [7, 8])
    if enhanced:
        write_enhanced(tmp_path / "EN.dcm", content(depths) + 1024, depths)
    else:
        write_slices(tmp_path, content(depths), depths)
    with pytest.warns(UserWarning, match="about 2 slices may be missing"):
        image = read_image(tmp_path)
    assert_whole(image)


@pytest.mark.parametrize("enhanced", [False, True])
def test_larger_gap_is_refused(tmp_path: Path, enhanced: bool) -> None:
    depths = np.delete(DEPTHS_MM, [7, 8, 9])
    if enhanced:
        write_enhanced(tmp_path / "EN.dcm", content(depths), depths)
    else:
        write_slices(tmp_path, content(depths), depths)
    assert "12 mm between two slices where 3 mm are usual" in refusal(read_image, tmp_path)


@pytest.mark.parametrize(
    ("depths", "last"),
    [
        ([*np.arange(0, 30, 3.0), *np.arange(33, 90, 6.0)], 87),
        ([*np.arange(0, 30, 3.0), *np.arange(16, 46, 3.0)], 43),
        ([*np.arange(0, 30, 3.0), 31.3, 34.9, 36, 39, 42], 42),
    ],
    ids=["steps of two sizes", "two passes that overlap", "jitter"],
)
def test_unequal_steps_are_resampled_to_true_positions(tmp_path: Path, depths: list[float], last: float) -> None:
    write_slices(tmp_path, content(depths), depths)
    with pytest.warns(UserWarning, match="interpolated at their true positions"):
        image = read_image(tmp_path)
    z = image.grid.to_world(np.stack([np.zeros(image.array.shape[2])] * 2 + [np.arange(image.array.shape[2])], 1))[:, 2]
    assert (z[0], z[-1]) == (pytest.approx(0), pytest.approx(last))
    assert z[1] - z[0] <= 3.001
    plane = np.arange(12 * 16).reshape(12, 16, 1)
    np.testing.assert_allclose(image.array, plane + 10 * z, atol=0.51)  # linear in depth, but for its integers


def test_slices_off_the_line_of_the_others_are_refused(tmp_path: Path) -> None:
    aside = lambda k: {"ImagePositionPatient": [-30 + 5 * (k == 8), -20, float(DEPTHS_MM[k])]}  # noqa: E731
    write_slices(tmp_path, content(DEPTHS_MM), DEPTHS_MM, tags=aside)
    assert "5 mm off the line of the others" in refusal(read_image, tmp_path)


@pytest.mark.parametrize(("tag", "values"), [("AcquisitionNumber", (1, 2)), ("EchoTime", (2.5, 5.0))])
def test_two_phases_in_one_series_are_refused_with_what_tells_them_apart(
    tmp_path: Path, tag: str, values: tuple[float, float]
) -> None:
    twice = np.repeat(DEPTHS_MM, 2)
    write_slices(tmp_path, content(twice), twice, tags=lambda k: {tag: values[k % 2]})
    message = refusal(read_image, tmp_path)
    assert "20 of 40 slices at the position of another" in message
    assert f"they differ in {tag}: {values[0]}, {values[1]}" in message


def test_slices_that_share_one_instance_uid_all_count(tmp_path: Path) -> None:
    write_slices(tmp_path, content(DEPTHS_MM), DEPTHS_MM, tags=lambda k: {"SOPInstanceUID": "1.2.3"})
    assert_whole(read_image(tmp_path))


def test_tilt_of_an_irregular_series_is_kept(tmp_path: Path) -> None:
    grid = make_grid(orientation="LPS")
    tilt = np.array([0.0, 0.6, 0.0])
    write_series(tmp_path / "a", ramp(grid), grid, skip=(7,), shift_mm=lambda k: tilt * k)
    with pytest.warns(UserWarning, match=r"interpolated|tilted gantry") as caught:
        image = read_image(tmp_path / "a")
    assert len(caught) == 2
    np.testing.assert_allclose(image.array, ramp(grid), atol=1e-3)
    np.testing.assert_allclose(image.grid.affine[:3, 2], grid.affine[:3, 2] + (0, -0.6, 0), atol=1e-4)


@pytest.mark.parametrize("kind", ["d2_pixelspacing", "d3_cosines", "e1_mr_sbs"])
def test_shared_rounded_folders_are_whole(cases_dir: Path, kind: str) -> None:
    image = read_image(cases_dir / "dicom" / kind)
    assert image.array.shape == (24, 32, 20)
    np.testing.assert_allclose(image.grid.to_world([[0, 0, 0], [0, 0, 19]])[:, 2], [0, 57], atol=1e-3)


def test_shared_enhanced_files_are_sorted_and_rescaled(cases_dir: Path) -> None:
    up, shuffled, rescaled = (
        read_image(cases_dir / "dicom" / f"d7_enh_{kind}") for kind in ("up", "shuffled", "rescale")
    )
    np.testing.assert_array_equal(shuffled.array, up.array)
    assert shuffled.grid == up.grid
    assert rescaled.array.max() == pytest.approx(4027.8)
    assert "12 mm between two slices" in refusal(read_image, cases_dir / "dicom" / "d7_enh_gap")
