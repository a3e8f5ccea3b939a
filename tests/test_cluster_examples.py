"""The examples for clusters call `corereg batch` with options that exist, and their shards are all pairs."""

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import typer

from corereg.cli import app
from corereg.workflows.batch.plan import Shard

ROOT = Path(__file__).parents[1]
CLUSTER = ROOT / "examples" / "cluster"
FILES = sorted(CLUSTER.iterdir())
DOCKERFILES = [ROOT / "docker" / name for name in ("Dockerfile", "Dockerfile.cuda")]
NUMBERS = {
    "$SLURM_ARRAY_TASK_ID": "3",
    "$SLURM_ARRAY_TASK_COUNT": "8",
    "{wildcards.number}": "3",
    "{SHARDS}": "8",
    "${number}": "3",
    "${params.shards}": "8",
}


def commands(path: Path) -> list[list[str]]:
    """The calls of `corereg batch`, with numbers in place of the shards' variables."""
    text = path.read_text("utf-8")
    for name, value in NUMBERS.items():
        text = text.replace(name, value)
    lines = re.findall(r"corereg (batch [^\n]*)", text)
    calls = [line.split(" ||")[0] for line in lines]
    # The last quote closes the text that the call stands in, if none opens it.
    return [shlex.split(call.removesuffix('"') if call.count('"') % 2 else call) for call in calls]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_shards_and_a_last_run_are_commands_that_exist(path: Path) -> None:
    parser = typer.main.get_command(app).commands["batch"]
    found = []
    for _, *words in commands(path):
        context = parser.make_context("batch", words, resilient_parsing=False)
        assert context.params["out"]
        assert context.params["pairs"]
        found.append(context.params["shard"])
    assert {Shard.parse(shard) for shard in found} == {Shard(3, 8), Shard()}


def test_a_slurm_array_registers_every_pair_once(tmp_path: Path) -> None:
    script = CLUSTER / "slurm_array.sh"
    [first, last] = map(int, re.findall(r"--array=(\d+)-(\d+)", script.read_text("utf-8"))[0])
    (tmp_path / "corereg").write_text('#!/bin/sh\nfor word; do last="$word"; done\necho "$last"\n')
    (tmp_path / "corereg").chmod(0o755)
    shards = []
    for task in range(first, last + 1):
        environment = {
            "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}",
            "SLURM_ARRAY_TASK_ID": str(task),
            "SLURM_ARRAY_TASK_COUNT": str(last),
        }
        done = subprocess.run(
            [shutil.which("bash") or "bash", script, "pairs.csv", "out"],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        shards.append(Shard.parse(done.stdout.strip()))
    assert all(sum(shard.holds(index) for shard in shards) == 1 for index in range(100))


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_images_compile_the_kernels_into_a_cache_that_all_users_may_use(path: Path) -> None:
    text = path.read_text("utf-8").replace("\\\n", " ")
    instructions = [line for line in text.splitlines() if re.match(r"[A-Z]+ ", line)]
    assert next(line.split()[0] for line in instructions) == "FROM"
    environment = " ".join(line for line in instructions if line.startswith("ENV "))
    assert re.search(r"\bNUMBA_CACHE_DIR=/\S+", environment)
    [install] = [n for n, line in enumerate(instructions) if "pip install" in line]
    [warmup] = [n for n, line in enumerate(instructions) if "corereg warmup" in line]
    assert install < warmup
    assert "chmod -R a+rwX $NUMBA_CACHE_DIR" in instructions[warmup]
    [extras] = re.findall(r"/src\[([\w,]+)\]", text)
    assert set(extras.split(",")) <= set(re.findall(r"^(\w+) = \[", (ROOT / "pyproject.toml").read_text("utf-8"), re.M))
    assert instructions[-1] == 'ENTRYPOINT ["corereg"]'
    assert "warmup" in typer.main.get_command(app).commands


def test_only_what_an_installation_needs_is_sent_to_docker() -> None:
    for path in DOCKERFILES:
        ignored = path.with_name(path.name + ".dockerignore").read_text("utf-8").splitlines()
        kept = [line.removeprefix("!") for line in ignored if line.startswith("!")]
        assert ignored[0] == "*"
        assert all((ROOT / name).exists() for name in kept)
        assert {"src", "pyproject.toml", "README.md", "LICENSE", "constraints.txt"} == set(kept)
