"""Other people's tools: found or named as missing, bounded, measured, never faked; and each convention right."""

import json
import os
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from typer.testing import CliRunner

from corereg.cli import app
from corereg.errors import InputError
from corereg.evaluation.benchmark.peers.catalogue import METHODS, UNAVAILABLE, Method, find_method, read_templates
from corereg.evaluation.benchmark.peers.environments import install, is_installed, peers_folder, python_of
from corereg.evaluation.benchmark.peers.running import Run, command_of, run_method
from corereg.evaluation.field_files import read_field
from corereg.io.images.image import write_image
from helpers.scenes import centred_grid, scan


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("COREREG_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "peers"


def python_method(script: str) -> Method:
    """A user's method whose command is a line of Python."""
    return Method(
        name="mine", title="mine", settings="", command=(sys.executable, "-S", "-c", script, "{fixed}", "{out}")
    )


def run(script: str, folder: Path, budget_seconds: float = 20.0) -> Run:
    out = folder / "field.nii.gz"
    return run_method(
        python_method(script), folder, folder, out, budget_seconds=budget_seconds, log=folder / "log.txt", threads=1
    )


def runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


class TestRunning:
    def test_time_memory_and_words_are_kept(self, tmp_path):
        script = (
            "import sys, time; print('hello'); b = bytearray(10**8); time.sleep(0.6); open(sys.argv[2], 'w').close()"
        )
        found = run(script, tmp_path)
        assert found.ok
        assert 0.6 < found.process_seconds < 15
        assert 95 < found.peak_memory_mb < 400
        assert (tmp_path / "log.txt").read_text() == "hello\n"

    def test_crash_is_recorded_with_its_last_lines(self, tmp_path):
        found = run("print('one'); print('the reason'); raise SystemExit(3)", tmp_path)
        assert found.status == "failed with exit status 3"
        assert found.tail == "one\nthe reason"

    @pytest.mark.skipif(sys.platform == "win32", reason="signals")
    def test_death_by_a_signal_is_named(self, tmp_path):
        assert run("import os; os.abort()", tmp_path).status == "failed with signal SIGABRT"

    def test_hang_is_ended_with_everything_that_it_started(self, tmp_path):
        script = (
            "import subprocess, sys, time; "
            "child = subprocess.Popen([sys.executable, '-S', '-c', 'import time; time.sleep(600)']); "
            "print(child.pid, flush=True); time.sleep(600)"
        )
        started = time.perf_counter()
        found = run(script, tmp_path, budget_seconds=2.0)
        assert found.status == "ended after 2 s"
        assert time.perf_counter() - started < 15
        while runs(int(found.tail)):
            assert time.perf_counter() - started < 15
            time.sleep(0.05)

    def test_no_field_and_no_such_command_are_named(self, tmp_path):
        assert run("pass", tmp_path).status == "wrote no field"
        missing = Method(name="mine", title="", settings="", command=("/no/such/tool", "{fixed}{moving}{out}"))
        out = tmp_path / "x.nii.gz"
        found = run_method(missing, tmp_path, tmp_path, out, budget_seconds=5.0, log=tmp_path / "log")
        assert found.status.startswith("cannot be started")

    def test_threads_and_seed_reach_the_tool(self, tmp_path):
        script = "import os, sys; print(os.environ['OMP_NUM_THREADS'], os.environ['ANTS_RANDOM_SEED'])"
        out = tmp_path / "x.nii.gz"
        method = python_method(script)
        run_method(method, tmp_path, tmp_path, out, threads=3, seed=9, budget_seconds=20.0, log=tmp_path / "log")
        assert (tmp_path / "log").read_text().split() == ["3", "9"]


class TestTemplates:
    def test_command_is_filled_in_word_by_word(self, tmp_path):
        path = tmp_path / "mine.yaml"
        path.write_text(
            "- name: deeds\n  title: DEEDs\n  settings: published\n"
            "  command: 'deedsBCV -F {fixed} -M {moving} -O {out} -t {threads}'\n"
        )
        (method,) = read_templates(path)
        assert (method.name, method.title, method.settings) == ("deeds", "DEEDs", "published")
        places = (Path("my scans/a.nii.gz"), Path("b.nii.gz"), Path("o.nii.gz"))
        words = command_of(method, *places, affine="none", threads=2, seed=1)
        assert words == ["deedsBCV", "-F", "my scans/a.nii.gz", "-M", "b.nii.gz", "-O", "o.nii.gz", "-t", "2"]
        assert find_method("deeds", [method]) is method

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("name: x", "YAML list"),
            ("- [", "cannot be read"),
            ("- name: x", "`name`, `command`"),
            ("- {name: x, command: a, more: b}", "`name`, `command`"),
            ("- {name: x, command: 'a {fixed} {moving}'}", "{out}"),
            ("- {name: x, command: 'a {fixed} {moving} {out} {other}'}", "unknown placeholder"),
        ],
    )
    def test_other_files_are_refused(self, text, words, tmp_path):
        (tmp_path / "mine.yaml").write_text(text)
        with pytest.raises(InputError, match=words.replace("{", r"\{")):
            read_templates(tmp_path / "mine.yaml")


class TestCatalogue:
    def test_unknown_methods_are_refused_with_the_reason_where_there_is_one(self):
        with pytest.raises(InputError, match="expected one of corereg, ants-syn"):
            find_method("nonsense")
        for name in UNAVAILABLE:
            with pytest.raises(InputError, match=f"got the method '{name}' \\("):
                find_method(name)
        assert find_method("ants") is METHODS["ants-syn"]

    def test_every_method_pins_what_it_is_made_of(self):
        for method in METHODS.values():
            assert method.settings
            assert method.name == "corereg" or "==" in method.packages[0]

    def test_missing_tools_are_named_and_not_run(self, cache):
        assert peers_folder() == cache
        assert not is_installed(METHODS["greedy"])
        said = CliRunner().invoke(app, ["peers"]).output
        assert "corereg peers install greedy" in said
        assert "voxelmorph" in said

    def test_half_made_environment_is_not_taken_for_one(self, cache):
        folder = python_of(METHODS["greedy"]).parent
        folder.mkdir(parents=True)
        python_of(METHODS["greedy"]).touch()
        assert not is_installed(METHODS["greedy"])
        (cache / "greedy" / "installed.json").write_text(json.dumps(["picsl-greedy==0.1"]))
        assert not is_installed(METHODS["greedy"])
        (cache / "greedy" / "installed.json").write_text(json.dumps(METHODS["greedy"].packages))
        assert is_installed(METHODS["greedy"])

    def test_failed_installation_says_why_and_leaves_nothing(self, cache, monkeypatch):
        monkeypatch.setenv("PIP_NO_INDEX", "1")
        nowhere = Method(name="nowhere", title="", settings="", packages=("no-such-package-at-all==1",))
        with pytest.raises(InputError, match=r"failed \(.*no-such-package-at-all"):
            install(nowhere)
        assert list(cache.iterdir()) == []

    @pytest.mark.parametrize("words", [["install"], ["install", "nonsense"], ["remove"]])
    def test_mistaken_commands_are_refused(self, words, cache):
        assert isinstance(CliRunner().invoke(app, ["peers", *words]).exception, InputError)


SHIFT_MM = np.array([7.0, -5.0, 6.0])


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in METHODS])
@pytest.mark.parametrize("affine", ["none", "auto"])
def test_real_tool_finds_a_known_shift(name, affine, tmp_path):
    """In an oblique grid of unequal spacing: a wrong axis, sign, unit or direction would double the error."""
    method = METHODS[name]
    if not is_installed(method):
        pytest.skip(f"not installed: corereg peers install {name}")
    grid = centred_grid((64, 56, 48), (2.5, 2.8, 3.2), "oblique")
    fixed, moving = tmp_path / "fixed.nii.gz", tmp_path / "moving.nii.gz"
    write_image(fixed, scan(grid).array, grid)
    write_image(moving, scan(grid, shifted).array, grid)
    out = tmp_path / "work" / "field.nii.gz"
    out.parent.mkdir()
    threads = os.cpu_count() or 1
    found = run_method(
        method, fixed, moving, out, affine=affine, threads=threads, budget_seconds=300.0, log=tmp_path / "log"
    )
    assert found.ok, found
    assert found.seconds is not None
    assert 0 < found.seconds < found.process_seconds
    assert found.version is not None
    disp_vox = read_field(out, grid, grid).own_vox
    offsets_mm = np.moveaxis(np.einsum("ac,cijk->aijk", grid.linear, disp_vox), 0, -1)
    body = scan(grid).array > -200
    error_mm = np.linalg.norm(offsets_mm - SHIFT_MM, axis=-1)[body].mean()
    assert error_mm < 0.6 * np.linalg.norm(SHIFT_MM)


def shifted(points_mm):
    """What the moving scan shows at q lies at q - shift in the patient, so that fixed p matches p + shift."""
    return points_mm - SHIFT_MM
