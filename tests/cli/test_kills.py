"""kill -9 at random moments: what is found afterwards is the old result, the new one or none, and the next run ends."""

import hashlib
import json
import random
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from corereg.errors import InputError
from corereg.evaluation.benchmark.rows import key_of, read_rows
from corereg.io.images.image import read_image
from corereg.io.transforms.transform import Transform
from corereg.method.features.model_file import load_model
from corereg.training.checkpoint import CHECKPOINT, load_checkpoint
from corereg.training.train import MODEL
from helpers import pairs, transforms
from helpers.cohorts import make_cohort
from helpers.kills import killed, run
from helpers.protocols import small_abdomen
from helpers.training import SMALL, same, weights_of

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(3000),
    pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL"),
]

KILLS = 40
FRESH_EVERY = 4
"""One kill in this many hits a run into an empty folder, the others one that replaces an earlier result."""
WHOLE_EVERY = 10
"""After this many kills the next run is left to end."""
WRITING_SHARE = 0.3
"""Share of a run in which its files are written and published, at most."""

PATIENCE = 0.8
"""Factor on the time to a kill after a run that ended before it: the first runs are slower."""

Words = Callable[[int, Path], Sequence[object]]
Result = dict[str, str]


def hidden(folder: Path) -> list[str]:
    """What killed runs left to be cleaned up."""
    return [path.name for path in folder.rglob(".corereg*")]


def contents(folder: Path, exact: Callable[[Path], bytes] = Path.read_bytes) -> Result:
    """Digests of the visible files."""
    files = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    return {path.name: hashlib.sha256(exact(path)).hexdigest() for path in files}


def attack(words: Words, read: Callable[[Path], Any], exact: Callable[[Path], bytes], folder: Path) -> dict[str, int]:
    """Replace the result of one variant by that of the other, again and again, and kill the command meanwhile.

    Args:
        words: the command that writes variant 0 or 1 into a folder.
        read: opens the result as users' next command does.
        exact: the bytes of a file, without what differs between equal runs.

    Returns: how many kills found which result afterwards.
    """
    log, out = folder / "log", folder / "out"
    out.mkdir()
    seconds_of, results = [], []
    for variant in (0, 1, 0, 1):
        seconds_of.append(run(words(variant, out), log))
        results.append(contents(out, exact))
    assert results[:2] == results[2:]
    assert results[0].keys() == results[1].keys()
    assert all(results[0][name] != results[1][name] for name in results[0])
    rng, whole_s, writing_s = random.Random(5), min(seconds_of), WRITING_SHARE * min(seconds_of)
    current, found, number = 1, {"old": 0, "new": 0, "none": 0, "ended before": 0}, 0
    while sum(found.values()) - found["ended before"] < KILLS:
        number += 1
        target = folder / f"fresh{number}" if number % FRESH_EVERY == 0 else out
        target.mkdir(exist_ok=True)
        if number % 3 == 0:
            ended = not killed(words(1 - current, target), rng.uniform(0, whole_s), log)
            whole_s *= PATIENCE if ended else 1
        else:
            ended = not killed(words(1 - current, target), rng.uniform(0, writing_s), log, writing_into=target)
            writing_s *= PATIENCE if ended else 1
        try:
            read(target)
        except InputError:
            assert target != out, "the old result is lost"
            assert contents(target) == {}
        left = contents(target, exact)
        assert left in ({}, *results[:2]), f"mixed after kill {number}"
        what = "none" if left == {} else "new" if left == results[1 - current] else "old"
        found["ended before" if ended else what] += 1
        if target == out:
            current = results.index(left)
        if target != out or number % WHOLE_EVERY == 0:
            run(words(1 - current, target), log)
            assert contents(target, exact) == results[1 - current]
            assert hidden(target) == []
            current = 1 - current if target == out else current
    run(words(1 - current, out), log)
    assert contents(out, exact) == results[1 - current]
    assert hidden(out) == []
    return found


def result_without_times(path: Path) -> bytes:
    """What decides a result: the settings of result.json and of the report; all bytes of other files."""
    if path.name == "result.json":
        return json.dumps(json.loads(path.read_text("utf-8"))["configuration"], sort_keys=True).encode()
    if path.suffix == ".html":
        page = path.read_text("utf-8")
        return next(steps for steps in (b"--refine-steps 2", b"--refine-steps 3") if steps.decode() in page)
    return path.read_bytes()


def test_register(scans: Path, tmp_path: Path) -> None:
    def words(variant: int, out: Path) -> Sequence[object]:
        pair = ["register", scans / "fixed.nii.gz", scans / "moving.nii.gz", "-o", out]
        return [*pair, "--affine", "none", "--refine-steps", 2 + variant, "--threads", 1, "--force"]

    def read(out: Path) -> None:
        Transform.load(out / "transform.nii.gz")
        json.loads((out / "result.json").read_text("utf-8"))

    print(attack(words, read, result_without_times, tmp_path))


def two_transforms(folder: Path) -> list[Path]:
    """They differ in grid and affine map, so that headers and matrices differ too."""
    shifted = np.eye(4)
    shifted[:3, 3] = 2.0, -3.0, 1.0
    paths = [folder / f"{name}.h5" for name in ("first", "second")]
    transforms.wavy(transforms.FIXED).save(paths[0])
    other = Transform((transforms.wave_displacement(), shifted), fixed=pairs.FIXED, moving=transforms.MOVING)
    other.save(paths[1])
    return paths


def test_convert(tmp_path: Path) -> None:
    given = two_transforms(tmp_path)

    def words(variant: int, out: Path) -> Sequence[object]:
        return ["convert", given[variant], "-o", out / "pair_", "--to", "ants", "--force"]

    def read(out: Path) -> None:
        Transform.load(out / "pair_", source_format="ants")

    print(attack(words, read, Path.read_bytes, tmp_path))


def test_apply(scans: Path, tmp_path: Path) -> None:
    given = two_transforms(tmp_path)

    def words(variant: int, out: Path) -> Sequence[object]:
        return ["apply", given[variant], scans / "moving.nii.gz", "-o", out / "warped.mhd", "--force"]

    print(attack(words, lambda out: read_image(out / "warped.mhd"), Path.read_bytes, tmp_path))


def test_train(tmp_path: Path) -> None:
    dataset, log, settings = small_abdomen(tmp_path / "data"), tmp_path / "log", tmp_path / "settings.json"
    settings.write_text(json.dumps(SMALL))

    def words(folder: Path) -> Sequence[object]:
        resume = ["--resume"] if (folder / CHECKPOINT).exists() else []
        return ["train", dataset, "-o", folder, "--config", settings, "--device", "cpu", *resume]

    whole_s = run(words(tmp_path / "whole"), log)
    truth = weights_of(tmp_path / "whole")
    kills, finished = 0, 0
    folder = tmp_path / "run0"
    rng = random.Random(6)
    while kills < KILLS:
        ended = not killed(words(folder), rng.uniform(0.1, 1.0) * whole_s, log)
        kills += not ended
        if (folder / CHECKPOINT).exists():
            load_checkpoint(folder / CHECKPOINT)
        if (folder / MODEL).exists():
            load_model(folder / MODEL)
        if ended:
            assert same(weights_of(folder), truth)
            assert hidden(folder) == []
            finished += 1
            whole_s *= PATIENCE
            folder = tmp_path / f"run{finished}"
    run(words(folder), log)
    assert same(weights_of(folder), truth)
    assert hidden(folder) == []
    print(f"train: {kills} kills, {finished + 1} runs that ended")


COPY = """
import pathlib, shutil, sys, time
fixed, moving, out, folder = map(pathlib.Path, sys.argv[1:])
case = lambda path: path.name.split("_")[1]
time.sleep(0.2)
shutil.copy(folder / f"disp_{case(fixed)}_0000_{case(moving)}_0000.nii.gz", out)
"""


def test_benchmark(tmp_path: Path) -> None:
    cohort, log, script = make_cohort(tmp_path / "data"), tmp_path / "log", tmp_path / "copy.py"
    script.write_text(COPY)
    entries = []
    for name, scale in (("truth", 1.0), ("half", 0.5)):
        fields = cohort.write_fields(tmp_path / name, scale=scale)
        command = [sys.executable, "-S", str(script), "{fixed}", "{moving}", "{out}", str(fields)]
        entries.append({"name": name, "command": shlex.join(command)})
    (tmp_path / "mine.yaml").write_text(json.dumps(entries))

    def words(out: Path) -> Sequence[object]:
        chosen = ["--methods", "truth,half", "--peers", tmp_path / "mine.yaml", "--threads", 1, "--keep-fields"]
        return ["benchmark", cohort.path, "-o", out, *chosen]

    whole_s = run(words(tmp_path / "whole"), log)
    truth = {key_of(row): row["dice"] for row in read_rows(tmp_path / "whole" / "rows.jsonl")}
    assert len(truth) == 2 * len(cohort.fields)
    kills, finished = 0, 0
    out, before = tmp_path / "out0", []
    rng = random.Random(7)
    while kills < KILLS:
        ended = not killed(words(out), rng.uniform(0.1, 1.0) * whole_s, log)
        kills += not ended
        rows = read_rows(out / "rows.jsonl")
        assert rows[: len(before)] == before, "a finished row is lost"
        assert all(row["dice"] == truth[key_of(row)] for row in rows)
        before = rows
        if ended:
            assert len(rows) == len(truth)
            assert hidden(out) == []
            finished += 1
            whole_s *= PATIENCE
            out, before = tmp_path / f"out{finished}", []
    run(words(out), log)
    rows = read_rows(out / "rows.jsonl")
    assert {key_of(row): row["dice"] for row in rows} == truth
    assert len(rows) == len(truth)
    assert hidden(out) == []
    print(f"benchmark: {kills} kills, {finished + 1} runs that ended")
