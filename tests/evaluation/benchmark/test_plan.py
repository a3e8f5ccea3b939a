"""The plan of a benchmark: impossible values are refused before anything runs, and rows know their settings."""

import math

import pytest
from typer.testing import CliRunner

from corereg.cli import app
from corereg.errors import InputError
from corereg.evaluation.benchmark import plan as plan_module
from corereg.evaluation.benchmark.peers.catalogue import METHODS, Method
from corereg.evaluation.benchmark.plan import Plan, choose_methods, settings_hash, with_own_settings


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        *(("budget_seconds", value) for value in (-1.0, 0.0, math.nan, math.inf)),
        *(("threads", value) for value in (-3, 0)),
        *(("match_sdlogj", value) for value in (-1.0, 0.0, 1.0, math.nan, math.inf)),
        ("affine", "maybe"),
    ],
)
def test_impossible_settings_are_refused(setting, value):
    with pytest.raises(InputError, match=value if isinstance(value, str) else f"{value:g}"):
        Plan(**{setting: value})


@pytest.mark.parametrize(
    "words",
    [["--budget", "-1"], ["--budget", "nan"], ["--threads", "-3"], ["--threads", "0"], ["--match-sdlogj", "-1"]],
)
def test_command_refuses_them_in_one_line_and_makes_nothing(words, cohort, tmp_path):
    out = tmp_path / "out"
    result = CliRunner().invoke(app, ["benchmark", str(cohort.path), "-o", str(out), "--methods", "corereg", *words])
    assert isinstance(result.exception, InputError)
    assert words[1] in str(result.exception)
    assert "\n" not in str(result.exception)
    assert list(tmp_path.iterdir()) == []


def test_what_decides_a_row_is_in_its_hash():
    method = METHODS["corereg"]
    hashes = {
        settings_hash(method, Plan()),
        settings_hash(method, Plan(seed=2)),
        settings_hash(method, Plan(threads=2)),
        settings_hash(method, Plan(budget_seconds=5.0)),
        settings_hash(method, Plan(affine="auto")),
        settings_hash(with_own_settings(method, {"regularisation": 2.0}), Plan()),
    }
    assert len(hashes) == 6
    assert settings_hash(method, Plan(keep_fields=True, split="test")) == settings_hash(method, Plan())


def test_users_command_of_our_name_gets_none_of_our_settings():
    mine = Method(name="corereg", title="mine", settings="", command=("mine", "{fixed}", "{moving}", "{out}"))
    assert with_own_settings(mine, {"regularisation": 2.0}) == mine


def test_method_that_needs_training_runs_with_a_model_only(tmp_path, monkeypatch):
    monkeypatch.setattr(plan_module, "is_installed", lambda method: True)
    with pytest.raises(InputError, match="needs training"):
        choose_methods(Plan(methods=("corereg", "voxelmorph")))
    (own, peer), skipped = choose_methods(Plan(methods=("corereg", "voxelmorph"), trained=(("voxelmorph", "m.pt"),)))
    assert (own.own, peer.own, skipped) == ((), (("model", "m.pt"),), {})
