"""The shape of the code: imports without circles, tests that stand alone, public paths, short files."""

import ast
import importlib
import pkgutil
import re
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import corereg
import corereg.data.phantom
import corereg.evaluation.metrics
import corereg.integrations

TESTS = Path(__file__).parent
SOURCE = TESTS.parent / "src"
FILES = sorted((SOURCE / "corereg").rglob("*.py"))
MOST_LINES = 300
EXTRAS = {"magicgui", "monai", "napari"}


def module_of(path: Path) -> str:
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def nodes_of(path: Path) -> list[ast.AST]:
    return list(ast.walk(ast.parse(path.read_text("utf-8"))))


def imports_of(path: Path, modules: set[str]) -> Iterator[str]:
    """Modules of the package that a file imports, anywhere in it: in functions and for type checkers too."""
    for node in nodes_of(path):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in modules)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} imports relative to its folder"
            for alias in node.names:
                submodule = f"{node.module}.{alias.name}"
                yield from {submodule if submodule in modules else node.module or ""} & modules


def test_no_modules_import_each_other_in_a_circle():
    modules = {module_of(path) for path in FILES}
    graph = {module_of(path): set(imports_of(path, modules)) for path in FILES}
    assert sum(map(len, graph.values())) > len(graph)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as circle:
        pytest.fail(" imports ".join(reversed(circle.args[1])))


def test_imports_hidden_in_functions_are_found(tmp_path):
    path = tmp_path / "module.py"
    path.write_text("def run():\n    from corereg.geometry import grid\n    import corereg.errors\n")
    assert set(imports_of(path, {"corereg.geometry.grid", "corereg.errors"})) == {
        "corereg.geometry.grid",
        "corereg.errors",
    }


def test_no_test_imports_a_test():
    files = [path for path in TESTS.rglob("*.py") if path != Path(__file__)]
    for path in files:
        for node in nodes_of(path):
            named = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            named += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            assert not [n for n in named if n.split(".")[-1].startswith("test_") or n == "conftest"], path


def test_a_test_stands_in_the_room_of_what_it_tests():
    """Other folders hold helpers, tests of what is outside the package, and tests that need other programs."""
    others = {"benchmarks", "helpers", "interop"}
    for path in TESTS.rglob("test_*.py"):
        room = path.parent.relative_to(TESTS)
        assert (SOURCE / "corereg" / room).is_dir() or room.parts[0] in others, path


@pytest.mark.parametrize("package", [corereg, corereg.evaluation.metrics, corereg.data.phantom])
def test_every_public_name_is_there(package):
    assert package.__all__
    assert all(getattr(package, name) is not None for name in package.__all__)


@pytest.mark.parametrize("name", [module.name for module in pkgutil.iter_modules(corereg.integrations.__path__)])
def test_every_integration_imports(name):
    try:
        module = importlib.import_module(f"corereg.integrations.{name}")
    except ModuleNotFoundError as missing:
        if missing.name is None or missing.name.split(".")[0] not in EXTRAS:
            raise
        pytest.skip(f"{missing.name} is an extra that is not installed")
    assert all(getattr(module, public) is not None for public in module.__all__)


def test_files_are_short():
    lengths = {module_of(path): len(path.read_text("utf-8").splitlines()) for path in FILES}
    assert {name: length for name, length in lengths.items() if length > MOST_LINES} == {}


def called(node: ast.Call) -> str:
    """The last part of the name of what is called."""
    return getattr(node.func, "attr", getattr(node.func, "id", ""))


def imported_tops(path: Path) -> set[str]:
    """Top-level modules that a file imports, `import_module("name")` included."""
    names: set[str] = set()
    for node in nodes_of(path):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
        elif isinstance(node, ast.Call) and called(node) == "import_module":
            names.update(str(part.value) for part in node.args[:1] if isinstance(part, ast.Constant))
    return {name.split(".")[0] for name in names if name}


def declared(*groups: str) -> set[str]:
    """Import names of what pyproject.toml installs: its dependencies and these extras."""
    tomllib = pytest.importorskip("tomllib", reason="Python 3.10 reads no TOML")
    project = tomllib.loads((TESTS.parent / "pyproject.toml").read_text("utf-8"))["project"]
    extras = project["optional-dependencies"]
    lines = project["dependencies"] + [line for name in groups for line in extras[name]]
    own = [name for line in lines if line.startswith("corereg[") for name in re.findall(r"\w+", line)[1:]]
    lines += [line for name in own for line in extras[name]]
    names = {re.split(r"[^A-Za-z0-9_-]", line)[0].lower().replace("-", "_") for line in lines}
    renamed = {"pyyaml": "yaml"}
    return {renamed.get(name, name) for name in names}


def test_every_imported_package_is_a_declared_dependency():
    """A machine that has more installed than pyproject.toml asks for hides a missing line; so compare the texts."""
    of_others = {"corereg", "llvmlite"}  # llvmlite comes with numba, whose version it is tied to
    source = {name.lower() for path in FILES for name in imported_tops(path)}
    source -= set(sys.stdlib_module_names) | of_others
    groups = ("dicom", "interop", "mesh", "mlflow", "monai", "napari", "onnx", "parquet", "ray", "tensorboard", "zarr")
    extras = declared(*groups, "wandb")
    peers = {"ants", "convexadam", "itk", "niftyreg", "picsl_greedy", "train_voxelmorph", "voxelmorph"}
    elsewhere = peers | {"triton", "vtkmodules"}
    assert source - extras - declared() <= elsewhere  # in torch's CUDA wheels, in vtk, and the peers' own packages
    helpers = {path.stem for path in TESTS.rglob("*.py")} | {"helpers"}
    tests = {name.lower() for path in (TESTS / "helpers").rglob("*.py") for name in imported_tops(path)}
    assert tests - set(sys.stdlib_module_names) - of_others - helpers <= declared("test")
