"""What a command says, and where: --quiet, --verbose, --json, --log-file, --force, completion and help."""

import gzip
import io
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import typer

from corereg.cli import app, messages
from corereg.method.config import MODELS
from corereg.progress import Step
from helpers.commands import Command, one_line

QUICK = ["--affine", "none", "--refine-steps", "2", "--spacing", "6", "--no-report"]


def objects(text: str) -> dict[str, object]:
    """The one JSON object that the text consists of."""
    found = json.loads(text)
    assert isinstance(found, dict)
    return found


@pytest.fixture(scope="module")
def words(scans: Path) -> list[object]:
    return ["register", scans / "fixed.nii.gz", scans / "moving.nii.gz", *QUICK, "-o"]


@pytest.mark.parametrize("place", ["before", "after"])
def test_json_is_all_that_stands_on_stdout(words: list[object], tmp_path: Path, command: Command, place: str) -> None:
    given = [*words, tmp_path / "out"]
    done = command(*(["--json", *given] if place == "before" else [*given, "--json"]))
    assert (done.status, done.err) == (0, "")
    assert objects(done.out) == objects((tmp_path / "out" / "result.json").read_text("utf-8"))


def test_json_of_apply_and_convert_names_the_output(h5: Path, tmp_path: Path, command: Command) -> None:
    done = command("convert", h5, "-o", tmp_path / "field.nii.gz", "--to", "itk-field", "--json")
    found = objects(done.out)
    assert found["output"] == str(tmp_path / "field.nii.gz")
    assert found["remarks"] == [line.removeprefix("corereg: ") for line in done.err.splitlines()]
    (tmp_path / "points.csv").write_text("# CoordinateSystem = RAS\nx,y,z\n1,2,3\n")
    done = command("apply", h5, tmp_path / "points.csv", "-o", tmp_path / "there.csv", "--json")
    assert objects(done.out)["output"] == str(tmp_path / "there.csv")


def test_quiet_says_nothing_but_errors(words: list[object], tmp_path: Path, command: Command) -> None:
    assert command(*words, tmp_path / "out", "--quiet") == (0, "", "")
    assert "no.nii" in one_line(command("register", "no.nii", "no.nii", "-o", tmp_path / "new", "--quiet"))


def test_verbose_names_each_stage_once_with_its_time(words: list[object], tmp_path: Path, command: Command) -> None:
    lines = command(*words, tmp_path / "out", "--verbose").err.splitlines()
    lines = [line for line in lines if " warning: " not in line]
    assert all(" s: " in line for line in lines), lines
    stages = [line.split(" s: ")[1] for line in lines]
    assert stages[0] == "reading"
    assert stages[-1] == "writing"
    assert "refining, step 1 of 2" in stages
    assert stages.count("reading") == 1
    seconds = [float(line.removeprefix("corereg: ").split(" s: ")[0]) for line in lines]
    assert seconds == sorted(seconds)


def test_log_file_keeps_result_and_errors_of_several_commands(h5: Path, tmp_path: Path, command: Command) -> None:
    log = tmp_path / "log.txt"
    done = command("convert", h5, "-o", tmp_path / "out.tfm", "--only", "affine", "--log-file", log, "--quiet")
    assert done == (0, "", "")
    refused = one_line(command("--log-file", log, "convert", tmp_path / "no.h5", "-o", tmp_path / "out.h5"))
    text = log.read_text("utf-8")
    assert text.count(" started\n") == 2
    assert f" {tmp_path / 'out.tfm'}\n" in text
    assert f" {refused}" in text
    assert "log file" in one_line(command("info", "--log-file", tmp_path / "no" / "log.txt"))


@pytest.mark.parametrize("name", ["transform.h5", "scan.nii.gz", "points.csv"])
def test_log_file_that_is_no_log_stays_as_it_is(h5: Path, tmp_path: Path, command: Command, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(
        {"transform.h5": h5.read_bytes(), "scan.nii.gz": gzip.compress(bytes(9), mtime=0)}.get(name, b"x,y")
    )
    before = path.read_bytes()
    assert "holds something else" in one_line(command("info", "--log-file", path))
    assert path.read_bytes() == before


def test_existing_result_is_replaced_only_with_force(words: list[object], tmp_path: Path, command: Command) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "warped.nii.gz").write_text("mine")
    assert "--force" in one_line(command(*words, tmp_path / "out"))
    assert (tmp_path / "out" / "warped.nii.gz").read_text("utf-8") == "mine"
    assert command(*words, tmp_path / "out", "--force").status == 0
    assert "result.json" in {file.name for file in (tmp_path / "out").iterdir()}


@pytest.mark.parametrize(
    ("arguments", "name", "made"),
    [
        (["convert", "{h5}", "-o", "{out}"], "again.h5", "again.h5"),
        (["convert", "{h5}", "--to", "ants", "-o", "{out}"], "pair_", "pair_1Warp.nii.gz"),
        (["apply", "{h5}", "--jacobian", "{out}"], "det.nii.gz", "det.nii.gz"),
        (["apply", "{h5}", "--jacobian", "{out}"], "det.mhd", "det.zraw"),
        (["export", "head-neck-ct", "--to", "torchscript", "-o", "{out}"], "net.ts", "net.ts"),
        (["export", "head-neck-ct", "--to", "monai-bundle", "-o", "{out}"], "bundle", "bundle/LICENSE"),
    ],
    ids=["convert", "convert to several files", "apply", "apply to two files", "export", "export of a bundle"],
)
def test_existing_file_is_replaced_only_with_force(
    h5: Path, tmp_path: Path, command: Command, arguments: list[str], name: str, made: str
) -> None:
    given = [word.format(h5=h5, out=tmp_path / name) for word in arguments]
    (tmp_path / made).parent.mkdir(exist_ok=True)
    (tmp_path / made).write_text("mine")
    assert "--force" in one_line(command(*given))
    assert (tmp_path / made).read_text("utf-8") == "mine"
    assert command(*given, "--force").status == 0
    assert (tmp_path / made).read_bytes() != b"mine"


@pytest.mark.parametrize("name", ["warped.nii.gz", "transform.H5", "scan.nrrd"])
def test_folder_named_like_a_file_is_refused(words: list[object], tmp_path: Path, command: Command, name: str) -> None:
    assert "named like a file" in one_line(command(*words, tmp_path / name))
    assert list(tmp_path.iterdir()) == []


def test_last_line_says_what_was_done_and_how_long_it_took(
    words: list[object], tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("corereg.cli.register.elapsed", lambda: 12.34)
    (line,) = command(*words, tmp_path / "out").out.splitlines()
    assert line.startswith(f"{tmp_path / 'out'}: PASS, CT, affine off, grid ")
    for part in (" at 6 mm, ", "SDlogJ ", "folds ", "inverse error "):
        assert part in line
    assert line.endswith(", 12.3 s")


@pytest.mark.parametrize("name", sorted(typer.main.get_command(app).commands))
def test_help_gives_no_flag_a_type(command: Command, name: str) -> None:
    done = command(name, "--help")
    assert done.status == 0
    assert "bool" not in done.out.lower().replace("boolean", "")
    assert "--quiet" in done.out


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("corereg re", {"register", "reproduce"}),
        ("corereg register --model ", set(MODELS)),
        ("corereg batch --similarity ", {"auto", "features", "correlation"}),
    ],
)
def test_shell_completes_commands_models_and_choices(typed: str, offered: set[str]) -> None:
    words = {"COMP_WORDS": typed, "COMP_CWORD": str(typed.count(" ")), "_COREREG_COMPLETE": "complete_bash"}
    code = "import sys; sys.argv[0] = 'corereg'; from corereg.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", code], env=os.environ | words, capture_output=True, text=True)
    assert set(done.stdout.split()) == offered, done.stderr


def test_help_of_the_model_names_those_on_board() -> None:
    (model,) = (o for o in typer.main.get_command(app).commands["register"].params if o.name == "model")
    assert all(name in model.help for name in MODELS)


class Terminal(io.StringIO):
    """Stands in for a terminal of 100 columns."""

    def isatty(self) -> bool:
        return True


def test_bar_shows_stage_percentage_and_time_left_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    for name, value in {"COLUMNS": "100", "TERM": "xterm", "NO_COLOR": "1"}.items():
        monkeypatch.setenv(name, value)
    shown = []
    messages.begin()
    with messages.progress_bar() as progress:
        for text in ("reading", Step("pair [a]", 0, 4), Step("pair [b]", 2, 4), "writing"):
            progress(text)
            time.sleep(0.25)  # the bar redraws ten times a second
            shown.append(terminal.getvalue())
            terminal.truncate(0)
    assert "reading" in shown[0]
    assert "%" not in shown[0] + shown[3].split("writing", 1)[1]
    assert re.search(r"pair \[a\].* 0%", shown[1])
    assert re.search(r"pair \[b\].*50% \d+ s left", shown[2])
