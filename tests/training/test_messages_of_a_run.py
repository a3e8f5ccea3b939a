"""What a run says: where it is, of how much; settings that can be edited; what is missing, before scans are read."""

import csv
import math
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
import yaml
from lightning_fabric import Fabric

from corereg.progress import Meter, Step
from corereg.settings import as_settings, read_settings, settings_of, with_settings
from corereg.training import forecast, trial
from corereg.training.config import TrainConfig
from corereg.training.config_file import commented_yaml
from corereg.training.forecast import PAIR, STEP, VALIDATION, Forecast
from corereg.training.loggers import LOGGERS, open_logger
from corereg.training.monitor import Monitor
from corereg.training.recipes import RECIPES, get_recipe
from corereg.training.scans.volumes import Volumes
from corereg.training.session import Session
from corereg.training.stopping import StopRequest
from corereg.training.train import train
from corereg.training.trial import Trial, describe, try_out
from corereg.training.validation import Validation, goodness
from helpers.networks import made_up_model
from helpers.refusals import refusal


def test_cycles_and_steps_are_counted_from_one_of_all(tmp_path: Path) -> None:
    heard: list[str] = []
    monitor = Monitor(tmp_path, Forecast([{PAIR: 4, STEP: 10}] * 3), progress=heard.append)
    monitor.start(0, 0)
    monitor.step({"cycle": 1, "step": 4, "loss": 0.5, "learning_rate": 1e-3}, images=2)
    monitor.sweep(2, 1, 4)
    assert heard[0].startswith("cycle 2 of 3, step 5 of 10: loss 0.5")
    assert heard[1] == "cycle 3 of 3: pseudo-labels, 1 of 4 pairs"
    assert [(step.done, step.total) for step in heard if isinstance(step, Step)] == [(15, 30), (20, 30)]


@pytest.mark.parametrize("recipe", sorted(RECIPES))
def test_commented_settings_read_back_as_they_were(tmp_path: Path, recipe: str) -> None:
    config = get_recipe(recipe)
    path = tmp_path / "config.yaml"
    path.write_text(commented_yaml(config), encoding="utf-8")
    assert yaml.safe_load(path.read_text("utf-8")) == as_settings(config)
    assert with_settings(TrainConfig(), read_settings(path)) == config


def test_every_setting_stands_below_its_meaning() -> None:
    text = commented_yaml(TrainConfig())
    flat = " ".join(line.strip().removeprefix("# ") for line in text.splitlines())
    for setting in settings_of(TrainConfig()):
        assert " ".join(setting.meaning.split()) in flat
    assert max(map(len, text.splitlines())) <= 120


@pytest.mark.parametrize("logger", ["tensorboard", "wandb", "mlflow", "clearml"])
def test_a_missing_logger_is_reported_before_anything_is_read(tmp_path: Path, logger: str) -> None:
    if logger in LOGGERS and all(map(find_spec, LOGGERS[logger][1])):
        pytest.skip(f"{logger} is installed")
    message = refusal(train, tmp_path / "no data set", tmp_path / "run", logger=logger)
    assert f"got --logger {logger}" in message
    assert ("expected one of tensorboard, wandb, mlflow, csv" if logger == "clearml" else "pip install") in message
    assert not (tmp_path / "run").exists()


@pytest.mark.filterwarnings("ignore")  # those of the loggers' own packages
@pytest.mark.parametrize("name", sorted(LOGGERS))
def test_a_logger_receives_the_numbers_and_a_resumed_run_continues_its_record(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five steps, of which the last two are lost and run again."""
    if not all(map(find_spec, LOGGERS[name][1])):
        pytest.skip(f"{name} is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    opened = partial(open_logger, name, tmp_path, TrainConfig())
    for start, stop in ((0, 5), (3, 6)):
        monitor = Monitor(tmp_path, Forecast([{STEP: 6}]), progress=lambda line: None, open_logger=opened)
        monitor.start(0, start)
        for step in range(start, stop):
            row = {"cycle": 0, "step": step, "loss": 2.0 - step / 4, "learning_rate": 1e-3}
            monitor.step(row, images=2)
        monitor.close()
    memory = tmp_path / f"{name}.txt"
    if name == "csv":
        with (tmp_path / "csv" / "metrics.csv").open(encoding="utf-8") as file:
            assert [float(row["loss"]) for row in csv.DictReader(file)] == [2.0, 1.75, 1.5, 1.25, 1.0, 0.75]
    elif name == "tensorboard":
        assert len(list((tmp_path / "tensorboard").glob("events.*"))) == 2
    elif name == "wandb":
        assert any(memory.read_text("utf-8") in path.name for path in (tmp_path / "wandb").iterdir())
    else:
        from mlflow import MlflowClient

        client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
        losses = client.get_metric_history(memory.read_text("utf-8"), "loss")
        assert {point.step: point.value for point in losses} == {n + 1: 2.0 - n / 4 for n in range(6)}


def test_time_left_counts_all_kinds_of_work_at_the_speed_measured_last(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two cycles of 4 labels of 3 s, 10 steps of 2 s and 2 validations of 5 s."""
    clock = [100.0]
    monkeypatch.setattr(forecast.time, "perf_counter", lambda: clock[0])
    run = Forecast([{PAIR: 4, STEP: 10, VALIDATION: 2}] * 2)
    run.reach(0, PAIR, 0)
    assert math.isnan(run.seconds_left())
    run.tried.update({PAIR: 1.0, STEP: 1.0, VALIDATION: 1.0})
    assert run.seconds_left() == 2 * 16
    for kind, seconds, units in ((PAIR, 3.0, 4), (STEP, 2.0, 10), (VALIDATION, 5.0, 2)):
        run.reach(0, kind, 0)
        for done in range(1, units + 1):
            clock[0] += seconds
            run.reach(0, kind, done)
        if kind == PAIR:
            assert run.seconds_left() == 4 * 3 + 2 * 10 + 2 * 2
    assert run.seconds_left() == 4 * 3 + 10 * 2 + 2 * 5
    run.reach(1, STEP, 4)
    assert run.seconds_left() == 6 * 2 + 2 * 5
    run.reach(2, PAIR, 0)
    assert run.seconds_left() == 0


def test_the_best_model_is_that_of_the_cycle_with_the_highest_dice_also_after_a_resume(
    tmp_path: Path, volumes: Volumes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four cycles, of which the third is the best; the run is resumed after the second."""
    monkeypatch.setattr(Monitor, "draw", lambda self: None)
    dices, kept = iter([0.5, 0.4, 0.7, 0.6]), []
    monkeypatch.setattr(Validation, "measure", lambda *_: {"dice": next(dices), "sdlogj": 0.1})
    network, config = torch.nn.Linear(2, 1), with_settings(TrainConfig(), {"cycles": 4})
    for cycles in ((0, 1), (2, 3)):
        monitor = Monitor(tmp_path, Forecast([{STEP: 1}] * 4), progress=lambda line: None)
        monitor.start(cycles[0], 0)
        session = Session(
            fabric=Fabric(accelerator="cpu", devices=1),
            config=config,
            volumes=volumes,
            names={},
            fingerprint="",
            validation=Validation(volumes, (), {}),
            folder=tmp_path,
            monitor=monitor,
            resumed=None,
            stop=StopRequest(),
            keep_best=lambda model, figures: kept.append(figures["dice"]),
        )
        for cycle in cycles:
            session.finish(cycle, network, made_up_model(), torch.optim.Adam(network.parameters()))
    assert kept == [0.5, 0.7]


def test_without_labels_the_likeness_of_the_images_chooses_the_best() -> None:
    assert goodness({"similarity": 0.4, "residual": 0.1}) > goodness({"similarity": 0.3, "residual": 0.0})
    assert goodness({"dice": 0.2, "similarity": 0.9}) == 0.2
    assert goodness({"dice": math.nan}) == goodness({}) == -math.inf


def test_progress_shows_the_time_left_of_the_whole_run() -> None:
    assert Meter().words(Step("labels, 2 of 3 pairs", 20, 30, 3720.0)) == "labels, 2 of 3 pairs, 67%, 1 h 2 min left"


def test_the_estimate_names_time_memory_and_disk_and_warns_where_memory_is_short() -> None:
    run = Forecast([{PAIR: 300, STEP: 1000}] * 2)
    seconds = {PAIR: 2.0, STEP: 1.5}
    run.tried.update(seconds)
    fits, short = (
        describe(run, Trial(seconds, mb), kept_mb=1024.0, disk_mb=512.0, device=torch.device("cpu"))
        for mb in (1024.0, 2.0**40)
    )
    assert fits == [
        "estimate: 1 h 10 min, 2.0 GB of memory and 0.5 GB of disk for 600 pairs to label of 2 s, 2000 steps of 1.5 s"
    ]
    assert "warning: only" in short[1]
    assert "batch_size" in short[1]


def test_work_is_tried_twice_and_the_second_time_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 60.0, 60.0, 68.0])
    monkeypatch.setattr(trial.time, "perf_counter", lambda: next(clock))
    assert try_out({STEP: lambda: 4}, torch.device("cpu")).seconds == {STEP: 2.0}
