"""Whole training runs on a small cohort."""

import json
from pathlib import Path

import pytest
import yaml

from corereg.data.pairs import read_dataset
from corereg.method.features.model_file import load_model
from corereg.settings import with_settings
from corereg.training.config import TrainConfig
from corereg.training.train import CONFIG, MODEL
from helpers.training import SMALL, rows_of, run, same, weights_of


def test_a_run_leaves_what_a_user_needs(finished: Path):
    rows = rows_of(finished)
    steps = [row for row in rows if "loss" in row]
    assert [(row["cycle"], row["step"]) for row in steps] == [(c, s) for c in range(2) for s in range(3)]
    assert all(row["loss"] == pytest.approx(row["registration"] + row["lambda"] * row["contrast"], rel=1e-4)
               for row in steps)  # fmt: skip
    assert [row["lambda"] for row in steps] == pytest.approx([10 * (1 - n / 6) for n in range(6)], rel=1e-4)
    assert steps[0]["learning_rate"] == steps[3]["learning_rate"] == 1e-3
    measured = [row for row in rows if "dice" in row]
    assert len(measured) == 2
    assert all(0 < row["dice_before"] < 1 and 0 < row["dice"] <= 1 for row in measured)
    assert with_settings(TrainConfig(), yaml.safe_load((finished / CONFIG).read_text())) == with_settings(
        TrainConfig(), SMALL
    )
    assert (finished / "progress.png").read_bytes()[:4] == b"\x89PNG"
    model = load_model(finished / MODEL)
    assert same(model.state_dict(), weights_of(finished))
    assert model.passes == (8, 4)


def test_the_model_file_carries_its_card(finished: Path):
    from safetensors import safe_open

    with safe_open(finished / MODEL, "pt") as file:
        card = json.loads(file.metadata()["corereg"])["card"]
    assert card["data"]["name"] == "Blobs"
    assert card["data"]["scans"] == 3
    assert card["data"]["pairs"] == 3
    assert len(card["data"]["fingerprint"]) == 64
    assert card["training"]["cycles"] == 2
    assert card["metrics"]["dice"] > 0
    assert "licence" in card


def test_a_validated_patient_is_in_no_training_pair(cohort_json: Path):
    dataset = read_dataset(cohort_json)
    assert {scan for pair in dataset.training for scan in pair} == {0, 1, 2}


def test_same_seed_same_run_other_seed_another(finished: Path, cohort_json: Path, cache: Path, tmp_path: Path):
    run(cohort_json, tmp_path / "again", cache)
    assert same(weights_of(tmp_path / "again"), weights_of(finished))
    run(cohort_json, tmp_path / "other", cache, seed=1)
    assert not same(weights_of(tmp_path / "other"), weights_of(finished))


@pytest.mark.parametrize(
    ("objective", "views"), [("registration", "geometric"), ("contrastive", "geometric"), ("joint", "intensity"),
                             ("joint", "both")]
)  # fmt: skip
def test_each_ablation_is_one_switch(objective: str, views: str, cohort_json: Path, cache: Path, tmp_path: Path):
    run(cohort_json, tmp_path / "run", cache, objective=objective, views=views)
    steps = [row for row in rows_of(tmp_path / "run") if "loss" in row]
    with_labels = ["registration" in row for row in steps]
    with_contrast = ["contrast" in row for row in steps]
    if objective == "registration":
        assert (with_labels, with_contrast) == ([True] * 6, [False] * 6)
    elif objective == "contrastive":
        assert (with_labels, with_contrast) == ([False] * 3 + [True] * 3, [True] * 3 + [False] * 3)
    else:
        assert (with_labels, with_contrast) == ([True] * 6, [True] * 6)
