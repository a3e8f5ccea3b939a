"""The commands and code blocks of README and docs run as printed, in order, where a reader would run them."""

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import typer

import corereg
from corereg.cli import app
from helpers.commands import Command
from helpers.documents import NOT_RUN, OTHER_PROGRAMS, PAGES, ROOT, Block, blocks, expanded, needs, stock
from helpers.training import quick_recipe

EXECUTED = ("bash", "python")


@pytest.fixture(scope="module")
def stocked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reader")
    stock(folder)
    return folder


@pytest.fixture(scope="module")
def outputs(stocked: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What README's registration leaves."""
    folder = tmp_path_factory.mktemp("out")
    fixed, moving = stocked / "fixed.nii.gz", stocked / "moving.nii.gz"
    result = corereg.register(fixed, moving, refine_steps=2)
    result.transform.save(folder / "transform.nii.gz")
    result.inverse_transform.save(folder / "inverse_transform.nii.gz")
    result.transform.save(folder / "transform.h5")
    return folder


@pytest.fixture
def here(stocked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the files that the pages name."""
    shutil.copytree(stocked, tmp_path / "reader")
    monkeypatch.chdir(tmp_path / "reader")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "1")
    return tmp_path / "reader"


@pytest.fixture
def quick_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """Training runs of seconds, whatever the recipe."""
    monkeypatch.setattr("corereg.training.train.get_recipe", quick_recipe)


def pages(*languages: str) -> list[Any]:
    """The pages with blocks in any of these languages."""
    chosen = [page for page in PAGES if any(block.language in languages for block in blocks(page))]
    return [pytest.param(page, id=str(page.relative_to(ROOT))) for page in chosen]


def run(block: Block, page: Path, command: Command) -> None:
    """Run a block as a reader would."""
    if block.language == "python":
        exec(compile(block.text, str(page), "exec"), {"__name__": "__main__"})
        return
    for words in block.own:
        if words[0] in NOT_RUN or needs(words):
            continue
        done = command(*expanded(words))
        # Other people's tools are not installed here; that is said in one line.
        if done.status == 2 and words[0] == "benchmark" and "corereg peers install" in done.err:
            continue
        assert done.status == 0, f"{' '.join(words)}: {done.err}"


def begin(page: Path, outputs: Path) -> None:
    """Where a reader stands who begins with this page: most begin where README ends."""
    if not any(words[0] == "register" and "out" in words for block in blocks(page) for words in block.own):
        shutil.copytree(outputs, "out")


@pytest.mark.usefixtures("quick_affine")
def test_readme_runs_as_printed_but_for_what_takes_minutes(here: Path, command: Command) -> None:
    for block in blocks(ROOT / "README.md"):
        if block.language in EXECUTED and not block.slow:
            run(block, ROOT / "README.md", command)


@pytest.mark.usefixtures("quick_affine", "quick_training")
@pytest.mark.parametrize("page", [page for page in pages("python") if page.id != "README.md"])
def test_python_blocks_of_a_page_run(page: Path, here: Path, outputs: Path, command: Command) -> None:
    shutil.copytree(outputs, "out")
    for block in blocks(page):
        # Indented blocks are parts of a list of steps that need data which is not public.
        if block.language == "python" and not block.indented and "import tool" not in block.text:
            run(block, page, command)


@pytest.mark.slow
@pytest.mark.usefixtures("quick_training")
@pytest.mark.parametrize("page", pages(*EXECUTED))
def test_page_runs_as_printed(page: Path, here: Path, outputs: Path, command: Command) -> None:
    begin(page, outputs)
    for block in blocks(page):
        if block.language in EXECUTED and not block.indented and "import tool" not in block.text:
            run(block, page, command)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_and_options_of_the_pages_exist(page: Path) -> None:
    commands = typer.main.get_command(app).commands
    every = {name for c in commands.values() for o in c.params for name in (*o.opts, *o.secondary_opts)}
    for block in blocks(page):
        for words in block.commands:
            assert words[0] == "corereg" or words[0] in OTHER_PROGRAMS, words
        for words in block.own:
            known = commands[words[0]].params if words[0] in commands else typer.main.get_command(app).params
            options = {name for option in known for name in (*option.opts, *option.secondary_opts)} | {"--help"}
            assert {word for word in words if word.startswith("-")} <= options, words
    assert set(re.findall(r"`(--[a-z-]+)", page.read_text("utf-8"))) <= every


def test_extras_that_the_pages_install_exist() -> None:
    declared = set(re.findall(r"^(\w+) = \[", (ROOT / "pyproject.toml").read_text("utf-8"), flags=re.M))
    named = {extra for page in PAGES for extra in re.findall(r"corereg\[(\w+)\]", page.read_text("utf-8"))}
    assert named <= declared
