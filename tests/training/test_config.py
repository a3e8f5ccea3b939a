"""Settings of training: their types, and what is refused."""

import pytest

from corereg.errors import InputError
from corereg.training.config import (
    TrainConfig,
    changed_keys,
    parse_assignments,
    read_settings,
    with_settings,
)


def refusal(*assignments: str) -> str:
    with pytest.raises(InputError) as caught:
        with_settings(TrainConfig(), parse_assignments(assignments))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_settings_are_read_as_the_type_of_their_field():
    assignments = ["learning_rate=1e-4", "passes=[8]", "network.strides=8", "pseudo_labels.pairs=null"]
    config = with_settings(TrainConfig(), parse_assignments([*assignments, "contrast.points=500.0", "spacing_mm=2"]))
    assert (config.learning_rate, config.passes, config.network.strides) == (1e-4, (8,), (8,))
    assert (config.pseudo_labels.pairs, config.contrast.points, config.spacing_mm) == (None, 500, 2.0)


@pytest.mark.parametrize(
    ("assignment", "words"),
    [
        ("objectiv=joint", "did you mean objective?"),
        ("temperature=1", "did you mean contrast.temperature?"),
        ("lr=3", "--show-config"),
        ("objective=joit", "did you mean joint?"),
        ("cycles=2.5", "type int"),
        ("cycles=0", "cycles must be >= 1"),
        ("checkpoint_activations=1", "type bool"),
        ("contrast=3", "contrast.points"),
        ("passes=[8,5]", "network's strides"),
        ("augment.contrast=[1]", "2 values"),
        ("augment.appearance=sepia", "bezier"),
        ("pseudo_labels.refine.steps=-1", "steps must be >= 0"),
        ("learning_rate", "key=value"),
        ("learning_rate=[", "YAML"),
        ("final_learning_rate=1", "must fall"),
    ],
)
def test_a_wrong_setting_is_told_with_the_right_one(assignment, words):
    assert words in refusal(assignment)


def test_changed_settings_are_named_by_their_keys():
    new = with_settings(TrainConfig(), {"contrast.points": 10, "seed": 4})
    assert changed_keys(TrainConfig(), new) == ["contrast.points: 1000 -> 10", "seed: 0 -> 4"]


@pytest.mark.parametrize("content", ["- 1\n- 2\n", "a: [", None])
def test_a_configuration_file_that_is_none(content, tmp_path):
    path = tmp_path / "my.yaml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(InputError, match=r"my\.yaml"):
        read_settings(path)
