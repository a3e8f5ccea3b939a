"""A folder holds one reproduction."""

from dataclasses import replace
from pathlib import Path

import pytest

from corereg.workflows.reproduce.protocol import PROTOCOLS, read_protocol_data
from corereg.workflows.reproduce.runs import check_folder, run_config, runs_of
from helpers.protocols import empty_abdomen
from helpers.refusals import refusal

PROTOCOL = PROTOCOLS["abdomen-ct"]


def test_each_table_names_the_models_it_needs_and_none_twice() -> None:
    assert runs_of([1]) == ("joint",)
    assert set(runs_of([2])) == {"registration", "contrastive", "joint"}
    assert set(runs_of([3])) == {"registration", "intensity", "joint", "both-views"}
    assert len(runs_of([3, 1, 2])) == 5


def test_a_folder_is_continued_with_its_own_settings_alone(tmp_path: Path) -> None:
    data = read_protocol_data(PROTOCOL, empty_abdomen(tmp_path / "data"))
    out = tmp_path / "out"
    out.mkdir()
    config = run_config("joint", PROTOCOL, {"cycles": 2})
    check_folder(out, PROTOCOL, data, config)
    check_folder(out, PROTOCOL, data, config)
    other = run_config("joint", PROTOCOL, {"cycles": 2, "learning_rate": 5e-4})
    assert "learning_rate: 0.001 -> 0.0005" in refusal(check_folder, out, PROTOCOL, data, other)
    fewer = replace(data, scored=replace(data.scored, cases=data.scored.cases[:3]))
    assert "(pairs)" in refusal(check_folder, out, PROTOCOL, fewer, config)
    chest = PROTOCOLS["chest-ct"]
    assert "(protocol" in refusal(check_folder, out, chest, data, run_config("joint", chest, {"cycles": 2}))
    check_folder(out, PROTOCOL, data, config)


@pytest.mark.parametrize("run", ["joint", "intensity"])
def test_a_users_settings_override_the_papers(run: str) -> None:
    config = run_config(run, PROTOCOL, {"spacing_mm": 8, "contrast.points": 50})
    assert (config.spacing_mm, config.contrast.points, config.affine) == (8, 50, "none")
    assert config.views == ("intensity" if run == "intensity" else "geometric")
