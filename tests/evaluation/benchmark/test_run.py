"""Methods side by side: no row is made twice, no failure stops the others, and tables say how they came about."""

import csv
import json
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from typer.testing import CliRunner

from corereg.cli import app
from corereg.errors import InputError
from corereg.evaluation.benchmark.plan import Plan
from corereg.evaluation.benchmark.rows import read_rows
from corereg.evaluation.benchmark.run import Benchmark, benchmark
from corereg.evaluation.cases import read_cases
from corereg.evaluation.evaluate import evaluate
from corereg.evaluation.metrics import sdlogj
from corereg.io.transforms.formats.learn2reg import write_disp_vox
from corereg.method.register import register
from corereg.report.cohort import write_benchmark
from corereg.report.tables import benchmark_rows, p_text, p_values
from helpers.cohorts import Cohort, make_cohort

COPY = """
import pathlib, shutil, sys
fixed, moving, out, folder = map(pathlib.Path, sys.argv[1:])
with (folder / "calls").open("a") as calls:
    calls.write("x")
case = lambda path: path.name.split("_")[1]
shutil.copy(folder / f"disp_{case(fixed)}_0000_{case(moving)}_0000.nii.gz", out)
"""

WAIT = "import time; print('waiting', flush=True); time.sleep(99)"


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Cohort:
    return make_cohort(tmp_path_factory.mktemp("cohort"))


def templates(folder: Path, made: Cohort) -> Path:
    """Copying prepared fields: the truth, half of it, some that lack a pair; one that hangs, one that is not there."""
    for name, scale in (("truth", 1.0), ("half", 0.5), ("some", 0.8)):
        made.write_fields(folder / name, scale=scale)
    first = next(iter(made.fields))
    (folder / "some" / f"{first}.nii.gz").unlink()
    entries = [
        {"name": name, "title": name.capitalize(), "command": command(folder, COPY, str(folder / name))}
        for name in ("truth", "half", "some")
    ]
    entries.append({"name": "hang", "command": command(folder, WAIT)})
    entries.append({"name": "absent", "command": "no-such-tool {fixed} {moving} {out}"})
    path = folder / "mine.yaml"
    path.write_text(json.dumps(entries))
    return path


def command(folder: Path, script: str, *words: str) -> str:
    """What a user would write to call a script of this text."""
    path = folder / f"script{abs(hash(script))}.py"
    path.write_text(script)
    return " ".join([shlex.quote(sys.executable), "-S", shlex.quote(str(path)), "{fixed} {moving} {out}", *words])


@pytest.fixture(scope="module")
def compared(made, tmp_path_factory) -> tuple[Benchmark, Path, Path]:
    folder, out = tmp_path_factory.mktemp("methods"), tmp_path_factory.mktemp("out")
    plan = Plan(
        methods=("truth", "half", "some", "hang", "absent"),
        templates=templates(folder, made),
        skip_missing=True,
        budget_seconds=4.0,
        keep_fields=True,
    )
    found = benchmark(made.path, out, plan, command="corereg benchmark made")
    write_benchmark(found, out)
    return found, out, folder


class TestRun:
    def test_every_pair_of_every_method_has_a_row(self, compared):
        found, out, _ = compared
        assert len(found.rows) == 4 * 3
        assert len(read_rows(out / "rows.jsonl")) == 12
        truth, half, some, hang = found.methods
        assert [row["dice"] for row in found.of(truth)] == [1, 1, 1]
        assert len(found.of(half)) == 3
        assert len(found.of(some)) == 2
        assert found.of(hang) == []
        assert found.skipped == {"absent": "its command no-such-tool is not found"}

    def test_rows_are_those_of_evaluate(self, compared, made):
        found, _, folder = compared
        expected = evaluate(made.path, folder / "half", check=False).rows
        for ours, theirs in zip(found.of(found.methods[1]), expected, strict=True):
            for name in ("dice", "dice_before", "hd95_mm", "sdlogj", "fold_percent"):
                assert ours[name] == theirs[name]

    def test_failures_keep_their_last_words(self, compared):
        found, out, _ = compared
        failed = [row for row in found.rows if row["status"] != "ok"]
        assert {row["method"] for row in failed} == {"some", "hang"}
        assert "No such file" in failed[0]["tail"]
        assert {row["status"] for row in failed if row["method"] == "hang"} == {"ended after 4 s"}
        assert {row["tail"] for row in failed if row["method"] == "hang"} == {"waiting"}
        page = (out / "report.html").read_text("utf-8")
        assert "ended after 4 s: waiting" in page
        assert "skipped: its command no-such-tool is not found" in page

    def test_second_run_does_only_what_failed(self, compared, made):
        found, out, folder = compared
        calls = {name: len((folder / name / "calls").read_text("utf-8")) for name in ("truth", "half", "some")}
        assert calls == {"truth": 3, "half": 3, "some": 3}
        again = Plan(methods=("truth", "half", "some"), templates=folder / "mine.yaml", budget_seconds=4.0)
        repeated = benchmark(made.path, out, again)
        calls = {name: len((folder / name / "calls").read_text("utf-8")) for name in ("truth", "half", "some")}
        assert calls == {"truth": 3, "half": 3, "some": 4}
        assert repeated.of(repeated.methods[0]) == list(map(through_json, found.of(found.methods[0])))

    def test_other_settings_are_run_anew(self, compared, made, tmp_path):
        found, out, folder = compared
        copy = tmp_path / "out"
        copy.mkdir()
        (copy / "rows.jsonl").write_text((out / "rows.jsonl").read_text("utf-8") + '{"method": "cut sh')
        other = Plan(methods=("truth",), templates=folder / "mine.yaml", seed=2, budget_seconds=4.0)
        before = len((folder / "truth" / "calls").read_text("utf-8"))
        assert len(benchmark(made.path, copy, other).rows) == 3
        assert len((folder / "truth" / "calls").read_text("utf-8")) == before + 3
        assert {row["settings_hash"] for row in found.of(found.methods[0])}.isdisjoint(
            row["settings_hash"] for row in read_rows(copy / "rows.jsonl")[-3:]
        )

    def test_table_has_means_intervals_and_significance(self, compared):
        found, out, _ = compared
        header, lines = benchmark_rows(found)
        table = {line[0]: dict(zip(header, line, strict=True)) for line in lines}
        scores = [row["dice"] for row in found.of(found.methods[1])]
        assert table["Half"]["Dice"] == f"{np.mean(scores):.3f} ± {np.std(scores, ddof=1):.3f}"
        assert table["Half"]["pairs"] == "3 of 3"
        assert table["Truth"]["p"] == ""
        before = [row["dice_before"] for row in found.of(found.methods[1])]
        assert table["before"]["Dice"] == f"{np.mean(before):.3f} ± {np.std(before, ddof=1):.3f}"
        raw = stats.wilcoxon([1 - score for score in scores]).pvalue
        assert p_values(found)["half"] == pytest.approx(min(1, 2 * raw))
        raw = (
            [row["sdlogj"] for row in found.of(found.methods[0])],
            [row["sdlogj"] for row in found.of(found.methods[1])],
        )
        assert p_values(found, "sdlogj")["half"] == pytest.approx(min(1, 2 * stats.wilcoxon(*raw).pvalue))
        assert table["Half"]["p of SDlogJ"] == p_text(p_values(found, "sdlogj")["half"])
        assert float(table["Truth"]["ranking"]) >= float(table["Half"]["ranking"])
        assert "Only 3 pairs" in (out / "table.md").read_text("utf-8")
        assert r"Half & 3 of 3 &" in (out / "table.tex").read_text("utf-8")
        assert "| Half | 3 of 3 |" in (out / "table.md").read_text("utf-8")

    def test_all_is_written_with_its_provenance(self, compared, made):
        out = compared[1]
        assert json.loads((out / "provenance.json").read_text("utf-8"))["dataset"]["name"] == "Made"
        provenance = compared[0].provenance
        assert provenance["command"] == "corereg benchmark made"
        assert provenance["plan"]["budget_seconds"] == 4.0
        assert provenance["machine"]["versions"]["corereg"]
        assert set(provenance["methods"]) == {"truth", "half", "some", "hang"}
        with (out / "rows.csv").open() as file:
            assert len(list(csv.DictReader(file))) == 12
        assert sorted(p.name for p in (out / "figures").iterdir()) == [
            f"{name}.{kind}" for name in ("dice-per-label", "dice-sdlogj", "dice-seconds") for kind in ("pdf", "svg")
        ]
        kept = evaluate(made.path, out / "fields" / "truth")
        assert kept.summary["dice"].mean == 1
        assert not list(out.glob(".corereg-*"))

    def test_page_asks_for_nothing_from_outside(self, compared):
        page = (compared[1] / "report.html").read_text("utf-8")
        assert "http" not in page.replace("http-equiv", "")
        assert page.count("<img") == 3

    def test_same_rows_make_the_same_page(self, compared, tmp_path):
        for name in ("a", "b"):
            (tmp_path / name).mkdir()
            write_benchmark(compared[0], tmp_path / name)
        assert (tmp_path / "a" / "report.html").read_bytes() == (tmp_path / "b" / "report.html").read_bytes()


def through_json(row: dict[str, object]) -> dict[str, object]:
    return dict(json.loads(json.dumps(row)))


class TestMistakes:
    def test_no_method_that_can_be_run(self, made, tmp_path, monkeypatch):
        monkeypatch.setenv("COREREG_CACHE", str(tmp_path / "cache"))
        with pytest.raises(InputError, match="corereg peers install greedy"):
            benchmark(made.path, tmp_path / "out", Plan(methods=("greedy",)))
        assert not (tmp_path / "out").exists()

    def test_a_requested_method_that_is_missing_is_refused_at_once(self, made, tmp_path):
        plan = Plan(methods=("truth", "absent"), templates=templates(tmp_path, made))
        with pytest.raises(InputError, match=r"no-such-tool is not found.*--skip-missing"):
            benchmark(made.path, tmp_path / "out", plan)
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize("words", [["--methods", "nonsense"], ["--affine", "maybe"], ["--model", "no.safetensors"]])
    def test_mistaken_options(self, words, made, tmp_path):
        result = CliRunner().invoke(app, ["benchmark", str(made.path), "-o", str(tmp_path / "out"), *words])
        assert isinstance(result.exception, InputError)
        assert not (tmp_path / "out").exists()

    def test_pairs_without_labels(self, made, tmp_path):
        listed = tmp_path / "pairs.csv"
        images = made.path.parent / "imagesTr"
        listed.write_text(f"fixed,moving\n{images}/Made_0001_0000.nii.gz,{images}/Made_0002_0000.nii.gz\n")
        with pytest.raises(InputError, match="neither labels nor landmarks"):
            benchmark(listed, tmp_path / "out", Plan(methods=("corereg",)))

    def test_field_that_cannot_be_used_is_a_failed_row(self, made, tmp_path):
        write_disp_vox(tmp_path / "wrong.nii.gz", np.zeros((3, 4, 5, 6), np.float32))
        wrong = command(
            tmp_path, "import shutil, sys; shutil.copy(sys.argv[4], sys.argv[3])", str(tmp_path / "wrong.nii.gz")
        )
        (tmp_path / "mine.yaml").write_text(json.dumps([{"name": "wrong", "command": wrong}]))
        plan = Plan(methods=("wrong",), templates=tmp_path / "mine.yaml")
        rows = benchmark(made.path, tmp_path / "out", plan).rows
        assert {row["status"] for row in rows} == {"wrote a field that cannot be used"}
        assert "is it the field of another pair" in rows[0]["tail"]


@pytest.mark.slow
def test_own_method_through_the_driver_scores_what_it_scores_in_process(data_dir, tmp_path):
    dataset = data_dir / "headneck" / "HeadNeckCT_dataset.json"
    content = json.loads(dataset.read_text("utf-8"))
    content["registration_val"] = content["registration_val"][:1]
    for kind in ("imagesTr", "labelsTr"):
        (tmp_path / kind).symlink_to(dataset.parent / kind)
    (tmp_path / "One_dataset.json").write_text(json.dumps(content))
    plan = Plan(methods=("corereg",), models=("mind",), threads=2)
    (row,) = benchmark(tmp_path / "One_dataset.json", tmp_path / "out", plan).rows
    case = read_cases(tmp_path / "One_dataset.json").cases[0]
    result = register(case.fixed.image, case.moving.image, affine="none", model="mind", seed=1)
    assert row["sdlogj"] == pytest.approx(sdlogj(result.refined.at(result.fixed.grid).disp_vox.numpy()), abs=2e-3)
    assert row["dice"] > row["dice_before"] + 0.1
    assert 50 < row["peak_memory_mb"] < 8000
