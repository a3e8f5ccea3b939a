"""Values of label maps and backgrounds, at the limits of what is taken for whole or for CT."""

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from numpy.typing import NDArray

from corereg.io.images.background import background_value
from corereg.io.images.companions import as_mask
from corereg.io.images.image import Image, as_image, read_image, read_labels, write_image
from corereg.io.images.reference import as_reference
from helpers.grids import make_grid
from helpers.images import FLOAT32_MM, ramp, save_nifti
from helpers.refusals import refusal

GRID = make_grid(orientation="oblique")
LABELS = np.array([0, 3, 12, 7015])[np.arange(np.prod(GRID.shape)).reshape(GRID.shape) % 4]


def scaled(path: Path, values: NDArray[Any], slope: float, intercept: float) -> Path:
    """int16 of which a header makes approximately the values, as some exporters store label maps."""
    stored = np.rint((values - intercept) / slope).astype(np.int16)
    return save_nifti(path, stored, GRID.affine, scl_slope=slope, scl_inter=intercept)


def test_labels_of_scaled_integers_are_rounded(tmp_path: Path) -> None:
    path = scaled(tmp_path / "labels.nii", LABELS, 0.10704203695058823, 3507.553466796875)
    labels = read_labels(path)
    assert labels.array.dtype == np.int16
    np.testing.assert_array_equal(labels.array, LABELS)
    np.testing.assert_array_equal(as_image(nibabel.load(path), labels=True).array, LABELS)


def test_scaling_too_coarse_for_labels_is_refused(tmp_path: Path) -> None:
    assert "label map of floats" in refusal(read_labels, scaled(tmp_path / "labels.nii", LABELS, 0.7, 0.1))


def test_mask_of_scaled_integers_is_empty_where_it_rounds_to_0(tmp_path: Path) -> None:
    path = scaled(tmp_path / "mask.nii", LABELS, 0.1070420, 3507.5534)
    np.testing.assert_array_equal(as_mask(path, like=GRID, of="the scan").array, LABELS > 0)


@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd"])
def test_ids_beyond_32_bits_are_kept(tmp_path: Path, suffix: str) -> None:
    huge = np.where(LABELS == 12, 3_000_000_000, LABELS)
    write_image(tmp_path / f"labels{suffix}", huge, GRID)
    np.testing.assert_array_equal(read_labels(tmp_path / f"labels{suffix}").array, huge)


def test_ids_beyond_64_bits_are_refused() -> None:
    assert "at most 64 bits" in refusal(as_image, Image(LABELS * 1e18, GRID), labels=True)


@pytest.mark.parametrize("labels", [True, False])
def test_blank_images_are_refused_unless_they_are_accepted(labels: bool) -> None:
    blank = Image(np.zeros(GRID.shape, np.uint8), GRID)
    refusal(as_image, blank, labels=labels)
    assert not as_image(blank, labels=labels, blank=True).array.any()


def signed_map(seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(0, 3.5, GRID.shape).astype(np.float32)


def ct(seed: int = 0) -> NDArray[np.int16]:
    """A body in air, with its noise."""
    body = np.zeros(GRID.shape, bool)
    body[3:9, 4:12, 2:18] = True
    return (np.where(body, 40, -1000) + np.random.default_rng(seed).normal(0, 15, GRID.shape)).astype(np.int16)


@pytest.mark.parametrize(
    ("array", "value"),
    [
        (ct(), ct().min()),
        (ct().astype(np.float32), ct().min()),
        (np.where(np.arange(20) < 4, -3024, ct()), -3024),
        ((ct() + 1024).astype(np.uint16), 0),
        (signed_map(), 0),
        (signed_map() * 1000, 0),
        (np.where(LABELS == 3, -321, 4000 + LABELS), 0),
        (np.abs(signed_map()) + 7, 0),
    ],
    ids=["CT", "float CT", "padded CT", "CT + 1024", "signed map", "phase map", "MR with an overshoot", "positive"],
)
def test_background_is_the_air_of_a_ct_and_0_elsewhere(array: NDArray[Any], value: float) -> None:
    if "overshoot" in str(value):
        array[0, 0, 0] = -321
    assert background_value(array) == value


def test_modality_that_dicom_states_decides_about_the_background() -> None:
    assert background_value(signed_map(), "CT") == signed_map().min()
    assert background_value(ct(), "MR") == 0


def test_one_negative_voxel_does_not_make_a_ct() -> None:
    mr = np.abs(signed_map()) * 500
    mr[2, 3, 4] = -321
    assert background_value(mr) == 0


def test_nan_background_of_a_signed_map_becomes_0_and_is_counted(tmp_path: Path) -> None:
    array = signed_map()
    array[:3] = np.nan
    path = save_nifti(tmp_path / "map.nii", array, GRID.affine)
    with pytest.warns(UserWarning, match="960 NaN or infinite voxels were replaced by 0"):
        image = read_image(path)
    np.testing.assert_array_equal(image.array, np.nan_to_num(array))


@pytest.mark.parametrize("kind", ["3-D", "4-D", "empty", "nrrd", "4-D mha", "nibabel", "SimpleITK"])
def test_only_the_grid_of_a_reference_counts(tmp_path: Path, kind: str) -> None:
    import SimpleITK

    from corereg.io.images.image import to_sitk

    joined = SimpleITK.JoinSeries([to_sitk(ramp(GRID), GRID)] * 2)
    series = nibabel.Nifti1Image(np.stack([ramp(GRID)] * 2, -1), GRID.affine)
    source: Any = tmp_path / "ref.nii"
    if kind == "3-D":
        write_image(source, ramp(GRID), GRID)
    elif kind == "4-D":
        series.to_filename(source)
    elif kind == "empty":
        write_image(source, np.zeros(GRID.shape, np.uint8), GRID)
    elif kind in ("nrrd", "4-D mha"):
        source = tmp_path / ("ref.nrrd" if kind == "nrrd" else "ref.mha")
        SimpleITK.WriteImage(joined if kind == "4-D mha" else to_sitk(ramp(GRID), GRID), str(source))
    else:
        source = series if kind == "nibabel" else joined
    reference = as_reference(source)
    assert isinstance(reference, Image)
    assert reference.grid.close_to(GRID, FLOAT32_MM)
    assert reference.array.shape == GRID.shape
    if reference.header is not None:
        assert reference.header["dim"].tolist() == [3, *GRID.shape, 1, 1, 1, 1]


@pytest.mark.filterwarnings("ignore:.*NaN or infinite")
def test_shared_label_maps_are_read(cases_dir: Path) -> None:
    folder = cases_dir / "labels"
    assert np.unique(read_labels(folder / "scaled_int16.nii.gz").array).tolist() == [0, 3, 12, 7015]
    assert read_labels(folder / "huge_int64.nii.gz").array.max() == 3_000_000_000
    assert not as_image(folder / "empty.nii.gz", labels=True, blank=True).array.any()
    assert background_value(read_image(folder / "stat.nii.gz").array) == 0
    assert (read_image(folder / "nan_map.nii.gz").array == 0).sum() >= 672


GREYS = "change from voxel to voxel"


@pytest.mark.parametrize("kind", ["int16", "8 bits", "whole floats", "CT in air"])
def test_scan_that_is_given_as_a_label_map_is_noticed(tmp_path: Path, kind: str) -> None:
    body = np.random.default_rng(0).normal(900, 60, (30, 28, 26))
    air = -1024 if kind == "CT in air" else 0
    body[:9] = air
    array = np.rint(body / 5 if kind == "8 bits" else body)
    dtype = {"8 bits": np.uint8, "whole floats": np.float32}.get(kind, np.int16)
    write_image(tmp_path / "scan.nii.gz", array.astype(dtype), make_grid(array.shape))
    with pytest.warns(UserWarning, match=rf"scan.nii.gz with \d+ different values that {GREYS}"):
        read_labels(tmp_path / "scan.nii.gz")


@pytest.mark.parametrize("kind", ["parcels", "supervoxels", "landmarks", "two that touch", "outlines"])
def test_many_labels_of_a_label_map_are_none(kind: str) -> None:
    """Warnings are errors in tests."""
    i, j, k = np.indices((36, 30, 33))
    if kind == "parcels":  # FreeSurfer's numbers
        array = 11100 + (i // 6 + 7 * (j // 6) + 37 * (k // 6))
    elif kind == "supervoxels":  # 1,320 of 3 x 3 x 3 voxels
        array = 1 + i // 3 + 12 * (j // 3) + 120 * (k // 3)
    elif kind == "landmarks":  # single voxels
        array = np.where((i % 4 == 0) & (j % 4 == 1) & (k % 4 == 2), 1 + i + 36 * j + 36 * 30 * k, 0)
    elif kind == "two that touch":
        array = np.where((i % 4 == 0) & (j % 4 == 1) & (k % 4 == 2), 1 + i + 36 * j + 36 * 30 * k, 0)
        array[0, 1, 3] = 7
    else:  # one plane of every third
        array = np.where(k % 3 == 0, 1 + k + 33 * (i // 5), 0)
    assert len(np.unique(array)) > 70
    as_image(Image(array, make_grid(array.shape)), labels=True)
