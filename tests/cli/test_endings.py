"""How a command ends early: signals, full disks, names and terminals that cannot be used. One line, nothing left."""

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import corereg
from corereg.cli.endings import describe, signals_raise, stopped_by
from corereg.errors import InputError, Interrupted
from helpers.commands import Command, one_line
from helpers.forks import forked, stopped
from helpers.hardships import enter_a_folder_and_remove_it, limit_files, write_ascii

QUICK = ["--affine", "none", "--refine-steps", "3", "--no-report"]

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals and limits of POSIX")


@pytest.mark.parametrize("flag", ["-V", "--version"])
def test_version_is_printed(command: Command, flag: str) -> None:
    assert command(flag) == (0, f"corereg {corereg.__version__}\n", "")


def test_module_is_the_command() -> None:
    done = subprocess.run([sys.executable, "-m", "corereg", "--version"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, f"corereg {corereg.__version__}\n")


@pytest.mark.parametrize(("words", "status"), [(["info"], 0), (["nosuch"], 2), (["info", "--log-file", "/no/x"], 2)])
def test_process_ends_as_the_function_does(command: Command, words: list[str], status: int) -> None:
    done = subprocess.run([sys.executable, "-m", "corereg", *words], capture_output=True, text=True)
    expected = command(*words)
    assert done.returncode == expected.status == status
    assert done.stderr == expected.err
    assert done.stdout.splitlines()[:3] == expected.out.splitlines()[:3]
    assert len(done.stdout) >= len(expected.out) - 20  # free memory has fewer digits at times


def test_the_process_ends_after_all_that_is_to_be_done_at_its_exit() -> None:
    """What is registered before `run` would not be called."""
    code = "import atexit, corereg.cli; print(atexit._ncallbacks())"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "0\n"


def test_help_begins_with_register(command: Command) -> None:
    commands = command("--help").out.split("Commands")[1]
    positions = [commands.index(f"\u2502 {name} ") for name in ("register", "apply", "convert", "train", "evaluate")]
    assert positions == sorted(positions)
    assert positions[0] == commands.index("\u2502 ")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nosuch"], "no such command 'nosuch'; see corereg --help"),
        (["--nosuch"], "no such option: --nosuch; see corereg --help"),
        (["register", "fixed.nii.gz"], "missing argument 'moving'; see corereg register --help"),
        (["register", "a.nii", "b.nii", "-o", ""], "got an empty word after -o, expected a value"),
        (["info", "extra"], "got unexpected extra argument(s) (extra); see corereg info --help"),
        (["batch", "pairs.csv", "-o", "out", "--jobs", "two"], "invalid value for '--jobs': "),
    ],
)
def test_a_call_with_wrong_words_is_refused_in_one_line(command: Command, words: list[str], message: str) -> None:
    assert one_line(command(*words)).startswith(f"corereg: {message}")


def test_help_is_shown_without_a_word(command: Command) -> None:
    done = command()
    assert (done.status, done.err) == (2, "")
    assert "Usage: " in done.out


@pytest.mark.parametrize("place", ["before", "after", "variable"])
def test_traceback_is_shown_on_request_only(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    arguments = ["register", tmp_path / "no.nii", tmp_path / "no.nii", "-o", tmp_path / "out"]
    plain = one_line(command(*arguments))
    if place == "variable":
        monkeypatch.setenv("COREREG_DEBUG", "1")
    done = command(*{"before": ["--debug", *arguments], "after": [*arguments, "--debug"]}.get(place, arguments))
    assert done.status == 2
    assert done.err.startswith("Traceback (most recent call last):")
    assert done.err.endswith(plain)


def test_bug_is_named_as_one(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> str:
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr("corereg.workflows.info.describe", broken)
    message = one_line(command("info"), status=1)
    assert "ZeroDivisionError: division by zero" in message
    assert "--debug" in message


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (errno.ENOSPC, "free some space"),
        (errno.ENAMETOOLONG, "choose a shorter name"),
        (errno.EACCES, "permissions"),
        (errno.EIO, "Input/output error"),
    ],
)
def test_refusals_of_the_system_are_no_bugs(code: int, words: str) -> None:
    line, status = describe(OSError(code, os.strerror(code), "scan.nii"), debug=False)
    assert status == 2
    assert "scan.nii" in line
    assert words in line
    assert "bug" not in line


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 143)], ids=str
)
def test_registration_stopped_by_a_signal_ends_with_one_line_and_leaves_nothing(
    scans: Path, tmp_path: Path, number: int, status: int
) -> None:
    """The optimisation runs in compiled code, where a KeyboardInterrupt becomes a SystemError."""
    out = tmp_path / "new" / "out"
    words = ["register", scans / "fixed.nii.gz", scans / "moving.nii.gz", "-o", out]
    words += ["--affine", "none", "--refine-steps", "100000"]
    # Twice, as `timeout` does, which signals the process and its group.
    done = stopped(words, out.exists, number, number, delay_s=2)
    assert (done.returncode, done.stdout) == (status, "")
    assert done.stderr == "corereg: interrupted; nothing was written\n"
    assert not (tmp_path / "new").exists()


def test_signals_that_are_ignored_stay_ignored() -> None:
    """By `nohup`, and in the background of a script."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with signals_raise() as received:
            os.kill(os.getpid(), signal.SIGHUP)
            assert received == []
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_handlers_are_put_back() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    with signals_raise() as received, pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGTERM)
    assert received == [signal.SIGTERM]
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == before


@pytest.mark.parametrize(
    ("error", "received", "status"),
    [
        (KeyboardInterrupt(), [], 130),
        (KeyboardInterrupt(), [signal.SIGTERM], 143),
        (SystemError("returned a result with an exception set"), [signal.SIGINT], 130),
        (Interrupted(signal.SIGTERM), [], 143),
        (SystemError("another"), [], None),
        (InputError("a mistake"), [], None),
    ],
)
def test_errors_caused_by_a_signal_are_distinguished_from_others(
    error: BaseException, received: list[int], status: int | None
) -> None:
    stopped = stopped_by(error, received)
    assert (None if stopped is None else stopped.exit_status) == status


@pytest.mark.parametrize("name", ["\xe9.nii.gz".encode(), b"\xff.nii.gz"], ids=["not ASCII", "not UTF-8"])
def test_names_that_the_terminal_lacks_are_escaped(scans: Path, field: Path, tmp_path: Path, name: bytes) -> None:
    out = os.fsencode(tmp_path) + b"/" + name
    done = forked("apply", field, scans / "moving.nii.gz", "-o", out, before=write_ascii)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"{tmp_path}/\\")
    assert os.path.isfile(out)


def test_registration_of_files_whose_names_are_not_utf8_is_written_with_its_report(scans: Path, tmp_path: Path) -> None:
    folder = os.fsencode(tmp_path)
    pair = [folder + b"/fixed\xff.nii.gz", folder + b"/moving\xe4.nii.gz"]
    for path, name in zip(pair, ("fixed", "moving"), strict=True):
        Path(os.fsdecode(path)).write_bytes((scans / f"{name}.nii.gz").read_bytes())
    done = forked("register", *pair, "-o", folder + b"/out\xff", *QUICK[:-1])
    assert (done.returncode, done.stderr) == (0, "")
    page = Path(os.fsdecode(folder + b"/out\xff/report.html")).read_bytes().decode("utf-8")
    assert "moving\\xe4.nii.gz" in page
    found = json.loads(Path(os.fsdecode(folder + b"/out\xff/result.json")).read_bytes())
    assert os.fsencode(found["inputs"]["moving"]["path"]) == pair[1]


def test_folder_that_no_longer_exists_is_said(scans: Path) -> None:
    pair = [scans / "fixed.nii.gz", scans / "moving.nii.gz"]
    done = forked("register", *pair, "-o", "out", before=enter_a_folder_and_remove_it)
    assert (done.returncode, done.stdout) == (2, "")
    assert "current folder" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("name", ["out.h5", "out.tfm", "out.nrrd", "out.nii.gz", "out.npz", "ants"])
def test_transform_that_finds_no_room_is_refused_and_leaves_nothing(h5: Path, tmp_path: Path, name: str) -> None:
    formats = {"out.nii.gz": ["--to", "learn2reg"], "out.npz": ["--to", "numpy"], "ants": ["--to", "ants"]}
    words = ["convert", h5, "-o", tmp_path / "new" / name, *formats.get(name, [])]
    assert forked(*words, before=limit_files).returncode == 2
    (tmp_path / "new").mkdir()
    done = forked(*words, before=limit_files)
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert "no room" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert list((tmp_path / "new").iterdir()) == []


def test_registration_that_finds_no_room_is_refused_and_leaves_nothing(scans: Path, tmp_path: Path) -> None:
    pair = [scans / "fixed.nii.gz", scans / "moving.nii.gz"]
    done = forked("register", *pair, "-o", tmp_path / "new" / "out", *QUICK, before=limit_files)
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert "no room" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["apply", "{field}", "{scans}/moving.nii.gz", "-o"],
        ["convert", "{field}", "--to", "itk", "-o"],
    ],
    ids=lambda arguments: arguments[0],
)
@pytest.mark.parametrize(("name", "words"), [("", "which is a folder"), ("x" * 300 + ".nii.gz", "File name too long")])
def test_output_that_cannot_be_is_refused_before_the_work(
    scans: Path, field: Path, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch,
    arguments: list[str], name: str, words: str,
) -> None:  # fmt: skip
    def work(*args: object, **options: object) -> None:
        raise AssertionError("the work has begun")

    for step in ("apply.load_chain", "convert.Transform.load"):
        monkeypatch.setattr(f"corereg.io.transforms.{step}", work)
    words_given = [word.format(field=field, scans=scans) for word in arguments]
    assert words in one_line(command(*words_given, tmp_path / name))
    assert list(tmp_path.iterdir()) == []
