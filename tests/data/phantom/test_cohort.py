"""Phantom cohorts on disk."""

import hashlib
import json
import signal
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import ndimage

from corereg.data.phantom import LABELS, write_cohort
from corereg.errors import InputError
from helpers.phantoms import body


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_cohort(tmp_path_factory.mktemp("phantom") / "cohort", subjects=3, spacing_mm=8.0, seed=4)


@pytest.fixture(scope="module")
def second_cohort(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[tuple[int, int]]]:
    """The same again, into a folder that is there and empty; and what it reported on the way."""
    seen: list[tuple[int, int]] = []
    folder = tmp_path_factory.mktemp("again")
    path = write_cohort(
        folder, subjects=3, spacing_mm=8.0, seed=4, progress=lambda done, total: seen.append((done, total))
    )
    return path, seen


def digests(directory: Path) -> dict[str, str]:
    files = sorted(path for path in directory.rglob("*") if path.is_file())
    return {str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_same_cohort_has_the_same_bytes(cohort: Path, second_cohort: tuple[Path, list[tuple[int, int]]]) -> None:
    assert digests(second_cohort[0].parent) == digests(cohort.parent)


def test_progress_counts_to_the_end(second_cohort: tuple[Path, list[tuple[int, int]]]) -> None:
    assert second_cohort[1] == [(done, 5) for done in range(1, 6)]


def test_no_scan_of_a_cohort_is_there_twice(cohort: Path) -> None:
    scans = [digest for name, digest in digests(cohort.parent).items() if name.startswith("images")]
    assert len(set(scans)) == len(scans) == 7


def test_dataset_json_lists_the_files(cohort: Path) -> None:
    content = json.loads(cohort.read_text("utf-8"))
    assert cohort.name == "Phantom_dataset.json"
    assert content["numTraining"] == len(content["training"]) == 3
    assert content["numTest"] == len(content["test"]) == 4
    for name in ("registration_val", "registration_test"):
        assert content["num" + name.capitalize()] == len(content[name])
    assert [Path(pair["moving"]).name for pair in content["registration_val"]] == ["Phantom_0003_0000.nii.gz"]
    listed = {path for key in ("training", "test") for entry in content[key] for path in entry.values()}
    paired = {
        path for key in ("registration_val", "registration_test") for pair in content[key] for path in pair.values()
    }
    assert paired <= listed
    assert all((cohort.parent / path).is_file() and path.startswith("./") for path in listed)
    assert content["labels"]["0"] == {"0": "background"} | {str(n): name for name, n in LABELS["abdomen"].items()}


def test_cohort_files_open_and_agree(cohort: Path) -> None:
    content = json.loads(cohort.read_text("utf-8"))
    for entry in content["training"] + content["test"]:
        image, label = (nibabel.load(cohort.parent / entry[key]) for key in ("image", "label"))
        assert list(image.shape) == list(label.shape) == content["tensorImageShape"]["0"]
        assert image.get_data_dtype() == np.int16
        assert label.get_data_dtype() == np.uint8
        assert_array_equal(image.affine, label.affine)
        assert_allclose(image.get_qform(), image.get_sform(), atol=1e-4)
        assert nibabel.aff2axcodes(image.affine) == ("R", "A", "S")


def test_cohort_fields_are_those_of_its_pairs(cohort: Path) -> None:
    fields = sorted((cohort.parent / "fieldsTs").iterdir())
    assert [path.name for path in fields] == ["disp_0002_0000_0002_0001.nii.gz", "disp_0003_0000_0003_0001.nii.gz"]
    field = nibabel.load(fields[0])
    assert field.get_data_dtype() == np.float32
    assert_array_equal(field.affine, np.eye(4))
    assert int(field.header["sform_code"]) == 2
    assert int(field.header["intent_code"]) == 0
    disp_vox = np.asarray(field.dataobj)
    fixed, moving = (
        np.asarray(nibabel.load(cohort.parent / f"imagesTs/Phantom_0002_{phase}.nii.gz").dataobj, np.float32)
        for phase in ("0000", "0001")
    )
    assert disp_vox.shape == (*fixed.shape, 3)
    coords = np.indices(fixed.shape) + np.moveaxis(disp_vox, -1, 0)
    inside = body(fixed)
    after = np.abs(ndimage.map_coordinates(moving, coords, order=1, mode="nearest") - fixed)[inside].mean()
    assert after < 0.4 * np.abs(moving - fixed)[inside].mean()


def test_interrupted_cohort_leaves_nothing(tmp_path: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_cohort(tmp_path / "out", subjects=2, spacing_mm=8.0, progress=interrupt)
    assert list(tmp_path.iterdir()) == []


def test_killed_cohort_is_cleaned_up_by_the_next(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys; from corereg.data.phantom import write_cohort; "
        "stop = lambda done, total: os.kill(os.getpid(), signal.SIGKILL); "
        "write_cohort(sys.argv[1], subjects=2, spacing_mm=8.0, progress=stop)"
    )
    killed = subprocess.run([sys.executable, "-c", code, str(tmp_path / "out")])
    assert killed.returncode == -signal.SIGKILL
    assert [path.name.startswith(".corereg-") for path in tmp_path.iterdir()] == [True]
    write_cohort(tmp_path / "out", subjects=2, spacing_mm=8.0)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize(
    ("wrong", "reported"),
    [
        ({"subjects": 1}, "1 phantom subjects"),
        ({"subjects": 10_000}, "10000 phantom subjects"),
        ({"kind": "knee"}, "'knee'"),
        ({"spacing_mm": 0.5}, "0.5 mm"),
        ({"spacing_mm": 9.0}, "9.0 mm"),
        ({"spacing_mm": float("nan")}, "nan mm"),
        ({"seed": -1}, "seed -1"),
    ],
)
def test_bad_arguments_are_refused_in_one_line(tmp_path: Path, wrong: dict, reported: str) -> None:
    with pytest.raises(InputError, match=reported) as caught:
        write_cohort(tmp_path / "out", **wrong)
    assert "expected" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_folder_with_something_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("data")
    with pytest.raises(InputError, match="not empty"):
        write_cohort(tmp_path, subjects=2, spacing_mm=8.0)
    assert [path.name for path in tmp_path.iterdir()] == ["precious"]


def test_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("data")
    with pytest.raises(InputError, match="is a file"):
        write_cohort(tmp_path / "file", subjects=2, spacing_mm=8.0)
    with pytest.raises(InputError, match="is a file or lies in one"):
        write_cohort(tmp_path / "file" / "below", subjects=2, spacing_mm=8.0)
