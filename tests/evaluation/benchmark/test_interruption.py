"""Stopped benchmarks: they end their methods, say so in one line and leave only finished results."""

import json
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from corereg.evaluation.benchmark.rows import append_row, read_rows
from helpers.forks import stopped
from helpers.processes import runs

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")

HANG = """
import os, pathlib, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(600)"])
pathlib.Path(sys.argv[-1]).write_text(f"{os.getpid()} {child.pid}")
time.sleep(600)
"""
STOPS = [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 143)]


def stop(dataset: Path, folder: Path, number: int) -> "tuple[subprocess.CompletedProcess[str], list[int]]":
    """Stop a benchmark whose only method hangs once that runs; return how it ended, and the method's processes."""
    script, pids = folder / "hang.py", folder / "pids"
    script.write_text(HANG)
    command = " ".join(
        [shlex.quote(sys.executable), "-S", shlex.quote(str(script)), "{fixed} {moving} {out}", str(pids)]
    )
    (folder / "mine.yaml").write_text(json.dumps([{"name": "hang", "command": command}]))
    words = ["benchmark", dataset, "-o", folder / "new" / "out", "--methods", "hang", "--peers", folder / "mine.yaml"]
    done = stopped(words, lambda: pids.is_file() and len(pids.read_text("utf-8").split()) == 2, number)
    return done, [int(pid) for pid in pids.read_text("utf-8").split()]


@pytest.mark.parametrize(("number", "status"), STOPS, ids=str)
def test_method_ends_and_nothing_is_left(number, status, cohort, tmp_path):
    done, pids = stop(cohort.path, tmp_path, number)
    assert (done.returncode, done.stdout) == (status, "")
    assert done.stderr == "corereg: interrupted; rerun the same command to resume\n"
    assert not any(map(runs, pids))
    assert not (tmp_path / "new").exists()


def test_finished_rows_stay(cohort, tmp_path):
    out = tmp_path / "new" / "out"
    out.mkdir(parents=True)
    finished = {"method": "other", "settings_hash": "x", "fixed": "f", "moving": "m", "status": "ok"}
    append_row(out / "rows.jsonl", finished)
    stop(cohort.path, tmp_path, signal.SIGTERM)
    assert read_rows(out / "rows.jsonl") == [finished]
    assert [path.name for path in out.iterdir()] == ["rows.jsonl"]
