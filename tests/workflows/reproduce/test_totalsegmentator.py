"""The 22 structures of the chest from TotalSegmentator's masks and label maps."""

from pathlib import Path

import numpy as np
import pytest

from corereg.io.images.image import read_labels, write_image
from corereg.workflows.reproduce.totalsegmentator import STRUCTURES, merge_segmentations
from helpers.grids import make_grid
from helpers.refusals import refusal

GRID = make_grid((24, 7, 5), (1.5, 2.0, 2.5), "LPS")
NAMES = list(STRUCTURES)

# Numbers in label maps, as TotalSegmentator 1.5.7 and 2 define them.
VERSION_1 = dict(zip(range(13, 18), NAMES[:5], strict=True))
VERSION_1 |= {23 + n: f"vertebrae_T{12 - n}" for n in range(12)} | dict(zip(range(44, 49), NAMES[17:], strict=True))
VERSION_2 = dict(zip(range(10, 15), NAMES[:5], strict=True)) | {32 + n: f"vertebrae_T{12 - n}" for n in range(12)}
VERSION_2_HEART = dict(zip(range(1, 6), NAMES[17:], strict=True))


def plane_of(structure: str) -> int:
    """Each structure fills one plane of the volume."""
    return STRUCTURES[structure]


def label_map(numbers: dict[int, str]) -> np.ndarray:
    array = np.zeros(GRID.shape, np.uint8)
    array[0], array[23] = 99, 7  # structures that do not count
    for number, structure in numbers.items():
        array[plane_of(structure)] = number
    return array


def expected() -> np.ndarray:
    array = np.zeros(GRID.shape, np.uint8)
    for structure, number in STRUCTURES.items():
        array[plane_of(structure)] = number
    return array


def write_masks(folder: Path, names: list[str] = NAMES) -> None:
    folder.mkdir(parents=True)
    for structure in names:
        mask = np.zeros(GRID.shape, np.uint8)
        mask[plane_of(structure)] = 1
        write_image(folder / f"{structure}.nii.gz", mask, GRID)


def test_there_are_22_structures_in_the_papers_order() -> None:
    assert len(STRUCTURES) == 22
    assert sorted(STRUCTURES.values()) == list(range(1, 23))
    assert [NAMES[n] for n in (0, 5, 16, 17, 21)] == [
        *("lung_upper_lobe_left", "vertebrae_T1", "vertebrae_T12", "heart_myocardium", "heart_ventricle_right")
    ]


def test_masks_of_either_version_are_merged_by_name(tmp_path: Path) -> None:
    write_masks(tmp_path / "seg" / "val00001")
    merge_segmentations(["val00001"], tmp_path / "seg", tmp_path / "out")
    merged = read_labels(tmp_path / "out" / "val00001.nii.gz")
    np.testing.assert_array_equal(merged.array, expected())
    assert merged.grid.close_to(GRID)


@pytest.mark.parametrize("version", [1, 2])
def test_label_maps_are_merged_by_the_numbers_of_their_version(version: int, tmp_path: Path) -> None:
    (tmp_path / "seg").mkdir()
    if version == 1:
        write_image(tmp_path / "seg" / "a.nii.gz", label_map(VERSION_1), GRID)
    else:
        write_image(tmp_path / "seg" / "a.nii.gz", label_map(VERSION_2), GRID)
        write_image(tmp_path / "seg" / "a_heartchambers_highres.nii.gz", label_map(VERSION_2_HEART), GRID)
    merge_segmentations(["a"], tmp_path / "seg", tmp_path / "out", version=version)
    np.testing.assert_array_equal(read_labels(tmp_path / "out" / "a.nii.gz").array, expected())


def test_missing_parts_are_named(tmp_path: Path) -> None:
    write_masks(tmp_path / "seg" / "a", NAMES[:-1])
    assert "heart_ventricle_right" in refusal(merge_segmentations, ["a"], tmp_path / "seg", tmp_path / "out")
    assert "--totalsegmentator" in refusal(merge_segmentations, ["b"], tmp_path / "seg", tmp_path / "out")
    write_image(tmp_path / "seg" / "c.nii.gz", label_map(VERSION_2), GRID)
    message = refusal(merge_segmentations, ["c"], tmp_path / "seg", tmp_path / "out", version=2)
    assert "c_heartchambers_highres" in message
    assert "version 3" in refusal(merge_segmentations, ["c"], tmp_path / "seg", tmp_path / "out", version=3)


def test_labels_that_are_there_are_not_merged_again(tmp_path: Path) -> None:
    write_masks(tmp_path / "seg" / "a")
    first = merge_segmentations(["a"], tmp_path / "seg", tmp_path / "out") / "a.nii.gz"
    before = first.stat().st_mtime_ns
    (tmp_path / "seg" / "a" / "heart_myocardium.nii.gz").unlink()
    merge_segmentations(["a"], tmp_path / "seg", tmp_path / "out")
    assert first.stat().st_mtime_ns == before
