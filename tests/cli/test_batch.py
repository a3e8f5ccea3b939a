"""`corereg batch`: the folders that `register` would write, one-line refusals, and how signals end it."""

import json
import random
import re
import shutil
import signal
import time
from pathlib import Path

import psutil
import pytest

from corereg.io.places import STAGING
from corereg.workflows.batch.rows import read_rows
from helpers.batches import as_csv, use_stub
from helpers.commands import Command, one_line
from helpers.forks import forked, start, stopped
from helpers.processes import runs

QUICK = ["--affine", "none", "--refine-steps", "2"]


def test_batch_writes_the_bytes_that_register_writes(scans: Path, tmp_path: Path, command: Command) -> None:
    """Those that are kept, and no others; a second pair cannot be read."""
    words = [scans / "fixed.nii.gz", scans / "moving.nii.gz"]
    labels = {f"{side}_labels": str(scans / f"{side}_labels.nii.gz") for side in ("fixed", "moving")}
    (tmp_path / "broken.nii").write_text("no image")
    rows = [
        {"fixed": str(words[0]), "moving": str(words[1]), "name": "whole", "seed": 1, **labels},
        {"fixed": str(words[0]), "moving": "broken.nii", "name": "broken"},
    ]
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, rows)))
    keep = ["--keep", "warped_labels,transform", "--threads", 1]
    done = command("batch", tmp_path / "pairs.jsonl", "-o", tmp_path / "out", *keep, *QUICK, "--no-page")
    assert done.status == 1
    assert "1 of 2 pairs registered" in done.out
    alone = ["--seed", 1, "--threads", 1, "--no-report"]
    alone += ["--fixed-labels", labels["fixed_labels"], "--moving-labels", labels["moving_labels"]]
    assert command("register", *words, "-o", tmp_path / "alone", *QUICK, *alone).status == 0
    kept = {"warped_labels.nii.gz", "transform.nii.gz"}
    assert {path.name for path in (tmp_path / "out" / "whole").iterdir()} == kept | {"result.json"}
    for name in kept:
        assert (tmp_path / "out" / "whole" / name).read_bytes() == (tmp_path / "alone" / name).read_bytes()
    found = {
        row["name"]: row for row in map(json.loads, (tmp_path / "out" / "rows.jsonl").read_text("utf-8").splitlines())
    }
    metrics = json.loads((tmp_path / "alone" / "result.json").read_text("utf-8"))["metrics"]
    assert {name: found["whole"].get(name) for name in metrics} == metrics
    assert found["broken"]["status"] == "failed"
    assert "broken.nii" in found["broken"]["error"]


@pytest.mark.parametrize(
    ("text", "options", "words"),
    [
        ("fixed,moving\nfixed.nii.gz,gone.nii\n", [], "gone.nii (pair 1"),
        ("fix,moving\nfixed.nii.gz,gone.nii\n", [], "unknown column 'fix'"),
        ("fixed,moving\n", [], "no pairs"),
        ("fixed,moving,name\na,b,x\na,b,x\n", ["--partial"], "an earlier pair has this name"),
        ("fixed,moving\na,b\n", ["--shard", "3of4"], "3of4"),
        ("fixed,moving\na,b\n", ["--all-to", "a", "--every-pair"], "choose one"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(
    tmp_path: Path, command: Command, text: str, options: list[str], words: str
) -> None:
    (tmp_path / "fixed.nii.gz").touch()
    (tmp_path / "pairs.csv").write_text(text)
    assert words in one_line(command("batch", tmp_path / "pairs.csv", "-o", tmp_path / "out", *options))
    assert not (tmp_path / "out").exists()


def test_the_worst_verdicts_come_first_and_strict_ends_with_3(tmp_path: Path) -> None:
    pairs = as_csv(tmp_path / "pairs.csv", ["a", "doubtful", "wrong", "b"])
    for options, status in (["--strict"], 3), ([], 0):
        done = forked("batch", pairs, "-o", tmp_path / "out", *options, before=use_stub)
        assert done.returncode == status, done.stderr
        assert "4 of 4 pairs registered" in done.stdout
        assert done.stdout.endswith(", 1 fail, 1 warn, 2 pass\n")
    rows = {row["name"]: row for row in read_rows(tmp_path / "out" / "rows.jsonl")}
    assert (rows["wrong"]["verdict"], rows["wrong"]["reasons"]) == ("fail", ["it is wrong"])
    page = (tmp_path / "out" / "report.html").read_text("utf-8")
    cells = re.findall(r'<td class="(\w+)" data-value="(\d)" title="([^"]*)">', page)
    assert cells == [("fail", "0", "it is wrong"), ("warn", "1", "it is doubtful"), *[("pass", "2", "")] * 2]


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_all_workers_with_one_line_and_leaves_nothing_half_written(
    tmp_path: Path, number: int, status: int
) -> None:
    out = tmp_path / "out"
    pairs = as_csv(tmp_path / "pairs.csv", ["a", "stuck-1", "stuck-2"])
    words = ["batch", pairs, "-o", out, "--jobs", "2", "--no-page"]
    done = stopped(words, lambda: len(stuck_in(out)) == 2, number, before=use_stub)
    assert done.returncode == status
    lines = done.stderr.splitlines()
    assert lines[-1] == "corereg: interrupted; rerun the same command to resume"
    assert all(line.startswith("corereg: ") for line in lines)
    workers = {int(pid) for path in out.glob("*.attempts") for pid in path.read_text("utf-8").split()}
    assert len(workers) == 2
    assert not [pid for pid in workers if runs(pid)]
    assert [path.name for path in out.iterdir() if path.is_dir()] == ["a"]
    assert [json.loads(line)["name"] for line in (out / "rows.jsonl").read_text("utf-8").splitlines()] == ["a"]


def stuck_in(out: Path) -> list[Path]:
    """Half of a result, for each pair that is being written."""
    return list(out.glob(f"*/{STAGING}*/warped.nii.gz"))


def test_workers_end_with_a_killed_driver_and_a_second_driver_is_refused(tmp_path: Path, command: Command) -> None:
    out = tmp_path / "out"
    pairs = as_csv(tmp_path / "pairs.csv", ["stuck"])
    driver = start(["batch", pairs, "-o", out, "--no-page"], tmp_path / "log", tmp_path / "log", before=use_stub)
    end = time.monotonic() + 300
    while not stuck_in(out):
        assert time.monotonic() < end
        time.sleep(0.05)
    assert "another `corereg batch`" in one_line(command("batch", pairs, "-o", out, "--no-page"))
    [worker] = (out / "stuck.attempts").read_text("utf-8").split()
    driver.kill()
    driver.join()
    while runs(int(worker)):
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.slow
def test_kills_at_random_moments_lose_nothing_and_leave_no_half_written_folder(tmp_path: Path) -> None:
    """Drivers and workers in turn. What has a row is never done again, and all is done in the end."""
    names, out = [f"nap-{n}" for n in range(60)], tmp_path / "out"
    words = ["batch", as_csv(tmp_path / "pairs.csv", names), "-o", out, "--jobs", 2, "--no-page", "--retries", 1000]
    generator = random.Random(0)
    kinds = ["driver", "worker"] * 25
    for kind in kinds:
        before = {name: (out / f"{name}.attempts").read_text("utf-8") for name in finished(out)}
        driver = start(words, tmp_path / "log", tmp_path / "log", before=use_stub)
        time.sleep(generator.uniform(0.3, 2.0))
        children = psutil.Process(driver.pid).children() if driver.is_alive() else []
        workers = [child for child in children if "spawn_main" in " ".join(child.cmdline())]
        (generator.choice(workers) if workers and kind == "worker" else driver).kill()
        driver.join(60)
        assert driver.exitcode in (0, -signal.SIGKILL)
        assert {name: (out / f"{name}.attempts").read_text("utf-8") for name in before} == before
        if finished(out) == set(names):
            assert {path.name for path in out.glob("*/*")} == {"result.json"}
            assert len({(out / name / "result.json").read_text("utf-8") for name in names}) == 1
            shutil.rmtree(out)
    assert forked(*words, before=use_stub).returncode == 0
    assert finished(out) == set(names)
    assert {path.name for path in out.glob("*/*")} == {"result.json"}


def finished(out: Path) -> set[str]:
    """Names of pairs with a row. Each has its complete folder."""
    names = {row["name"] for row in read_rows(out / "rows.jsonl") if row["status"] == "ok"}
    assert all((out / name / "result.json").is_file() for name in names)
    return names
