"""The code blocks of README and docs run as they stand, and every option of their `corereg` commands exists."""

import re
import shlex
from pathlib import Path

import pytest
import typer

from corereg.cli import app
from corereg.io.images.image import write_image
from helpers.scenes import centred_grid, scan, wave

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text("utf-8"), flags=re.S | re.M)


def joined(text: str) -> str:
    """Commands over several lines, each on one."""
    return text.replace("\\\n", " ")


@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p, "python")], ids=lambda p: p.name)
def test_python_blocks_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fixed, moving = (centred_grid((40, 36, 44), (3.0, 3.2, 3.0)), centred_grid((44, 40, 36), (2.9, 3.0, 3.5)))
    write_image("fixed.nii.gz", scan(fixed).array, fixed)
    write_image("moving.nii.gz", scan(moving, wave).array, moving)
    if page.name != "README.md":
        import corereg

        Path("out").mkdir()
        corereg.register("fixed.nii.gz", "moving.nii.gz", refine_steps=2).transform.save("out/transform.nii.gz")
    for block in blocks(page, "python"):
        exec(compile(block, str(page), "exec"), {})


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_commands_and_options_of_the_pages_exist(page):
    commands = typer.main.get_command(app).commands
    text = joined(page.read_text("utf-8"))
    lines = [
        line for block in blocks(page, "bash") for line in joined(block).splitlines() if line.startswith("corereg ")
    ]
    for line in lines:
        words = shlex.split(line, comments=True)
        options = {name for option in commands[words[1]].params for name in (*option.opts, *option.secondary_opts)}
        assert {word for word in words if word.startswith("-")} <= options, line
    every = {name for c in commands.values() for o in c.params for name in (*o.opts, *o.secondary_opts)}
    mentioned = set(re.findall(r"`(--[a-z-]+)", text))
    assert mentioned <= every
