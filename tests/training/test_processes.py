"""Training in processes of its own: one that a signal ends, and two that share the work."""

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from corereg.training.checkpoint import CHECKPOINT, load_checkpoint
from helpers.forks import stopped
from helpers.training import SMALL, comparable, rows_of, same, weights_of


def command_of(dataset: Path, folder: Path, cache: Path, settings: Path) -> list[str]:
    """The program as a user starts it."""
    code = "from corereg.cli import main; main()"
    return [sys.executable, "-c", code, *options_of(dataset, folder, cache, settings)]


def options_of(dataset: Path, folder: Path, cache: Path, settings: Path) -> list[str]:
    options = ["--cache", str(cache), "--config", str(settings), "--device", "cpu"]
    return ["train", str(dataset), "-o", str(folder), *options]


@pytest.mark.slow
def test_a_run_killed_without_warning_resumes_from_its_last_checkpoint(
    finished: Path, cohort_json: Path, cache: Path, tmp_path: Path
):
    folder, settings = tmp_path / "run", tmp_path / "settings.yaml"
    settings.write_text(yaml.safe_dump(SMALL))
    process = subprocess.Popen(command_of(cohort_json, folder, cache, settings), stderr=subprocess.PIPE)
    _wait_for(lambda: sum("loss" in row for row in _readable_rows(folder)) >= 2, process)
    process.kill()
    process.communicate()
    again = [*command_of(cohort_json, folder, cache, settings), "--resume"]
    subprocess.run(again, check=True, capture_output=True, timeout=300)
    assert comparable(folder) == comparable(finished)
    assert same(weights_of(folder), weights_of(finished))


def test_sigterm_saves_first_and_says_how_to_resume(cohort_json: Path, cache: Path, tmp_path: Path):
    folder, settings = tmp_path / "run", tmp_path / "settings.yaml"
    settings.write_text(yaml.safe_dump(SMALL | {"steps_per_cycle": 1000, "checkpoint_every": 1000}))
    done = stopped(
        options_of(cohort_json, folder, cache, settings),
        lambda: sum("loss" in row for row in _readable_rows(folder)) >= 2,
        signal.SIGTERM,
    )
    assert done.returncode == 143
    assert "--resume" in done.stderr
    state = load_checkpoint(folder / CHECKPOINT)
    assert state.step == sum("loss" in row for row in rows_of(folder)) > 0


def _readable_rows(folder: Path) -> list[dict[str, Any]]:
    try:
        return rows_of(folder)
    except (OSError, ValueError):
        return []


def _wait_for(condition: Any, process: subprocess.Popen[Any]) -> None:
    end = time.monotonic() + 240
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.1)


def test_two_processes_hold_the_same_weights_and_see_different_pairs(cohort_json: Path, cache: Path, tmp_path: Path):
    code = f"""
import sys
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
from helpers.training import SMALL, note_what_ranks_see

note_what_ranks_see(Path({str(tmp_path)!r}))  # in spawned processes too, which import this file

if __name__ == "__main__":
    from corereg.training.train import train
    train({str(cohort_json)!r}, {str(tmp_path / "run")!r}, settings=SMALL | {{"cycles": 1}}, device="cpu",
          cache={str(cache)!r}, devices=2)
"""
    script = tmp_path / "two.py"
    script.write_text(code)
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr[-3000:]
    states = [torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in (0, 1)]
    assert same(*(state["weights"] for state in states))
    drawn = [state["drawn"] for state in states]
    assert len(drawn[0]) == len(drawn[1]) == 3
    assert all(first != second for first, second in zip(*drawn, strict=True))
