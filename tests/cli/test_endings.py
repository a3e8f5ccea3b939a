"""How a command ends early: signals, full disks, names and terminals that cannot be used. One line, nothing left."""

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import corereg
from corereg.cli.endings import describe, signals_raise, stopped_by
from corereg.errors import InputError, Interrupted
from helpers.commands import Command, one_line, process

QUICK = ["--affine", "none", "--refine-steps", "3", "--no-report"]

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals and limits of POSIX")


@pytest.mark.parametrize("flag", ["-V", "--version"])
def test_version_is_printed(command: Command, flag: str) -> None:
    assert command(flag) == (0, f"corereg {corereg.__version__}\n", "")


def test_module_is_the_command() -> None:
    done = subprocess.run([sys.executable, "-m", "corereg", "--version"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, f"corereg {corereg.__version__}\n")


def test_help_begins_with_register(command: Command) -> None:
    commands = [line.split()[1] for line in command("--help").out.split("Commands")[1].splitlines() if line[:3] == "│ " + line[2:3]]
    assert commands[:3] == ["register", "apply", "convert"]


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
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 143)], ids=lambda value: str(value)
)
def test_registration_stopped_by_a_signal_ends_with_one_line_and_leaves_nothing(
    scans: Path, tmp_path: Path, number: int, status: int
) -> None:
    """The optimisation runs in compiled code, where a KeyboardInterrupt becomes a SystemError."""
    pair = [str(scans / "fixed.nii.gz"), str(scans / "moving.nii.gz")]
    command = [sys.executable, "-m", "corereg", "register", *pair, "-o", str(tmp_path / "new" / "out")]
    command += ["--affine", "none", "--refine-steps", "100000"]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    end = time.monotonic() + 240
    while not (tmp_path / "new" / "out").exists():
        assert running.poll() is None, running.communicate()
        assert time.monotonic() < end
        time.sleep(0.05)
    time.sleep(4)
    running.send_signal(number)
    running.send_signal(number)  # as `timeout` does, which signals the process and its group
    out, err = running.communicate(timeout=120)
    assert (running.returncode, out) == (status, "")
    assert err == "corereg: interrupted; nothing was written\n"
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
    with pytest.raises(KeyboardInterrupt), signals_raise() as received:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(1)
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
def test_what_a_signal_caused_is_told_from_what_it_did_not(
    error: BaseException, received: list[int], status: int | None
) -> None:
    stopped = stopped_by(error, received)
    assert (None if stopped is None else stopped.exit_status) == status


def test_terminal_without_unicode_gets_escapes(scans: Path, tmp_path: Path) -> None:
    code = "import sys; sys.argv[4] += '/\\xe9'; from corereg.cli import main; main()"
    arguments = [sys.executable, "-c", code, "apply", str(scans / "field.nii.gz"), str(scans / "moving.nii.gz"), "-o"]
    assert arguments  # the name is made in the process: the encoding of arguments is not what is tested
    done = subprocess.run(
        [sys.executable, "-c", f"print('\\xe9', end=''); {PRINTS}"],
        capture_output=True,
        env=os.environ | {"PYTHONIOENCODING": "ascii"},
    )
    assert done.returncode == 1
    done = subprocess.run(
        [sys.executable, "-c", PRINTS], capture_output=True, env=os.environ | {"PYTHONIOENCODING": "ascii"}
    )
    assert (done.returncode, done.stdout) == (0, b"\\xe9 \\udcff\n")


PRINTS = "from corereg.cli.endings import write_any_character; write_any_character(); print('\\xe9 \\udcff')"
