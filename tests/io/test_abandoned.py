"""What a killed command left where no lock tells whether it still runs."""

import os
import time
import warnings
from pathlib import Path

import pytest

from corereg.io import atomic
from corereg.io.places import STAGING


@pytest.fixture
def abandoned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The staging folder of another process, on a file system without locks."""
    monkeypatch.setattr(atomic, "_lock", lambda folder: (None, False))
    folder = tmp_path / f"{STAGING}other"
    folder.mkdir()
    (folder / "half.nii.gz").write_text("half")
    return folder


def test_old_ones_are_named_and_left(abandoned: Path) -> None:
    long_ago = time.time() - 2 * atomic.DAY_S
    os.utime(abandoned, (long_ago, long_ago))
    with (
        pytest.warns(UserWarning, match=f"{STAGING}other is more than a day old .*; remove it, unless one still runs"),
        atomic.atomic_path(abandoned.parent / "out.txt") as staged,
    ):
        staged.write_text("new")
    assert (abandoned / "half.nii.gz").is_file()


def test_recent_ones_are_left_without_a_word(abandoned: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with atomic.atomic_path(abandoned.parent / "out.txt") as staged:
            staged.write_text("new")
    assert (abandoned / "half.nii.gz").is_file()
