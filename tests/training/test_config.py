"""Settings of training: their names and defaults, what is refused, and runs of earlier versions."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from corereg.method.config import RefineConfig, paper_refine
from corereg.settings import as_settings, changed_keys, read_settings, with_settings
from corereg.training.config import TrainConfig
from corereg.training.recipes import get_recipe
from helpers.refusals import refusal

OLD_RUN = Path(__file__).parent / "run_of_0.1.yaml"
"""config.yaml of a run of the recipe abdomen-ct, as version 0.1 wrote it before its settings were read by pydantic."""


def set_(*assignments: str) -> TrainConfig:
    return with_settings(TrainConfig(), read_settings(None, assignments))


def test_settings_are_read_as_the_type_of_their_field():
    assignments = ["learning_rate=1e-4", "passes=[8]", "network.strides=8", "pseudo_labels.pairs=null"]
    config = set_(*assignments, "contrast.points=500.0", "spacing_mm=2")
    assert (config.learning_rate, config.passes, config.network.strides) == (1e-4, (8,), (8,))
    assert (config.pseudo_labels.pairs, config.contrast.points, config.spacing_mm) == (None, 500, 2.0)


@pytest.mark.parametrize(
    ("assignment", "words"),
    [
        ("objectiv=joint", "did you mean objective?"),
        ("temperature=1", "did you mean contrast.temperature?"),
        ("lr=3", "learning_rate"),
        ("objective=joit", "did you mean joint?"),
        ("cycles=2.5", "a whole number"),
        ("cycles=0", "cycles = 0, expected a whole number of at least 1"),
        ("checkpoint_activations=1", "true or false"),
        ("contrast=3", "contrast.points"),
        ("passes=[8,5]", "4 or 8"),
        ("network.strides=8", "network.strides [8]"),
        ("augment.contrast=[1]", "2 numbers"),
        ("augment.appearance=sepia", "bezier"),
        ("pseudo_labels.refine.steps=-1", "pseudo_labels.refine.steps = -1, expected a whole number of at least 0"),
        ("learning_rate", "key=value"),
        ("learning_rate=[", "YAML"),
        ("final_learning_rate=1", "must fall"),
        ("seed=-1", "at least 0"),
    ],
)
def test_a_wrong_setting_is_refused_with_the_right_ones(assignment, words):
    assert words in refusal(set_, assignment)


def test_changed_settings_are_named_by_their_keys():
    assert changed_keys(TrainConfig(), set_("contrast.points=10", "seed=4")) == [
        "contrast.points: 1000 -> 10",
        "seed: 0 -> 4",
    ]


def test_the_file_of_an_earlier_run_is_read_and_written_as_it_was():
    config = with_settings(TrainConfig(), read_settings(OLD_RUN))
    now = get_recipe("abdomen-ct")  # since then the recipe names its grid, the paper's negatives and features
    usual = RefineConfig()  # what earlier files do not name
    paper = replace(paper_refine(), similarity=usual.similarity, momentum=usual.momentum, settling=usual.settling)
    assert config == replace(
        now,
        spacing_mm=None,
        contrast=replace(now.contrast, negatives_from="batch"),
        pseudo_labels=replace(now.pseudo_labels, refine=paper),
        validation_refine=paper,
    )
    written = yaml.safe_load(yaml.safe_dump(as_settings(config), sort_keys=False))
    old = yaml.safe_load(OLD_RUN.read_text("utf-8"))
    assert shared(written, old) == old, "keys may be added, and none changed"


def shared(new: Any, old: Any) -> Any:
    """The part of new settings whose keys the old ones have."""
    return {key: shared(new[key], old[key]) for key in old} if isinstance(old, dict) else new
