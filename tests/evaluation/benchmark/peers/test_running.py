"""Running other tools: bounded, measured, failures recorded."""

import sys
import time
from pathlib import Path

import pytest

from corereg.evaluation.benchmark.peers.catalogue import Method
from corereg.evaluation.benchmark.peers.running import Run, run_method
from helpers.processes import runs


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


class TestRunning:
    def test_time_memory_and_words_are_kept(self, tmp_path):
        script = (
            "import sys, time; print('hello'); b = bytearray(10**8); time.sleep(0.6); open(sys.argv[2], 'w').close()"
        )
        found = run(script, tmp_path)
        assert found.ok
        assert 0.6 < found.process_seconds < 15
        assert 95 < found.peak_memory_mb < 400
        assert (tmp_path / "log.txt").read_text("utf-8") == "hello\n"

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

    @pytest.mark.skipif(sys.platform == "win32", reason="process groups")
    @pytest.mark.parametrize("session", ["same session", "new session"])
    def test_children_that_outlive_the_method_are_ended(self, session, tmp_path):
        script = (
            "import subprocess, sys, time; "
            "child = subprocess.Popen([sys.executable, '-S', '-c', 'import time; time.sleep(600)'], "
            f"start_new_session={session == 'new session'}); "
            "print(child.pid, flush=True); time.sleep(1); open(sys.argv[2], 'w').close()"
        )
        assert run(script, tmp_path).ok
        child = int((tmp_path / "log.txt").read_text("utf-8"))
        deadline = time.perf_counter() + 15
        while runs(child):
            assert time.perf_counter() < deadline
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
        assert (tmp_path / "log").read_text("utf-8").split() == ["3", "9"]
