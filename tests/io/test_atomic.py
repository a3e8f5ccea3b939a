"""Outputs appear whole or not at all."""

import json
import os
import signal
import stat
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from corereg.io.atomic import (
    PENDING,
    PLAN,
    atomic_path,
    atomic_tree,
    check_output,
    ensure_output_folder,
    output_folder,
    settle,
)
from corereg.io.images.image import ITK_SUFFIXES, write_image
from helpers.grids import make_grid
from helpers.images import ramp
from helpers.refusals import refusal

GRID = make_grid(orientation="oblique")
RAMP = ramp(GRID)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", *ITK_SUFFIXES])
def test_every_file_that_an_image_consists_of_is_replaced_only_with_force(tmp_path: Path, suffix: str) -> None:
    (tmp_path / "written").mkdir()
    (tmp_path / "there").mkdir()
    write_image(tmp_path / "written" / f"out{suffix}", RAMP, GRID)
    names = {file.name for file in (tmp_path / "written").iterdir()}
    assert len(names) == (2 if suffix in (".mhd", ".nhdr") else 1)
    for name in names:
        (tmp_path / "there" / name).write_text("mine")
        assert f"{name}, which exists" in refusal(check_output, tmp_path / "there" / f"out{suffix}", force=False)
        (tmp_path / "there" / name).unlink()
    check_output(tmp_path / "there" / f"out{suffix}", force=False)


def test_failed_writing_leaves_nothing_and_spares_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "out.nii.gz").write_text("old")

    def fail() -> None:
        with atomic_path(tmp_path / "out.nii.gz") as staged:
            staged.write_text("half")
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        fail()
    assert [(file.name, file.read_text("utf-8")) for file in tmp_path.iterdir()] == [("out.nii.gz", "old")]


def test_folder_that_is_written_replaces_the_old_one_whole_or_not_at_all(tmp_path: Path) -> None:
    out = tmp_path / "out.zarr"
    (out / "deep").mkdir(parents=True)
    (out / "deep" / "old").write_text("old")

    def write(name: str) -> None:
        with atomic_tree(out) as staged:
            (staged / "deep").mkdir(parents=True)
            (staged / "deep" / name).write_text(name)
            if name == "half":
                raise RuntimeError("no more")

    with pytest.raises(RuntimeError):
        write("half")
    assert [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")] == [
        *("out.zarr", "out.zarr/deep", "out.zarr/deep/old")
    ]
    write("new")
    assert [path.name for path in tmp_path.rglob("*")] == ["out.zarr", "deep", "new"]


def test_output_folder_is_made_with_its_parents(tmp_path: Path) -> None:
    assert ensure_output_folder(tmp_path / "a" / "b").is_dir()
    assert not any((tmp_path / "a" / "b").iterdir())


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("out.jpg", RAMP, "expected a name ending in"),
        ("out.nii", RAMP[1:], "(11, 16, 20) for"),
        ("out.nii", RAMP.astype(np.complex64), "complex voxels"),
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
        assert "is a file or lies in one" in refusal(ensure_output_folder, path)


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


KILLED_AT = """
import os, signal, sys
from pathlib import Path

folder, wanted, kind = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
calls = 0


def deadly(name):
    plain = getattr(os, name)

    def call(*arguments, **options):
        global calls
        if ".corereg" in str(arguments[0]) or Path(arguments[0]).parent == folder:
            calls += 1
            if calls == wanted:
                os.kill(os.getpid(), signal.SIGKILL)
        return plain(*arguments, **options)

    setattr(os, name, call)


from corereg.io.atomic import atomic_folder, atomic_path
for name in ("rename", "replace", "unlink", "rmdir", "mkdir"):
    deadly(name)
if kind == "folder":
    with atomic_folder(folder, last="result.json", obsolete=["report.html"]) as staged:
        for name in ("transform.nii.gz", "warped.nii.gz", "result.json"):
            (staged / name).write_text("new")
else:
    with atomic_path(folder / "image.mhd") as staged:
        (staged.parent / "image.raw").write_text("new")
        staged.write_text("new")
"""

SETS = {
    "folder": ("transform.nii.gz", "warped.nii.gz", "result.json", "report.html"),
    "pair": ("image.raw", "image.mhd"),
}


def run_killed(folder: Path, call: int, kind: str) -> bool:
    """Whether the process was killed before its n-th change of the folder; else it ended by itself."""
    done = subprocess.run(
        [sys.executable, "-c", KILLED_AT, str(folder), str(call), kind], capture_output=True, text=True
    )
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode != 0


def contents(folder: Path) -> dict[str, str]:
    return {file.name: file.read_text("utf-8") for file in folder.iterdir() if file.is_file()}


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
@pytest.mark.parametrize("kind", SETS)
def test_set_of_files_killed_before_any_of_its_changes_is_old_or_new_and_never_mixed(tmp_path: Path, kind: str) -> None:
    old = dict.fromkeys(SETS[kind], "old")
    new = {name: "new" for name in SETS[kind] if name != "report.html"}
    outcomes = []
    for call in range(1, 40):
        folder = tmp_path / str(call)
        folder.mkdir()
        for name, text in old.items():
            (folder / name).write_text(text)
        (folder / "mine.txt").write_text("kept")
        if not run_killed(folder, call, kind):
            break
        found = contents(folder)
        assert found.pop("mine.txt") == "kept"
        assert len(set(found.values())) <= 1, f"old and new mixed before change {call}: {found}"
        if SETS[kind][2 if kind == "folder" else 1] in found:  # the file that says that the set is complete
            assert set(new) <= set(found)
        settle(folder)
        settled = contents(folder)
        del settled["mine.txt"]
        assert settled in (old, new), call
        outcomes.append(settled == new)
        assert not run_killed(folder, 1000, kind)
        assert contents(folder) == new | {"mine.txt": "kept"}
        assert {path.name for path in folder.iterdir()} == {*new, "mine.txt"}, "what was killed is cleaned up"
    assert outcomes == sorted(outcomes), "once written, never lost"
    assert outcomes.count(False) >= 2
    assert outcomes.count(True) >= len(new)


def test_staging_folder_of_a_living_process_is_left_alone(tmp_path: Path) -> None:
    code = """
import sys, time
from pathlib import Path
from corereg.io.atomic import staging
with staging(Path(sys.argv[1])) as folder:
    print(folder, flush=True)
    sys.stdin.read()
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    alive = Path(process.stdout.readline().strip())
    with atomic_path(tmp_path / "out.txt") as staged:
        staged.write_text("mine")
    assert alive.is_dir()
    process.kill()
    process.communicate()
    assert alive.is_dir()
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], input="", capture_output=True, text=True)
    assert done.returncode == 0
    assert not alive.exists()


def test_links_are_written_through(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "data").write_text("old")
    (tmp_path / "out.txt").symlink_to(tmp_path / "far" / "data")
    with atomic_path(tmp_path / "out.txt") as staged:
        assert staged.name == "out.txt", "formats go by the name that was given"
        staged.write_text("new")
    assert (tmp_path / "out.txt").is_symlink()
    assert (tmp_path / "far" / "data").read_text("utf-8") == "new"
    assert {path.name for path in tmp_path.iterdir()} == {"far", "out.txt"}
    assert {path.name for path in (tmp_path / "far").iterdir()} == {"data"}


def test_dangling_link_is_written_through(tmp_path: Path) -> None:
    (tmp_path / "out.txt").symlink_to(tmp_path / "data")
    with atomic_path(tmp_path / "out.txt") as staged:
        staged.write_text("new")
    assert (tmp_path / "data").read_text("utf-8") == "new"


def test_pipes_and_devices_are_written_to_and_not_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    reader = subprocess.Popen(["cat", str(tmp_path / "pipe")], stdout=subprocess.PIPE, text=True)
    with atomic_path(tmp_path / "pipe") as staged:
        staged.write_text("through it")
    assert reader.communicate(timeout=60)[0] == "through it"
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)
    for path in ("/dev/null", tmp_path / "null"):
        if path != "/dev/null":
            tmp_path.joinpath("null").symlink_to("/dev/null")
        with atomic_path(path) as staged:
            staged.write_text("nowhere")
        assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


LIMITED = """
import resource, sys
from pathlib import Path
from corereg.errors import InputError
from corereg.io.atomic import atomic_folder, atomic_path
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    if sys.argv[2] == "file":
        with atomic_path(Path(sys.argv[1]) / "out.bin") as staged:
            staged.write_bytes(bytes(5000))
    elif sys.argv[2] == "library":
        with atomic_path(Path(sys.argv[1]) / "out.bin") as staged:
            raise RuntimeError("could not write, for whatever reason")
    else:
        with atomic_folder(Path(sys.argv[1]), last="b") as staged:
            (staged / "a").write_bytes(bytes(500))
            (staged / "b").write_bytes(bytes(5000))
except InputError as error:
    print(error)
"""


@pytest.mark.parametrize("kind", ["file", "library", "set"])
def test_full_disk_is_said_in_one_line_and_leaves_what_was_there(tmp_path: Path, kind: str) -> None:
    """A limit on the size of files stands for the full disk: it fails in the same calls."""
    (tmp_path / "out.bin").write_text("old")
    done = subprocess.run([sys.executable, "-c", LIMITED, str(tmp_path), kind], capture_output=True, text=True)
    assert done.stderr == ""
    assert len(done.stdout.splitlines()) == 1
    assert "no room" in done.stdout
    assert "free some" in done.stdout
    assert contents(tmp_path) == {"out.bin": "old"}
    assert [path.name for path in tmp_path.iterdir()] == ["out.bin"]


def test_other_failures_of_writing_are_not_taken_for_a_full_disk(tmp_path: Path) -> None:
    with pytest.raises(PermissionError), atomic_path(tmp_path / "out.txt"):
        raise PermissionError(13, "Permission denied")
    with pytest.raises(RuntimeError, match="a bug"), atomic_path(tmp_path / "out.txt"):
        raise RuntimeError("a bug")


def test_output_is_checked_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    assert "which is a folder" in refusal(check_output, tmp_path / "folder")
    assert "make it first" in refusal(check_output, tmp_path / "no" / "out.txt")
    assert "File name too long" in refusal(check_output, tmp_path / ("x" * 300 + ".nii.gz"))
    check_output(tmp_path / "out.txt")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_folder_made_for_output_vanishes_with_its_parents_if_the_work_fails(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    for folder in (tmp_path / "new" / "deeper", tmp_path / "mine" / "deeper", tmp_path / "mine"):
        with pytest.raises(IsADirectoryError), output_folder(folder):
            folder.read_bytes()  # it is there
    assert [path.name for path in tmp_path.rglob("*")] == ["mine"]
    with output_folder(tmp_path / "new" / "deeper"):
        pass
    assert (tmp_path / "new" / "deeper").is_dir()


def test_set_that_cannot_be_moved_to_its_places_is_named(tmp_path: Path) -> None:
    """As on a medium that was copied in that state, or that belongs to somebody else."""
    (tmp_path / PENDING).mkdir()
    (tmp_path / PENDING / "a").write_text("new")
    (tmp_path / PENDING / PLAN).write_text(json.dumps({"names": ["a"], "obsolete": []}))
    (tmp_path / "a").mkdir()
    assert PENDING in refusal(settle, tmp_path)
