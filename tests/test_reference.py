"""Files made from the code are those in the repository."""

import importlib.util
import re
from pathlib import Path

import pytest
import typer

import corereg
from corereg.cli import app
from corereg.method.config import register_options

GENERATOR = Path(__file__).parents[1] / "docs" / "generate_reference.py"


def generated() -> dict[Path, str]:
    specification = importlib.util.spec_from_file_location("generate_reference", GENERATOR)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    contents: dict[Path, str] = module.contents()
    return contents


@pytest.mark.parametrize("name", ["cli.md", "models.md", "settings.md", "register_settings.py"])
def test_generated_files_are_those_that_the_code_gives(name: str) -> None:
    [(path, text)] = [(path, text) for path, text in generated().items() if path.name == name]
    assert path.read_text(encoding="utf-8") == text, "run `make reference`"


def test_options_of_the_command_are_those_of_the_settings() -> None:
    parameters = {option.name: option for option in typer.main.get_command(app).commands["register"].params}
    for option in register_options():
        found = parameters[option.name]
        assert [*found.opts, *found.secondary_opts] == option.flag.split("/")
        assert option.meaning in found.help


def test_every_public_name_stands_in_the_python_reference() -> None:
    page = (GENERATOR.parent / "reference" / "api.md").read_text("utf-8")
    assert sorted(re.findall(r"^::: corereg\.(\w+)$", page, flags=re.M)) == sorted(corereg.__all__)
