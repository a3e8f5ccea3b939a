"""What a run says: where it is, of how much; settings that can be edited; what is missing, before scans are read."""

from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

from corereg.progress import Step
from corereg.settings import as_settings, read_settings, settings_of, with_settings
from corereg.training.config import TrainConfig
from corereg.training.config_file import commented_yaml
from corereg.training.monitor import Monitor
from corereg.training.recipes import RECIPES, get_recipe
from corereg.training.train import train
from helpers.refusals import refusal


def test_cycles_and_steps_are_counted_from_one_of_all(tmp_path: Path) -> None:
    heard: list[str] = []
    monitor = Monitor(tmp_path, cycles=3, steps=10, progress=heard.append)
    monitor.start(0, 0)
    monitor.step({"cycle": 1, "step": 4, "loss": 0.5, "learning_rate": 1e-3}, images=2, left=15)
    monitor.sweep(2, 1, 4)
    assert heard[0].startswith("cycle 2 of 3, step 5 of 10: loss 0.5")
    assert heard[1] == "cycle 3 of 3: pseudo-labels, 1 of 4 pairs"
    assert [(step.done, step.total) for step in heard if isinstance(step, Step)] == [(15, 30), (1, 4)]


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


@pytest.mark.skipif(find_spec("tensorboard") is not None, reason="TensorBoard is installed")
def test_missing_tensorboard_is_reported_before_anything_is_read(tmp_path: Path) -> None:
    assert "TensorBoard" in refusal(train, tmp_path / "no data set", tmp_path / "run", tensorboard=True)
    assert not (tmp_path / "run").exists()
