"""The cohort on its working grid: right voxels, nothing opened twice or lost by interruption.

Truth is the made-up patient of `scenes`, a function of world position, and SimpleITK's resampling.
"""

import errno
import os
import shutil
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK
from filelock import FileLock
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from corereg.data.pairs import Dataset, read_dataset
from corereg.geometry.grid import Grid
from corereg.io.images.image import read_image, write_image
from corereg.io.images.itk import to_sitk
from corereg.training.scans import volumes as volumes_module
from corereg.training.scans.volumes import prepare_volumes
from helpers.grids import ORIENTATIONS
from helpers.refusals import refusal
from helpers.scenes import affine_map, centred_grid, hounsfield, in_body, scan, voxels_mm, wave
from helpers.volumes import GRID, SPACING_MM, cohort, prepared


def resampled_by_simpleitk(path: Path, grid: Grid) -> NDArray[np.float32]:
    """HU on the grid; 5000 outside the image."""
    image = read_image(path)
    like = to_sitk(np.zeros(grid.shape, np.float32), grid)
    source = to_sitk(image.array.astype(np.float32), image.grid)
    oracle = SimpleITK.Resample(source, like, SimpleITK.Transform(), SimpleITK.sitkLinear, 5000.0)
    return np.asarray(SimpleITK.GetArrayFromImage(oracle).T)


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_rows_of_one_common_grid_are_simpleitks_resampling_scaled(tmp_path: Path, orientation: str) -> None:
    grid = centred_grid((37, 30, 33), (4.0, 4.4, 3.6), orientation, (5.0, -8.0, 3.0))
    dataset = cohort(tmp_path / "scans", [grid] * 3)
    volumes = prepared(dataset, tmp_path / "cache")
    assert volumes.array.shape == (3, *volumes.grid.shape)
    assert volumes.array.dtype == np.float16
    assert all(n % 16 == 0 for n in volumes.grid.shape)
    np.testing.assert_allclose(volumes.grid.spacing, SPACING_MM)
    assert (volumes.modality, volumes.skipped, sorted(volumes.rows)) == ("ct", (), [0, 1, 2])
    i, j, k = (slice(0, n - 1) for n in volumes.field_of_view)
    for index, row in volumes.rows.items():
        np.testing.assert_array_equal(volumes.affines[index], np.eye(4))
        expected = resampled_by_simpleitk(dataset.scans[index].image, volumes.grid).clip(-1000, 1000) / 500
        found = volumes.image(row)
        assert tuple(found.shape) == (1, 1, *volumes.grid.shape)
        np.testing.assert_allclose(found[0, 0].numpy()[i, j, k], expected[i, j, k], atol=1e-3)


def test_small_scans_alone_get_a_finer_grid_where_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = cohort(tmp_path / "scans", [centred_grid((37, 30, 33), (4.0, 4.4, 3.6), "RAS")] * 2)

    def spacing(**settings: Any) -> float:
        return prepare_volumes(dataset, folder=tmp_path / "cache", **settings).grid.spacing[0]

    own = spacing()
    assert spacing(finer=True) == pytest.approx(own / 2)
    assert spacing(finer=True, spacing_mm=own) == pytest.approx(own)
    monkeypatch.setattr(volumes_module, "SMALL_VOXELS", 10_000)
    assert spacing(finer=True) == pytest.approx(own)


def test_field_of_view_ends_where_padding_begins(tmp_path: Path) -> None:
    volumes = prepared(cohort(tmp_path / "scans"), tmp_path / "cache")
    extents = GRID.canonical()
    for axis in range(3):
        last = np.array([0, 0, 0])
        last[axis] = volumes.field_of_view[axis] - 1
        position = extents.to_voxel(volumes.grid.to_world(last))[axis]
        assert extents.shape[axis] - 1 <= position + 1e-6 < extents.shape[axis] - 1 + SPACING_MM / extents.spacing[axis]


TRUTHS = [
    (np.array([4.0, -3.0, 6.0]), 1.06, np.array([14.0, -9.0, 11.0])),
    (np.array([-6.0, 2.0, -4.0]), 0.94, np.array([-12.0, 10.0, -8.0])),
]


def moved_cohort(folder: Path) -> tuple[Dataset, list[NDArray[np.float64]]]:
    """Scan 0 is the one of median volume, on an oblique grid; 1 and 2 are the patient moved, on grids of their own."""
    folder.mkdir()
    grids = [
        centred_grid((44, 38, 40), (3.6, 4.0, 3.8), "oblique"),
        centred_grid((52, 36, 48), (3.5, 4.6, 4.0), "LPS", (14.0, -9.0, 11.0)),
        centred_grid((38, 33, 36), (3.8, 4.0, 4.2), "PIR", (-12.0, 10.0, -8.0)),
    ]
    truths = [np.eye(4)]
    for degrees, scale, shift in TRUTHS:
        truth = np.eye(4)
        truth[:3, :3] = Rotation.from_euler("xyz", degrees, degrees=True).as_matrix() * scale
        truth[:3, 3] = shift
        truths.append(truth)
    for name, grid, truth in zip("abc", grids, truths, strict=True):
        write_image(folder / f"{name}.nii.gz", hounsfield(affine_map(np.linalg.inv(truth))(voxels_mm(grid))), grid)
    return read_dataset(folder), truths


def test_scans_of_different_grids_are_aligned_to_the_one_of_median_volume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset, truths = moved_cohort(tmp_path / "scans")
    alignments = []
    align = volumes_module.align
    monkeypatch.setattr(volumes_module, "align", lambda *a, **k: alignments.append(1) or align(*a, **k))
    volumes = prepared(dataset, tmp_path / "cache")
    assert len(alignments) == 2
    np.testing.assert_array_equal(volumes.affines[0], np.eye(4))
    assert volumes.grid.orientation == "RAS"
    origin = read_image(dataset.scans[0].image).grid.canonical().to_world((0, 0, 0))
    np.testing.assert_allclose(volumes.grid.to_world((0, 0, 0)), origin, atol=1e-3)
    points = voxels_mm(volumes.grid)
    body = in_body(points)
    expected = hounsfield(points).clip(-1000, 1000) / 500
    for index, truth in enumerate(truths):
        error = affine_map(volumes.affines[index])(points[body]) - affine_map(truth)(points[body])
        assert np.linalg.norm(error, axis=-1).mean() < 1.5  # half a voxel of the coarse copies
        found = volumes.image(volumes.rows[index])[0, 0].numpy()
        assert np.abs(found - expected)[body].mean() < 0.07
    again = prepared(dataset, tmp_path / "cache")
    assert len(alignments) == 2
    assert again.fingerprint == volumes.fingerprint
    for index in range(3):
        np.testing.assert_array_equal(again.affines[index], volumes.affines[index])


def test_headers_are_trusted_when_asked_for(tmp_path: Path) -> None:
    dataset, _ = moved_cohort(tmp_path / "scans")
    volumes = prepared(dataset, tmp_path / "cache", affine="none")
    expected = resampled_by_simpleitk(dataset.scans[1].image, volumes.grid)
    seen = expected < 4000
    found = volumes.image(volumes.rows[1])[0, 0].numpy()
    np.testing.assert_allclose(found[seen], expected[seen].clip(-1000, 1000) / 500, atol=5e-3)
    np.testing.assert_array_equal(volumes.affines[1], np.eye(4))


def test_scan_that_overlaps_nothing_is_left_out_where_headers_are_trusted(tmp_path: Path) -> None:
    far = centred_grid((30, 31, 28), (4.0, 4.0, 4.0), "RAS", (900.0, 0.0, 0.0))
    near = centred_grid((36, 32, 33), (4.0, 4.0, 4.0), "RAS", (3.0, 0.0, 0.0))
    cohort(tmp_path / "scans", [GRID, GRID, near])
    write_image(tmp_path / "scans" / "d.nii.gz", hounsfield(voxels_mm(far) - [900.0, 0.0, 0.0]), far)
    volumes = prepared(read_dataset(tmp_path / "scans"), tmp_path / "cache", affine="none")
    assert [name for name, _ in volumes.skipped] == ["d"]
    assert "does not overlap" in volumes.skipped[0][1]
    assert sorted(volumes.rows) == [0, 1, 2]


def test_second_start_opens_no_image(tmp_path: Path, opened: Counter[str]) -> None:
    dataset = cohort(tmp_path / "scans")
    first = prepared(dataset, tmp_path / "cache")
    assert set(opened) == {"a.nii.gz", "b.nii.gz", "c.nii.gz"}
    opened.clear()
    second = prepared(dataset, tmp_path / "cache")
    assert not opened
    assert second.fingerprint == first.fingerprint
    assert (second.rows, second.skipped, second.modality) == (first.rows, first.skipped, first.modality)
    np.testing.assert_array_equal(second.array, first.array)


def test_touched_and_moved_files_are_the_same_scans(tmp_path: Path, opened: Counter[str]) -> None:
    first = prepared(cohort(tmp_path / "scans"), tmp_path / "cache")
    opened.clear()
    os.utime(tmp_path / "scans" / "b.nii.gz", ns=(1, 1))
    touched = prepared(read_dataset(tmp_path / "scans"), tmp_path / "cache")
    (tmp_path / "scans").rename(tmp_path / "elsewhere")
    moved = prepared(read_dataset(tmp_path / "elsewhere"), tmp_path / "cache")
    assert not opened
    assert first.fingerprint == touched.fingerprint == moved.fingerprint
    assert first.rows == touched.rows == moved.rows


@pytest.mark.parametrize("suffix", [".nii.gz", ".mhd"])
def test_changed_scan_alone_is_prepared_again(tmp_path: Path, opened: Counter[str], suffix: str) -> None:
    """The header of an .mhd stays as it was: its voxels lie in another file."""

    def write(name: str, array: NDArray[Any]) -> None:
        image = to_sitk(array.astype(np.int16), GRID)
        SimpleITK.WriteImage(image, str(tmp_path / "scans" / f"{name}{suffix}"), useCompression=suffix == ".nii.gz")

    (tmp_path / "scans").mkdir()
    for number, name in enumerate("abc"):
        write(name, hounsfield(voxels_mm(GRID) + number))
    dataset = read_dataset(tmp_path / "scans")
    first = prepared(dataset, tmp_path / "cache")
    kept = np.array(first.array)
    opened.clear()
    write("b", scan(GRID, wave).array)
    second = prepared(dataset, tmp_path / "cache")
    assert set(opened) == {f"b{suffix}"}
    assert second.fingerprint != first.fingerprint
    for index in (0, 2):
        np.testing.assert_array_equal(second.array[second.rows[index]], kept[first.rows[index]])
    expected = prepared(dataset, tmp_path / "fresh")
    np.testing.assert_array_equal(second.array[second.rows[1]], expected.array[expected.rows[1]])
    assert second.fingerprint == expected.fingerprint


def test_fingerprint_tells_settings_and_scans_apart_and_nothing_else(tmp_path: Path) -> None:
    dataset = cohort(tmp_path / "scans")
    base = prepared(dataset, tmp_path / "cache").fingerprint
    assert prepared(dataset, tmp_path / "other").fingerprint == base
    others = [
        prepared(dataset, tmp_path / "cache", **settings).fingerprint
        for settings in ({"spacing_mm": 4.5}, {"modality": "ct-abdomen"}, {"scans": [0, 2]})
    ]
    assert len({base, *others}) == 4


def test_part_of_the_scans_shares_rows_with_the_whole(tmp_path: Path, opened: Counter[str]) -> None:
    dataset = cohort(tmp_path / "scans")
    whole = prepared(dataset, tmp_path / "cache")
    opened.clear()
    part = prepared(dataset, tmp_path / "cache", scans=[2, 0])
    assert not opened
    assert part.rows == {index: whole.rows[index] for index in (0, 2)}
    assert set(part.affines) == {0, 2}


def test_scans_in_no_pair_are_left_alone(tmp_path: Path, opened: Counter[str]) -> None:
    cohort(tmp_path / "scans")
    (tmp_path / "pairs.csv").write_text("fixed,moving\nscans/a.nii.gz,scans/c.nii.gz\n")
    prepared(read_dataset(tmp_path / "pairs.csv"), tmp_path / "cache")
    assert set(opened) == {"a.nii.gz", "c.nii.gz"}


class PowerCutError(BaseException):
    pass


@pytest.mark.parametrize("stage", ["reading scan 3", "preparing scan 2"])
def test_interrupted_preparation_resumes(tmp_path: Path, opened: Counter[str], stage: str) -> None:
    dataset = cohort(tmp_path / "scans", [GRID] * 5)

    def cut(line: str) -> None:
        if line.startswith(stage):
            raise PowerCutError

    with pytest.raises(PowerCutError):
        prepared(dataset, tmp_path / "cache", progress=cut)
    done = Counter(opened)
    for file in (tmp_path / "cache").glob("*.f16"):
        with open(file, "ab") as stream:
            stream.write(b"half a row")
    volumes = prepared(dataset, tmp_path / "cache")
    assert max(opened.values()) == 2, "once looked at, once prepared"
    assert sum(done.values()) + sum((opened - done).values()) == 10
    whole = prepared(dataset, tmp_path / "fresh")
    np.testing.assert_array_equal(volumes.array, whole.array)
    assert volumes.fingerprint == whole.fingerprint


def test_damaged_cache_is_made_anew(tmp_path: Path) -> None:
    dataset = cohort(tmp_path / "scans")
    first = np.array(prepared(dataset, tmp_path / "cache").array)
    for file in (tmp_path / "cache").glob("*.f16"):
        file.write_bytes(file.read_bytes()[:-1])
    np.testing.assert_array_equal(prepared(dataset, tmp_path / "cache").array, first)
    for file in (tmp_path / "cache").glob("*.json"):
        file.write_text("{")
    np.testing.assert_array_equal(prepared(dataset, tmp_path / "cache").array, first)


def test_full_disk_is_reported_in_one_line_and_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, opened: Counter[str]
) -> None:
    dataset = cohort(tmp_path / "scans")
    syncs = []

    def full(descriptor: int) -> None:
        syncs.append(descriptor)
        if len(syncs) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        message = refusal(prepared, dataset, tmp_path / "cache")
    assert str(tmp_path / "cache") in message
    assert " MB " in message
    (voxels,) = (tmp_path / "cache").glob("*.f16")
    row_bytes = 2 * 48 * 48 * 32
    assert voxels.stat().st_size == row_bytes
    opened.clear()
    volumes = prepared(dataset, tmp_path / "cache")
    assert set(opened) == {"b.nii.gz", "c.nii.gz"}
    np.testing.assert_array_equal(volumes.array, prepared(dataset, tmp_path / "fresh").array)


def test_disk_without_room_for_the_cohort_is_reported_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = cohort(tmp_path / "scans")
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=2**18))
    assert "1 MB of free disk space" in refusal(prepared, dataset, tmp_path / "cache")
    assert not list((tmp_path / "cache").glob("*.f16"))


@pytest.mark.parametrize(
    "settings", [{"modality": "pet"}, {"affine": "rigid"}, {"spacing_mm": -1.0}], ids=lambda s: next(iter(s))
)
def test_setting_that_there_is_not_is_refused(tmp_path: Path, settings: dict[str, Any]) -> None:
    refusal(prepared, cohort(tmp_path / "scans"), tmp_path / "cache", **settings)


def test_cache_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    dataset = cohort(tmp_path / "scans")
    (tmp_path / "cache").touch()
    assert "which is a file or lies in one" in refusal(prepared, dataset, tmp_path / "cache")


def test_waits_for_another_process_that_prepares(tmp_path: Path) -> None:
    dataset = cohort(tmp_path / "scans")
    (tmp_path / "cache").mkdir()
    lines: list[str] = []
    waits = threading.Event()

    def say(line: str) -> None:
        lines.append(line)
        waits.set()

    with FileLock(tmp_path / "cache" / "lock"):
        thread = threading.Thread(target=prepared, args=(dataset, tmp_path / "cache"), kwargs={"progress": say})
        thread.start()
        assert waits.wait(60)
        assert not (tmp_path / "cache" / "scans.json").exists()
    thread.join(60)
    assert "waiting for another process" in lines[0]
    assert len(prepared(dataset, tmp_path / "cache").rows) == 3


@pytest.mark.parametrize(("suffix", "without"), [(".npz", "SimpleITK nibabel monai"), (".nii.gz", "SimpleITK monai")])
def test_prepares_without_the_libraries_that_it_does_not_need(tmp_path: Path, suffix: str, without: str) -> None:
    (tmp_path / "scans").mkdir()
    for name, array in (("a", scan(GRID).array), ("b", scan(GRID, wave).array)):
        if suffix == ".npz":
            np.savez(tmp_path / "scans" / f"{name}.npz", scan=array, affine=GRID.affine)
        else:
            write_image(tmp_path / "scans" / f"{name}.nii.gz", array, GRID)
    code = f"""
import sys
from pathlib import Path
sys.modules.update(dict.fromkeys({without!r}.split()))
from corereg.data.pairs import read_dataset
from corereg.training.scans.volumes import prepare_volumes
volumes = prepare_volumes(read_dataset({str(tmp_path / "scans")!r}), folder=Path({str(tmp_path / "cache")!r}))
print(len(volumes.rows), volumes.skipped)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "2 ()", done.stderr


@pytest.mark.slow
def test_real_abdomens_of_three_scanners_are_aligned_and_their_label_map_left_out(
    tmp_path: Path, data_dir: Path
) -> None:
    """Headers lie up to 650 mm apart. Where the patients lie on each other, intensities go together."""
    volumes = prepare_volumes(read_dataset(data_dir / "abdomen"), folder=tmp_path)
    assert [name for name, _ in volumes.skipped] == ["patient_a_labels"]
    assert np.abs(volumes.affines[2][:3, 3]).max() > 500
    rows = np.stack([volumes.image(row).numpy().ravel() for row in volumes.rows.values()])
    assert np.corrcoef(rows).min() > 0.75
