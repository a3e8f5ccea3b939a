"""The splits of the paper's data sets, pair by pair."""

from itertools import combinations
from pathlib import Path

import pytest

from corereg.data.pairs import Dataset
from corereg.evaluation.cases import Cases
from corereg.training.recipes import get_recipe
from corereg.workflows.reproduce.protocol import PROTOCOLS, labelled_scans, read_protocol_data
from corereg.workflows.reproduce.runs import RUNS, run_config
from helpers.layouts import touch, write_text
from helpers.protocols import SEARCH, TEST, TRAINING, empty_abdomen, empty_chest, scan_name
from helpers.refusals import refusal

ABDOMEN, CHEST = PROTOCOLS["abdomen-ct"], PROTOCOLS["chest-ct"]


def training_names(dataset: Dataset) -> list[tuple[str, str]]:
    return [(dataset.scans[fixed].name, dataset.scans[moving].name) for fixed, moving in dataset.training]


def case_names(cases: Cases) -> list[tuple[str, str]]:
    return [(case.fixed.name, case.moving.name) for case in cases.cases]


def named(cases: tuple[int, ...]) -> set[tuple[str, str]]:
    return {(scan_name(f), scan_name(m)) for f, m in combinations(cases, 2)}


def test_abdomen_trains_on_190_searches_on_15_and_scores_45_pairs(tmp_path: Path) -> None:
    data = read_protocol_data(ABDOMEN, empty_abdomen(tmp_path))
    assert len(training_names(data.training)) == 190 == ABDOMEN.training_pairs
    assert len(case_names(data.search)) == 15
    assert len(case_names(data.scored)) == 45 == ABDOMEN.test_pairs
    assert set(training_names(data.training)) == named(TRAINING)
    assert set(case_names(data.search)) == named(SEARCH)
    assert set(case_names(data.scored)) == named(TEST)
    assert set(SEARCH) < set(TRAINING)
    assert not set(TEST) & set(TRAINING)


def test_training_sees_no_test_scan_and_is_watched_on_the_pairs_of_the_search(tmp_path: Path) -> None:
    data = read_protocol_data(ABDOMEN, empty_abdomen(tmp_path))
    assert not {scan.name for scan in data.training.scans} & {scan_name(case) for case in TEST}
    assert data.training.test == ()
    watched = [tuple(data.training.scans[i].name for i in pair) for pair in data.training.validation]
    assert watched == case_names(data.search)


def test_chest_takes_its_splits_from_the_names_and_leaves_out_patients_who_are_tested(tmp_path: Path) -> None:
    folder = empty_chest(tmp_path)
    labels = tmp_path / "labels"
    touch(*(labels / f"{name}.nii.gz" for name in labelled_scans(folder, None)))
    data = read_protocol_data(CHEST, folder, labels=labels)
    assert training_names(data.training) == [("trn00001", "trn00002"), ("trn00003", "trn00004")]
    assert case_names(data.search) == [("tst00001", "tst00002"), ("tst00003", "tst00004")]
    assert case_names(data.scored) == [("val00001", "val00002"), ("val00003", "val00004")]
    assert len(data.scored.label_names) == 22
    assert all(not scan.name.startswith("val") for scan in data.training.scans)
    assert "lack label maps" in refusal(read_protocol_data, CHEST, folder)


def test_chest_takes_a_table_of_pairs_instead(tmp_path: Path) -> None:
    touch(*(tmp_path / f"{kind}{n}.nii" for kind in ("a", "l") for n in range(6)))
    lines = ["fixed,moving,fixed_labels,moving_labels,split"]
    lines += [f"a{n}.nii,a{n + 1}.nii,l{n}.nii,l{n + 1}.nii,{s}" for n, s in ((0, "train"), (2, "val"), (4, "test"))]
    data = read_protocol_data(CHEST, write_text(tmp_path / "pairs.csv", "\n".join(lines)))
    found = [training_names(data.training), case_names(data.search), case_names(data.scored)]
    assert found == [[("a0", "a1")], [("a2", "a3")], [("a4", "a5")]]
    lines[1] = lines[1].replace("a1", "a4")
    shared = write_text(tmp_path / "shared.csv", "\n".join(lines))
    assert "a4" in refusal(read_protocol_data, CHEST, shared)


@pytest.mark.parametrize("missing", ["training", "search", "test"])
def test_a_data_set_without_a_split_is_refused(missing: str, tmp_path: Path) -> None:
    cases = {"training": [0, 2, 3], "search": [0, 1, 3], "test": [0, 1, 2]}[missing]
    names = ["train", "train", "val", "test"]
    touch(*(tmp_path / f"a{n}.nii" for n in range(8)))
    rows = [f"a{2 * n}.nii,a{2 * n + 1}.nii,{names[n]}" for n in cases if n or missing != "training"]
    table = write_text(tmp_path / "pairs.csv", "\n".join(["fixed,moving,split", *rows]))
    assert f"no {missing} pairs" in refusal(read_protocol_data, CHEST, table)


@pytest.mark.parametrize("name", PROTOCOLS)
def test_every_run_trains_on_the_protocols_grid_with_the_papers_settings(name: str) -> None:
    protocol = PROTOCOLS[name]
    assert protocol.spacing_mm == {"abdomen-ct": 2.0, "chest-ct": 1.5}[name]
    recipe = get_recipe(protocol.recipe)
    for run, changes in RUNS.items():
        config = run_config(run, protocol, {})
        assert config.spacing_mm == protocol.spacing_mm
        assert (config.cycles, config.steps_per_cycle, config.batch_size) == (8, 1000, 2)
        expected = {"objective": "joint", "views": "geometric"} | changes
        assert {key: getattr(config, key) for key in expected} == expected
        assert config.passes == recipe.passes == (8, 8)


@pytest.mark.parametrize(("name", "band"), [("abdomen-ct", (0.135, 0.155)), ("chest-ct", (0.090, 0.110))])
def test_the_search_aims_at_the_middle_of_the_papers_band(name: str, band: tuple[float, float]) -> None:
    assert PROTOCOLS[name].sdlogj_band == band
    assert band[0] < PROTOCOLS[name].sdlogj < band[1]
