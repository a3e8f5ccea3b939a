"""Runs that are stopped, killed and resumed end as the run that nothing interrupted."""

import shutil
import signal
import threading
from pathlib import Path

import pytest

from corereg.errors import Interrupted
from corereg.training.checkpoint import CHECKPOINT, load_checkpoint
from corereg.training.monitor import Monitor
from corereg.training.process import MODEL
from corereg.training.session import Session
from corereg.training.train import train
from helpers.training import comparable, rows_of, run, same, weights_of


def test_a_run_stopped_at_every_step_and_resumed_is_the_run_that_was_not(
    finished: Path, cohort_json: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """While it labels its first pairs, then after each step; after the last one of a cycle, the cycle is finished."""
    folder = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(threading.Event, "is_set", lambda self: True)
        with pytest.raises(Interrupted):
            run(cohort_json, folder, cache)
    state = load_checkpoint(folder / CHECKPOINT)
    assert (state.cycle, state.step) == (0, 0)
    monkeypatch.setattr(Session, "anyone_stops", lambda self: True)
    for saved in [(0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]:
        with pytest.raises(Interrupted):
            run(cohort_json, folder, cache, resume=True)
        state = load_checkpoint(folder / CHECKPOINT)
        assert (state.cycle, state.step) == saved
    run(cohort_json, folder, cache, resume=True)
    assert comparable(folder) == comparable(finished)
    assert same(weights_of(folder), weights_of(finished))


@pytest.mark.parametrize("pairs_done", [0, 1])
def test_a_validation_that_is_stopped_is_done_again_after_resuming(
    finished: Path, cohort_json: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pairs_done: int
):
    """Stopped before its only pair, or before it looks for features; after the first cycle, then after the last."""
    folder = tmp_path / "run"

    def stop(self: Monitor, cycle: int, done: int, pairs: int) -> None:
        assert pairs == 1
        if done == pairs_done:
            signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(Monitor, "validated", stop)
        with pytest.raises(Interrupted):
            run(cohort_json, folder, cache)
    state = load_checkpoint(folder / CHECKPOINT)
    assert (state.cycle, state.step) == (0, state.config.steps_per_cycle)
    with monkeypatch.context() as patch:
        patch.setattr(Monitor, "validated", lambda self, cycle, *_: stop(self, cycle, *_) if cycle else None)
        with pytest.raises(Interrupted):
            run(cohort_json, folder, cache, resume=True)
    state = load_checkpoint(folder / CHECKPOINT)
    assert (state.cycle, state.step) == (1, state.config.steps_per_cycle)
    assert not (folder / MODEL).exists()
    run(cohort_json, folder, cache, resume=True)
    assert comparable(folder) == comparable(finished)
    assert same(weights_of(folder), weights_of(finished))


def test_a_finished_run_that_is_resumed_stays_as_it_is(finished: Path, cohort_json: Path, cache: Path, tmp_path: Path):
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    run(cohort_json, folder, cache, resume=True)
    assert comparable(folder) == comparable(finished)
    assert same(weights_of(folder), weights_of(finished))


def test_more_stages_extend_a_finished_run(finished: Path, cohort_json: Path, cache: Path, tmp_path: Path):
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    train(cohort_json, folder, device="cpu", cache=cache, more_stages=1)
    assert [row["cycle"] for row in rows_of(folder) if "dice" in row] == [0, 1, 2]
    assert load_checkpoint(folder / CHECKPOINT).config.cycles == 3
    assert not same(weights_of(folder), weights_of(finished))
