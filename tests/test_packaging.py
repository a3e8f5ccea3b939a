"""What is released: metadata, the conda recipe, and (slowly) sdist and wheel in a fresh environment."""

import importlib.util
import json
import os
import re
import subprocess
import sys
import venv
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from corereg.io.images.image import write_image
from helpers.pairs import pair

ROOT = Path(__file__).parents[1]
PYPROJECT = (ROOT / "pyproject.toml").read_text("utf-8")
CONDA_NAMES = {"torch": "pytorch", "isal": "python-isal", "matplotlib": "matplotlib-base"}


def release() -> ModuleType:
    """The script behind `make release`."""
    specification = importlib.util.spec_from_file_location("release", ROOT / "packaging" / "release.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def version() -> str:
    (found,) = re.findall(r'^version = "(.+)"', PYPROJECT, flags=re.M)
    return str(found)


def normal(requirement: str) -> str:
    """`name>=bound` in one spelling for both worlds."""
    name, bound = re.split(r"(?=[<>=])", requirement.partition(";")[0].replace(" ", ""), maxsplit=1)
    return CONDA_NAMES.get(name, name).lower().replace("_", "-") + bound


def test_conda_recipe_requires_what_the_package_requires() -> None:
    recipe = yaml.safe_load((ROOT / "packaging" / "conda" / "recipe.yaml").read_text("utf-8"))
    (block,) = re.findall(r"^dependencies = \[\n(.*?)^\]", PYPROJECT, flags=re.S | re.M)
    (python,) = re.findall(r'^requires-python = "(.+)"', PYPROJECT, flags=re.M)
    needed = {normal(requirement) for requirement in re.findall(r'"(.+)"', block)} | {f"python{python}"}
    assert {normal(requirement) for requirement in recipe["requirements"]["run"]} == needed
    assert recipe["context"]["version"] == version()
    (licence,) = re.findall(r'^license = "(.+?)"', PYPROJECT, flags=re.M)
    assert recipe["about"]["license"] == licence


def test_citation_has_the_version_of_the_package() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert citation["version"] == version()


def test_workflow_tests_every_python_that_the_package_declares() -> None:
    content = yaml.safe_load((ROOT / ".github" / "workflows" / "test.yml").read_text("utf-8"))
    declared = re.findall(r"Programming Language :: Python :: (3\.\d+)", PYPROJECT)
    assert content["jobs"]["test"]["strategy"]["matrix"]["python"] == declared
    assert any("make test" in step.get("run", "") for step in content["jobs"]["test"]["steps"])


def test_release_without_changes_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    script = release()
    assert script.section(version())
    (tmp_path / "CHANGELOG.md").write_text("# Changelog\n\n## [Unreleased]\n\n## [0.0.1]\n\n- one\n")
    monkeypatch.setattr(script, "ROOT", tmp_path)
    assert script.section("0.0.1") == "- one"
    with pytest.raises(SystemExit, match="no changes"):
        script.section("0.0.2")


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_wheel_registers_a_pair_in_a_fresh_environment(tmp_path: Path) -> None:
    script = release()
    (tmp_path / "dist").mkdir()
    sdist, wheel = script.build(tmp_path / "dist")
    assert script.check(sdist, wheel) == []
    venv.create(tmp_path / "fresh", with_pip=True)
    programs = tmp_path / "fresh" / ("Scripts" if sys.platform == "win32" else "bin")
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    def run(*words: object) -> str:
        done = subprocess.run(list(map(str, words)), capture_output=True, text=True, env=clean, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        return done.stdout

    run(programs / "python", "-m", "pip", "install", "--quiet", wheel, "-c", ROOT / "constraints.txt")
    for image, name in zip(pair(), ("fixed", "moving"), strict=True):
        write_image(tmp_path / f"{name}.nii.gz", image.array, image)
    assert run(programs / "corereg", "--version") == f"corereg {version()}\n"
    words = ["register", "fixed.nii.gz", "moving.nii.gz", "-o", "out", "--model", "head-neck-ct", "--json"]
    assert json.loads(run(programs / "corereg", *words))["model"]["name"] == "head-neck-ct"
    assert "niivue" in (tmp_path / "out" / "report.html").read_text("utf-8").lower()
    size = sum(path.stat().st_size for path in (tmp_path / "fresh").rglob("*") if not path.is_symlink())
    print(f"wheel {wheel.stat().st_size / 2**20:.1f} MiB, environment {size / 2**30:.2f} GiB")
