"""Stopped benchmarks: they end their methods, say so in one line and leave only finished results."""

import json
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from corereg.evaluation.benchmark.rows import append_row, read_rows
from helpers.processes import runs

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")

HANG = """
import os, pathlib, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(600)"])
pathlib.Path(sys.argv[-1]).write_text(f"{os.getpid()} {child.pid}")
time.sleep(600)
"""
STOPS = [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 143)]


def start(dataset: Path, folder: Path) -> "tuple[subprocess.Popen[str], list[int]]":
    """Start a benchmark whose only method hangs; return it and the method's processes once they run."""
    script, pids = folder / "hang.py", folder / "pids"
    script.write_text(HANG)
    command = " ".join(
        [shlex.quote(sys.executable), "-S", shlex.quote(str(script)), "{fixed} {moving} {out}", str(pids)]
    )
    (folder / "mine.yaml").write_text(json.dumps([{"name": "hang", "command": command}]))
    words = ["benchmark", str(dataset), "-o", str(folder / "new" / "out"), "--methods", "hang"]
    running = subprocess.Popen(
        [sys.executable, "-m", "corereg", *words, "--peers", str(folder / "mine.yaml")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 240
    while not pids.is_file() or len(pids.read_text("utf-8").split()) < 2:
        assert running.poll() is None, running.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return running, [int(pid) for pid in pids.read_text("utf-8").split()]


@pytest.mark.parametrize(("number", "status"), STOPS, ids=str)
def test_method_ends_and_nothing_is_left(number, status, cohort, tmp_path):
    running, pids = start(cohort.path, tmp_path)
    running.send_signal(number)
    out, err = running.communicate(timeout=120)
    assert (running.returncode, out) == (status, "")
    assert err == "corereg: interrupted; rerun the same command to resume\n"
    assert not any(map(runs, pids))
    assert not (tmp_path / "new").exists()


def test_finished_rows_stay(cohort, tmp_path):
    out = tmp_path / "new" / "out"
    out.mkdir(parents=True)
    finished = {"method": "other", "settings_hash": "x", "fixed": "f", "moving": "m", "status": "ok"}
    append_row(out / "rows.jsonl", finished)
    running, _ = start(cohort.path, tmp_path)
    running.send_signal(signal.SIGTERM)
    running.communicate(timeout=120)
    assert read_rows(out / "rows.jsonl") == [finished]
    assert [path.name for path in out.iterdir()] == ["rows.jsonl"]
