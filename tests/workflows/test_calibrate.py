"""Calibration for a user's own scans: from a list of pairs or from a finished batch, and refused in one line."""

import json
from pathlib import Path
from typing import Any

import pytest

from corereg import InputError, calibrate
from corereg.workflows.batch.run import batch
from helpers.batches import STUB, as_csv
from helpers.commands import Command, one_line
from helpers.qualities import MEASURED

NAMES = [f"p-{n}" for n in range(20, 60)]


def test_a_list_and_its_finished_batch_give_the_same_thresholds(tmp_path: Path) -> None:
    pairs = as_csv(tmp_path / "pairs.csv", NAMES)
    with pytest.warns(UserWarning, match="40 pairs are few for 5.0% of false alarms: in truth there may be 11"):
        found = calibrate(pairs, tmp_path / "listed.json", method=MEASURED)
    batch(pairs, tmp_path / "out", method=MEASURED, page=False)
    with pytest.warns(UserWarning, match="are few"):
        again = calibrate(tmp_path / "out", tmp_path / "finished.json", force=True)
    assert found == again
    listed, finished = (json.loads((tmp_path / name).read_text("utf-8")) for name in ("listed.json", "finished.json"))
    assert listed == finished
    warn, fail = (listed["thresholds"]["displacement"][name] for name in ("warn", "fail"))
    assert 0.05 < warn < 0.058 < fail < 0.1
    assert (found.failed, found.warned) == (0, 5), "15 % of such pairs are warned of"
    assert sorted(path.name for path in tmp_path.iterdir() if path.suffix != ".gz") == [
        *("finished.json", "listed.json", "out", "pairs.csv"),
    ]


def test_pairs_that_fail_are_left_out_with_a_warning(tmp_path: Path) -> None:
    pairs = as_csv(tmp_path / "pairs.csv", [*NAMES, "broken-1"])
    with pytest.warns(UserWarning, match="1 pair failed and left out|are few"):
        assert calibrate(pairs, tmp_path / "t.json", method=MEASURED, directory=tmp_path / "kept").pairs == 40
    assert (tmp_path / "kept" / "rows.jsonl").is_file()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"false_alarms": 0.01}, "got 40 right pairs, expected at least 99"),
        ({"false_alarms": 1.5}, "a share between 0 and 1"),
        ({"path": "missing/t.json"}, "missing"),
        ({"path": "pairs.csv"}, "which exists"),
        ({"regularisaton": 3}, "regularisation"),
    ],
)
def test_bad_input_is_refused_before_a_pair_is_registered(tmp_path: Path, options: dict[str, Any], words: str) -> None:
    pairs = as_csv(tmp_path / "pairs.csv", NAMES)
    path = tmp_path / options.pop("path", "t.json")
    with pytest.raises(InputError, match=words):
        calibrate(pairs, path, method=MEASURED, directory=tmp_path / "kept", **options)
    assert not (tmp_path / "kept").exists()


def test_a_batch_without_measures_and_settings_for_a_finished_one_are_refused(tmp_path: Path, command: Command) -> None:
    batch(as_csv(tmp_path / "pairs.csv", ["a"]), tmp_path / "out", method=STUB, page=False)
    for options, words in (((), "has no orientation_"), (("--refine-steps", 3), "got --refine-steps for")):
        assert words in one_line(command("calibrate", tmp_path / "out", "-o", tmp_path / "t.json", *options))
    assert not (tmp_path / "t.json").exists()
