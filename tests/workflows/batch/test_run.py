"""Batches: all pairs get a row and a folder, whatever becomes of the others, and no work is done twice."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from corereg.errors import InputError
from corereg.io.places import STAGING
from corereg.workflows.batch.pairs import Pair
from corereg.workflows.batch.plan import Shard
from corereg.workflows.batch.rows import locked
from corereg.workflows.batch.run import batch
from helpers.batches import STUB, as_csv


def run(pairs: Any, out: Path, **options: Any) -> Any:
    return batch(pairs, out, **{"page": False, "method": STUB, **options})


def rows_of(path: Path) -> dict[str, dict[str, Any]]:
    rows = [json.loads(line, parse_constant=pytest.fail) for line in path.read_text("utf-8").splitlines()]
    assert len({row["name"] for row in rows}) == len(rows)
    return {row["name"]: row for row in rows}


def attempts(out: Path, name: str) -> list[str]:
    return (out / f"{name}.attempts").read_text("utf-8").split()


def leftovers(out: Path) -> list[Path]:
    return [path for path in out.rglob("*") if path.name.startswith(STAGING)]


def test_every_pair_has_a_folder_and_a_row_and_failures_stop_nobody(tmp_path: Path) -> None:
    names = ["a", "refused", "b", "broken", "dies", "flaky", "c", "stuck", "d"]
    found = run(as_csv(tmp_path / "pairs.csv", names), tmp_path / "out", jobs=2, time_limit=1.0)
    out = tmp_path / "out"
    rows = rows_of(found.rows)
    assert (found.pairs, found.failed, found.resumed) == (9, 4, 0)
    assert {name: row["status"] for name, row in rows.items()} == {
        **dict.fromkeys(("a", "b", "c", "d", "flaky"), "ok"),
        **dict.fromkeys(("refused", "broken"), "failed"),
        "dies": "worker died",
        "stuck": "timed out",
    }
    assert {path.name for path in out.iterdir() if path.is_dir()} == {"a", "b", "c", "d", "flaky"}
    assert not leftovers(out)
    assert rows["refused"]["error"] == "got no scan, expected one"
    assert rows["broken"]["error"] == "MemoryError: no room for a volume"
    assert "SIGKILL" in rows["dies"]["error"]
    assert rows["a"]["similarity_above_chance"] is None
    assert rows["stuck"]["seconds"] >= 1.0
    assert {name: row["attempts"] for name, row in rows.items() if row["attempts"] > 1} == dict.fromkeys(
        ("broken", "dies", "flaky", "stuck"), 2
    )


def test_workers_live_on_and_share_the_threads(tmp_path: Path) -> None:
    names = [f"p{n}" for n in range(12)]
    found = run(as_csv(tmp_path / "pairs.csv", names), tmp_path / "out", jobs=2, threads=3)
    assert len({pid for name in names for pid in attempts(tmp_path / "out", name)}) <= 2
    assert {row["threads"] for row in rows_of(found.rows).values()} == {3}


def test_a_second_run_does_only_what_is_missing(tmp_path: Path) -> None:
    pairs = as_csv(tmp_path / "pairs.csv", ["a", "flaky", "b"])
    out = tmp_path / "out"
    assert run(pairs, out, retries=0).failed == 1
    with (out / "rows.jsonl").open("a") as file:
        file.write('{"name": "b", "key": "cut sho')
    found = run(pairs, out, retries=0)
    assert (found.failed, found.resumed) == (0, 2)
    assert {name: len(attempts(out, name)) for name in ("a", "flaky", "b")} == {"a": 1, "flaky": 2, "b": 1}
    assert set(rows_of(out / "rows.jsonl")) == {"a", "flaky", "b"}


def test_pairs_whose_row_is_lost_run_again(tmp_path: Path) -> None:
    pairs, out = as_csv(tmp_path / "pairs.csv", ["a", "b"]), tmp_path / "out"
    rows = run(pairs, out).rows
    rows.write_text(rows.read_text("utf-8").splitlines()[0] + "\n")
    assert run(pairs, out).resumed == 1
    assert sorted(len(attempts(out, name)) for name in "ab") == [1, 2]
    assert set(rows_of(rows)) == {"a", "b"}


def test_pairs_whose_result_was_removed_run_again(tmp_path: Path) -> None:
    pairs, out = as_csv(tmp_path / "pairs.csv", ["a", "b", "c"]), tmp_path / "out"
    run(pairs, out)
    shutil.rmtree(out / "a")
    (out / "b" / "result.json").unlink()
    assert run(pairs, out).resumed == 1
    assert all((out / name / "result.json").exists() for name in "abc")
    assert set(rows_of(out / "rows.jsonl")) == {"a", "b", "c"}


def test_a_pair_with_new_settings_runs_again_and_rows_of_other_lists_stay(tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(as_csv(tmp_path / "first.csv", ["a", "b", "other"]), out)
    found = run(as_csv(tmp_path / "second.csv", ["a", "b"], seed="7"), out)
    assert found.resumed == 0
    assert (out / "a" / "result.json").read_text("utf-8") == "{} {'seed': '7'}"
    assert set(rows_of(found.rows)) == {"a", "b", "other"}


def test_shards_share_the_pairs_and_a_last_run_puts_their_rows_together(tmp_path: Path) -> None:
    names = [f"p{n}" for n in range(7)]
    pairs, out = as_csv(tmp_path / "pairs.csv", names), tmp_path / "out"
    shards = [run(pairs, out, shard=f"{n}/3") for n in (1, 2, 3)]
    assert [shard.pairs for shard in shards] == [3, 2, 2]
    assert set(rows_of(shards[1].rows)) == {"p1", "p4"}
    whole = run(pairs, out)
    assert (whole.resumed, set(rows_of(whole.rows))) == (7, set(names))
    assert [path.name for path in out.glob("rows*")] == ["rows.jsonl"]
    assert all(len(attempts(out, name)) == 1 for name in names)


def test_a_run_of_all_pairs_waits_for_no_shard_and_shards_do_not_stop_each_other(tmp_path: Path) -> None:
    pairs, out = as_csv(tmp_path / "pairs.csv", ["a", "b"]), tmp_path / "out"
    out.mkdir()
    with locked(out, Shard(1, 2)):
        assert run(pairs, out, shard="2/2").pairs == 1
        for shard in ("1/2", None):
            with pytest.raises(InputError, match="another `corereg batch`"):
                run(pairs, out, shard=shard)
    assert run(pairs, out).resumed == 1


def test_all_missing_files_are_reported_before_anything_is_made(tmp_path: Path) -> None:
    pairs = as_csv(tmp_path / "pairs.csv", ["a", "b"], fixed_mask="gone.nii", moving_mask="fixed.nii.gz")
    with pytest.raises(InputError, match=r"2 files do not exist.*gone\.nii \(pair 1.*pair 2.*--partial") as refusal:
        run(pairs, tmp_path / "out")
    assert "\n" not in str(refusal.value)
    assert not (tmp_path / "out").exists()
    assert run(pairs, tmp_path / "out", partial=True).pairs == 2


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"jobs": 0}, "jobs"),
        ({"threads": 0}, "threads"),
        ({"retries": -1}, "retries"),
        ({"time_limit": 0.0}, "time limit"),
        ({"shard": "4/3"}, "shard"),
        ({"shard": "0/3"}, "shard"),
        ({"keep": "warped,everything"}, "'everything' to keep"),
        ({"regularisation": -1}, "regularisation"),
        ({"regularisation": 2, "target_sdlogj": 0.1}, "--regularisation and --target-sdlogj"),
    ],
)
def test_options_that_cannot_be_are_refused_before_anything_is_made(
    tmp_path: Path, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(InputError, match=words):
        run(as_csv(tmp_path / "pairs.csv", ["a"]), tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("names", "columns", "words"),
    [
        (["a", "b", "a"], {}, "pair 3, 'a': an earlier pair has this name"),
        (["A", "a"], {}, "pair 2, 'a': an earlier pair has this name"),
        (["report.html"], {}, "files of its own"),
        (["Rows.jsonl"], {}, "files of its own"),
        (["rows-1-of-4.jsonl"], {}, "files of its own"),
        (["bids"], {}, "files of its own"),
        (["../a"], {}, "no folder"),
        ([".a"], {}, "no folder"),
        (["a" * 256], {}, "no folder"),
        (["a"], {"refine_steps": "-3"}, "pair 1, 'a': .*refine_steps"),
        (["a"], {"regularisation": "2", "target_sdlogj": "0.1"}, "pair 1, 'a': .*expected one of them"),
    ],
)
def test_a_list_with_a_mistake_is_refused(
    tmp_path: Path, names: list[str], columns: dict[str, str], words: str
) -> None:
    with pytest.raises(InputError, match=words):
        run(as_csv(tmp_path / "pairs.csv", names, **columns), tmp_path / "out")


def test_a_pair_s_own_settings_are_checked_together_with_those_of_the_batch(tmp_path: Path) -> None:
    pairs = as_csv(tmp_path / "pairs.csv", ["a"], regularisation="2")
    with pytest.raises(InputError, match=r"pair 1, 'a': .*--regularisation and --target-sdlogj"):
        run(pairs, tmp_path / "out", target_sdlogj=0.1)
    assert not (tmp_path / "out").exists()


def test_another_batch_s_folder_is_refused(tmp_path: Path) -> None:
    pairs, out = as_csv(tmp_path / "pairs.csv", ["a"]), tmp_path / "out"
    run(pairs, out, regularisation=4)
    assert run(pairs, out, regularisation="4.0").resumed == 1
    with pytest.raises(InputError, match=r"other settings.*regularisation: 4.0 -> 3.5"):
        run(pairs, out)
    with pytest.raises(InputError, match="keep"):
        run(pairs, out, regularisation=4, keep="warped")


def test_a_model_file_that_changed_is_another_setting(tmp_path: Path) -> None:
    pairs, out, model = as_csv(tmp_path / "pairs.csv", ["a"]), tmp_path / "out", tmp_path / "m.safetensors"
    model.write_text("one")
    run(pairs, out, model=model)
    model.write_text("two")
    with pytest.raises(InputError, match="another model or thresholds file"):
        run(pairs, out, model=model)


def test_pairs_may_be_a_list_in_memory(tmp_path: Path) -> None:
    as_csv(tmp_path / "pairs.csv", ["a"])
    pairs = [Pair(fixed=tmp_path / "fixed.nii.gz", moving=tmp_path / "moving.nii.gz")]
    assert set(rows_of(run(pairs, tmp_path / "out").rows)) == {"fixed_moving"}


def test_workers_that_cannot_start_are_reported_once(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match="exit status 1 before its first pair"):
        run(as_csv(tmp_path / "pairs.csv", ["a", "b"]), tmp_path / "out", method="helpers.batches:absent")
    assert "absent" in capfd.readouterr().err


def test_the_page_lists_failures_and_pairs(tmp_path: Path) -> None:
    run(as_csv(tmp_path / "pairs.csv", ["good", "refused"]), tmp_path / "out", page=True)
    text = (tmp_path / "out" / "report.html").read_text("utf-8")
    assert "Pairs registered: 1." in text
    assert "got no scan" in text
    assert os.listdir(tmp_path / "out" / "good") == ["result.json"]


def test_rows_are_a_parquet_file_too(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is an extra")
    run(as_csv(tmp_path / "pairs.csv", ["a", "refused"]), tmp_path / "out")
    rows = parquet.read_table(tmp_path / "out" / "rows.parquet").to_pylist()
    assert [(row["name"], row["status"], row["sdlogj"]) for row in rows] == [
        ("a", "ok", 0.05),
        ("refused", "failed", None),
    ]
