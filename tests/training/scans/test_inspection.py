"""Inspection of the scans of a cohort."""

import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from corereg.data.pairs import read_dataset
from corereg.data.phantom import make_subject
from corereg.geometry.grid import Grid
from corereg.io.images.image import write_image
from corereg.training.scans.inspection import looks_like_labels
from helpers.dicom import right_handed, write_series
from helpers.images import ramp
from helpers.refusals import refusal
from helpers.scenes import scan
from helpers.volumes import GRID, cohort, prepared


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-300])


def constant(path: Path) -> None:
    write_image(path, np.full(GRID.shape, 7, np.int16), GRID)


def all_nan(path: Path) -> None:
    write_image(path, np.full(GRID.shape, np.nan, np.float32), GRID)


def labels(path: Path) -> None:
    write_image(path, (scan(GRID).array > 0).astype(np.uint8), GRID)


def ten_times_too_large(path: Path) -> None:
    write_image(path, scan(GRID).array, Grid(GRID.shape, np.diag([10.0, 10.0, 10.0, 1.0]) @ GRID.affine))


def gone(path: Path) -> None:
    path.unlink()


def no_contrast(path: Path) -> None:
    """Air of all kinds: below the window of a CT everywhere."""
    write_image(path, -1500 + np.arange(np.prod(GRID.shape)).reshape(GRID.shape).astype(np.int16) % 400, GRID)


@pytest.mark.filterwarnings("ignore:.*could be a CT or an MR")
@pytest.mark.parametrize(
    ("spoil", "reported"),
    [
        (truncated, "cut short or damaged"),
        (constant, "all equal 7"),
        (all_nan, "without a single finite voxel"),
        (labels, "looks like a label map"),
        (ten_times_too_large, "at most 4 times more or less"),
        (gone, "cannot be read"),
        (no_contrast, "without contrast"),
    ],
)
def test_scan_that_cannot_be_used_is_left_out_with_a_reason(
    tmp_path: Path, opened: Counter[str], spoil: Callable[[Path], None], reported: str
) -> None:
    dataset = cohort(tmp_path / "scans", [GRID] * 4)
    spoil(tmp_path / "scans" / "b.nii.gz")
    volumes = prepared(dataset, tmp_path / "cache")
    ((name, reason),) = volumes.skipped
    assert name == "b"
    assert reported in reason
    assert "\n" not in reason
    assert volumes.rows == {0: 0, 2: 1, 3: 2}
    assert volumes.array.shape[0] == 3
    opened.clear()
    assert prepared(dataset, tmp_path / "cache").skipped == volumes.skipped
    assert not opened
    (tmp_path / "scans" / "c.nii.gz").unlink()
    (tmp_path / "scans" / "d.nii.gz").unlink()
    assert "got 1 usable scans" in refusal(prepared, dataset, tmp_path / "cache")


def test_each_scan_is_scaled_by_what_it_is(tmp_path: Path) -> None:
    dataset = cohort(tmp_path / "scans")
    write_image(tmp_path / "scans" / "c.nii.gz", scan(GRID).array + 1500, GRID)
    mixed = prepared(dataset, tmp_path / "cache")
    assert mixed.modality == "mixed"
    assert float(mixed.image(mixed.rows[0]).min()) == -2.0
    assert float(mixed.image(mixed.rows[2]).min()) == pytest.approx(-0.4, abs=1e-3)
    abdomen = prepared(cohort(tmp_path / "scans"), tmp_path / "cache", modality="ct-abdomen")
    assert abdomen.modality == "ct-abdomen"
    assert float(abdomen.image(abdomen.rows[0]).min()) == pytest.approx(-0.4, abs=1e-3)


def test_labels_are_distinguished_from_images_of_as_few_values() -> None:
    image, label_map, _ = make_subject(1, "abdomen", 6.0)
    eight_bits = ((image.clip(-160, 240) + 160) / 400 * 255).astype(np.uint8)
    few = (eight_bits // 8).astype(np.float32)
    assert looks_like_labels(label_map)
    assert looks_like_labels(label_map.astype(np.float32))
    assert looks_like_labels((label_map > 0).astype(np.uint8) * np.uint8(255))
    assert len(np.unique(few)) < 40
    for array in (image, image - image.min(), eight_bits, few, few + np.float32(0.5), label_map - np.float32(1)):
        assert not looks_like_labels(array)


def test_dicom_series_is_one_scan_whose_slices_all_count(tmp_path: Path) -> None:
    grid = right_handed("oblique")
    for name, factor in (("first", 3), ("second", 5)):
        array = ramp(grid) // factor
        write_series(tmp_path / "scans" / name, array, grid, series=f"1.2.{factor}")
    dataset = read_dataset(tmp_path / "scans")
    before = prepared(dataset, tmp_path / "cache", spacing_mm=1.5)
    assert len(before.rows) == 2
    array[:, :, 11] += 100
    write_series(tmp_path / "scans" / name, array, grid, series=f"1.2.{factor}")
    after = prepared(dataset, tmp_path / "cache", spacing_mm=1.5)
    assert after.rows == {0: before.rows[0], 1: 2}
    assert float((after.image(2) - after.image(before.rows[1])).abs().max()) > 0.01


def test_scan_that_is_there_twice_is_kept_once(tmp_path: Path) -> None:
    cohort(tmp_path / "scans")
    shutil.copy(tmp_path / "scans" / "a.nii.gz", tmp_path / "scans" / "d.nii.gz")
    volumes = prepared(read_dataset(tmp_path / "scans"), tmp_path / "cache")
    assert volumes.rows[0] == volumes.rows[3]
    assert volumes.array.shape[0] == 3
