"""Reproductions from end to end: what is read when, what is refused first, and that nothing is lost by a kill."""

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from corereg.errors import InputError
from corereg.evaluation.benchmark import run as benchmark_module
from corereg.evaluation.benchmark.plan import Plan
from corereg.method.features.model_file import load_model
from corereg.training.train import MODEL
from corereg.workflows.reproduce import reproduce
from helpers.protocols import empty_abdomen, scan_name, small_abdomen
from helpers.refusals import refusal
from helpers.stops import stopped
from helpers.training import SMALL, same

TINY: dict[str, Any] = SMALL | {"pseudo_labels.pairs": 2, "validation_refine.steps": 2}


class ScoringBeginsError(Exception):
    """Raised in place of the scoring."""


def without_scoring(monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*arguments: object) -> None:
        raise ScoringBeginsError

    monkeypatch.setattr(benchmark_module, "_run_all", stop)


def spoil(dataset: Path, case: int) -> None:
    """Whoever opens the scan fails."""
    (dataset.parent / "imagesTr" / f"{scan_name(case)}.nii.gz").write_bytes(b"not to be opened")


@pytest.fixture(scope="module")
def reproduced(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A data set whose test scans cannot be opened, and a reproduction on it up to the scoring; not to be changed."""
    folder = tmp_path_factory.mktemp("reproduced")
    dataset = small_abdomen(folder / "data")
    for case in (1, 4):
        spoil(dataset, case)
    with pytest.MonkeyPatch.context() as patch:
        without_scoring(patch)
        with pytest.raises(ScoringBeginsError):
            reproduce("abdomen-ct", dataset, folder / "out", settings=TINY)
    return dataset, folder / "out"


def test_no_step_of_training_or_search_opens_a_test_scan(reproduced: tuple[Path, Path]) -> None:
    _, out = reproduced
    assert (out / "joint" / MODEL).is_file()
    points = json.loads((out / "scores" / "working_points.json").read_text("utf-8"))
    assert [point["pairs"] for point in points.values()] == [3]
    watched = [json.loads(line) for line in (out / "joint" / "metrics.jsonl").read_text("utf-8").splitlines()]
    assert sum("dice" in row for row in watched) == TINY["cycles"]


def test_a_scan_that_the_search_needs_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the test before this one can fail."""
    without_scoring(monkeypatch)
    dataset = small_abdomen(tmp_path / "data", training=(2, 3, 5, 8, 14))
    spoil(dataset, 14)
    with pytest.raises(InputError, match=scan_name(14)):
        reproduce("abdomen-ct", dataset, tmp_path / "out", settings=TINY)


def test_mistakes_are_refused_before_anything_is_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COREREG_CACHE", str(tmp_path / "cache"))
    dataset, out = empty_abdomen(tmp_path / "data"), tmp_path / "out"
    assert "tables of 1, 2, 3" in refusal(reproduce, "abdomen-ct", dataset, out, tables=(4,))
    assert "abdomen-ct, chest-ct" in refusal(reproduce, "brain", dataset, out)
    assert "corereg peers install niftyreg" in refusal(
        reproduce, "abdomen-ct", dataset, out, plan=Plan(methods=("corereg", "niftyreg"))
    )
    assert "nonsense" in refusal(reproduce, "abdomen-ct", dataset, out, plan=Plan(methods=("corereg", "nonsense")))
    assert "intensity" in refusal(reproduce, "abdomen-ct", dataset, out, only=("intensity",))
    assert "no test pairs" in refusal(reproduce, "chest-ct", dataset, out)
    assert not out.exists()


def test_a_contrastive_run_of_one_cycle_would_not_train_its_head(tmp_path: Path) -> None:
    message = refusal(
        reproduce, "abdomen-ct", empty_abdomen(tmp_path / "d"), tmp_path / "out", tables=(2,), settings={"cycles": 1}
    )
    assert "objective=contrastive" in message
    assert not (tmp_path / "out").exists()


def test_a_model_of_other_settings_is_not_reported(reproduced: tuple[Path, Path]) -> None:
    dataset, out = reproduced
    before = (out / "joint.safetensors").read_bytes()
    assert "steps_per_cycle: 3 -> 4" in refusal(
        reproduce, "abdomen-ct", dataset, out, settings=TINY | {"steps_per_cycle": 4}
    )
    assert (out / "joint.safetensors").read_bytes() == before


@pytest.mark.slow
def test_all_models_share_one_cache(tmp_path: Path) -> None:
    dataset, out = small_abdomen(tmp_path / "data"), tmp_path / "out"
    for run in ("joint", "registration"):
        assert reproduce("abdomen-ct", dataset, out, tables=(2,), settings=TINY, only=(run,)) is None
    assert sorted(path.name for path in out.iterdir()) == [
        *("cache", "joint", "joint.safetensors", "protocol.json", "registration", "registration.safetensors")
    ]
    assert len(list((out / "cache").glob("*.f16"))) == 1


def command(dataset: Path, out: Path, tables: str) -> list[str]:
    code = "from corereg.cli import main; main()"
    settings = [word for key, value in TINY.items() for word in ("--set", f"{key}={json.dumps(value)}")]
    options = ["--tables", tables, "--device", "cpu", "--threads", "2", *settings]
    return [sys.executable, "-c", code, "reproduce", "abdomen-ct", str(dataset), "-o", str(out), *options]


@pytest.mark.slow
def test_a_reproduction_stopped_twice_ends_as_one_that_was_not(tmp_path: Path) -> None:
    dataset = small_abdomen(tmp_path / "data")
    whole, out = tmp_path / "whole", tmp_path / "out"
    subprocess.run(command(dataset, whole, "1,2"), check=True, capture_output=True, timeout=600)
    status, errors = stopped(
        command(dataset, out, "1,2"), lambda: (out / "registration" / "metrics.jsonl").is_file(), signal.SIGTERM
    )
    assert status == 143
    assert "resume" in errors
    assert "bug" not in errors
    status, errors = stopped(
        command(dataset, out, "1,2"), lambda: (out / "scores" / "rows.jsonl").is_file(), signal.SIGINT
    )
    assert status == 130
    assert "resume" in errors
    done = subprocess.run(command(dataset, out, "1,2"), check=True, capture_output=True, text=True, timeout=600)
    assert done.stdout.startswith("# abdomen-ct")
    for run in ("joint", "registration", "contrastive"):
        assert same(*(load_model(folder / run / MODEL).state_dict() for folder in (whole, out)))
    points = [json.loads((folder / "scores" / "working_points.json").read_text("utf-8")) for folder in (whole, out)]
    first, second = ([point["regularisation"] for point in found.values()] for found in points)
    assert first == second
    text = (out / "reproduction.md").read_text("utf-8")
    assert "This is not a reproduction" in text
    assert text.count("| 1 of 1 |") == 2 + 3
    assert len(list((out / "figure3").glob("*.png"))) == 1
    assert not list(out.rglob(".corereg-*"))
