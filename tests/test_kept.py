"""Work kept between pairs: the same bytes as without, no file that has changed, and no more memory than allowed."""

import os
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from corereg import read_image, write_image
from corereg.kept import keep_up_to, kept
from corereg.workflows.inputs import read_scan
from corereg.workflows.register import register_to_folder
from helpers.pairs import pair


@pytest.fixture
def keeping() -> Iterator[None]:
    keep_up_to(10**8)
    yield
    keep_up_to(0)


def test_a_second_pair_of_the_same_scans_has_the_same_bytes(tmp_path: Path, keeping: None) -> None:
    paths = [tmp_path / "fixed.nii.gz", tmp_path / "moving.nii.gz"]
    for path, image in zip(paths, pair(), strict=True):
        write_image(path, image.array, image.grid)
    for name, most_bytes in (("apart", 0), ("first", 10**8), ("second", 10**8)):
        keep_up_to(most_bytes)
        register_to_folder(*paths, tmp_path / name, keep=("warped", "transform"), refine_steps=2)
    for file in ("warped.nii.gz", "transform.nii.gz"):
        assert len({(tmp_path / name / file).read_bytes() for name in ("apart", "first", "second")}) == 1


def test_a_scan_is_read_once_and_again_when_its_file_has_changed(tmp_path: Path, keeping: None) -> None:
    path = tmp_path / "scan.nii.gz"
    image = pair()[0]
    write_image(path, image.array, image.grid)
    first = read_scan(path)
    assert read_scan(path) is first
    write_image(path, image.array + 1, image.grid)
    os.utime(path, ns=(1, 1))
    np.testing.assert_array_equal(read_scan(path).array, read_image(path).array)
    assert not np.array_equal(read_scan(path).array, first.array)


def test_what_was_used_longest_ago_goes_first(keeping: None) -> None:
    keep_up_to(3 * 800)
    made = []

    def make(name: str) -> np.ndarray:
        def zeros() -> np.ndarray:
            made.append(name)
            return np.zeros(100)

        return kept(name, zeros)

    for name in "abcadbxa":
        make(name)
    assert "".join(made) == "abcdbxa"
    keep_up_to(0)
    make("a")
    make("a")
    assert "".join(made) == "abcdbxaaa"


def test_equal_sources_are_not_mistaken_for_each_other(keeping: None) -> None:
    sums = [kept("sum", lambda n=n: np.full(1, n), of=(np.zeros(3),)) for n in range(50)]
    assert [int(each[0]) for each in sums] == list(range(50))


def test_warnings_are_given_again(keeping: None) -> None:
    def doubtful() -> np.ndarray:
        warnings.warn("the slices are thick", stacklevel=2)
        return np.zeros(1)

    for _ in range(2):
        with pytest.warns(UserWarning, match="the slices are thick"):
            kept("doubtful", doubtful)
