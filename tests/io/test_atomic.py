"""Outputs appear whole or not at all."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from corereg.io.atomic import atomic_path, ensure_output_folder
from corereg.io.images.image import write_image
from helpers.grids import make_grid
from helpers.images import ramp
from helpers.refusals import refusal

GRID = make_grid(orientation="oblique")
RAMP = ramp(GRID)


def test_failed_writing_leaves_nothing_and_spares_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "out.nii.gz").write_text("old")

    def fail() -> None:
        with atomic_path(tmp_path / "out.nii.gz") as staged:
            staged.write_text("half")
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        fail()
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("out.nii.gz", "old")]


def test_output_folder_is_made_with_its_parents(tmp_path: Path) -> None:
    assert ensure_output_folder(tmp_path / "a" / "b").is_dir()
    assert not any((tmp_path / "a" / "b").iterdir())


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("out.jpg", RAMP, "expected a name ending in"),
        ("out.nii", RAMP[1:], "(11, 16, 20) for"),
        ("out.nii", RAMP.astype(np.complex64), "complex voxels"),
        ("out.nii", RAMP.astype(np.int64) * 2**40, "integers of at most 32 bits"),
        ("nowhere/out.nii", RAMP, "make it first"),
        (".", RAMP, "expected"),
    ],
)
def test_image_that_cannot_be_written_is_refused_and_leaves_nothing(
    tmp_path: Path, name: str, array: NDArray[Any], message: str
) -> None:
    assert message in refusal(write_image, tmp_path / name, array, GRID)
    assert not any(tmp_path.iterdir())


def test_name_of_a_folder_is_refused_as_output(tmp_path: Path) -> None:
    (tmp_path / "out.nii").mkdir()
    assert "which is a folder" in refusal(write_image, tmp_path / "out.nii", RAMP, GRID)


def test_output_folder_that_is_a_file_or_in_one_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "out"):
        assert "is or lies in a file" in refusal(ensure_output_folder, path)


def test_output_folder_that_is_not_writable_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(**_: object) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(tempfile, "mkdtemp", denied)
    assert "not writable (Permission denied)" in refusal(ensure_output_folder, tmp_path)
    assert "not writable (Permission denied)" in refusal(write_image, tmp_path / "out.nii", RAMP, GRID)


def test_output_folder_that_cannot_be_made_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", denied)
    assert "cannot be made (Permission denied)" in refusal(ensure_output_folder, tmp_path / "out")
