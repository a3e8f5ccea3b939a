"""The 3D Slicer extension, against stand-ins for its nodes and for Qt's processes."""

import importlib.util
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import SimpleITK
from numpy.testing import assert_allclose

from corereg.io.images.image import Image, read_image, write_image
from corereg.io.images.itk import LPS_RAS
from helpers.programs import FIXED, MOVING, QUICK, registered
from helpers.scenes import scan, wave

EXTENSION = Path(__file__).parents[2] / "integrations" / "slicer"


class Volume:
    """As much of a vtkMRMLScalarVolumeNode as the module uses."""

    def __init__(self, image: Image, name: str) -> None:
        self.image, self.name, self.transform_id, self.parent = image, name, "", None

    def GetName(self) -> str:  # noqa: N802
        return self.name

    def GetParentTransformNode(self) -> Any:  # noqa: N802
        return self.parent

    def SetAndObserveTransformNodeID(self, number: str) -> None:  # noqa: N802
        self.transform_id = number


class TransformNode:
    """What `slicer.util.loadTransform` gives: here with the file as SimpleITK reads it."""

    def __init__(self, path: str) -> None:
        self.itk, self.name = SimpleITK.ReadTransform(path), ""

    def SetName(self, name: str) -> None:  # noqa: N802
        self.name = name

    def GetID(self) -> str:  # noqa: N802
        return "vtkMRMLTransformNode1"


class Process:
    """A QProcess that a test lets speak and end. `arguments` is the command; nothing runs."""

    last: "Process"

    def __init__(self) -> None:
        self.slots: dict[str, Callable[..., None]] = {}
        self.arguments: list[str] = []
        self.killed, self.out, self.error = False, b"", b""
        Process.last = self

    def connect(self, signal: str, slot: Callable[..., None]) -> None:
        self.slots[signal] = slot

    def start(self, program: str, arguments: list[str]) -> None:
        self.arguments = [program, *arguments]

    def kill(self) -> None:
        self.killed = True

    def say(self, text: str) -> None:
        self.out = text.encode()
        self.slots["readyReadStandardOutput()"]()

    def end(self, code: int, error: str = "") -> None:
        self.error = error.encode()
        self.slots["finished(int,QProcess::ExitStatus)"](code, 0)

    def readAllStandardOutput(self) -> Any:  # noqa: N802
        return SimpleNamespace(data=lambda: self.out)

    def readAllStandardError(self) -> Any:  # noqa: N802
        return SimpleNamespace(data=lambda: self.error)


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def export(node: Volume, path: str) -> bool:
    write_image(path, node.image.array, node.image.grid)
    return True


@pytest.fixture
def slicer_module(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The scripted module, loaded where `slicer` and `qt` are stand-ins."""
    bases = {
        name: type(name, (), {"__init__": lambda self, parent=None: None}) for name in ("", "Logic", "Test", "Widget")
    }
    scripted = ModuleType("slicer.ScriptedLoadableModule")
    for name, base in bases.items():
        setattr(scripted, f"ScriptedLoadableModule{name}", base)
    slicer, qt = ModuleType("slicer"), ModuleType("qt")
    slicer.util = SimpleNamespace(  # type: ignore[attr-defined]
        exportNode=export,
        loadTransform=TransformNode,
        showStatusMessage=lambda text: None,
        tryWithErrorDisplay=lambda *_, **__: nullcontext(),
    )
    qt.QProcess = Process  # type: ignore[attr-defined]
    for name, module in {"slicer": slicer, "slicer.ScriptedLoadableModule": scripted, "qt": qt}.items():
        monkeypatch.setitem(sys.modules, name, module)
    return load(EXTENSION / "CoreReg" / "CoreReg.py")


@pytest.fixture
def logic(slicer_module: ModuleType) -> Any:
    return slicer_module.CoreRegLogic()


def volumes() -> tuple[Volume, Volume]:
    return Volume(scan(FIXED), "day 1"), Volume(scan(MOVING, wave), "day 2")


def started(logic: Any, **settings: Any) -> tuple[Volume, list[Any], list[Any]]:
    """The moving volume, and what is reported to `progress` and to `done`."""
    fixed, moving = volumes()
    reports: list[Any] = []
    results: list[Any] = []
    logic.start(
        fixed,
        moving,
        progress=lambda text, share: reports.append((text, share)),
        done=lambda node, error: results.append((node, error)),
        **settings,
    )
    return moving, reports, results


def test_process_gets_both_volumes_in_their_places_and_the_settings(logic: Any) -> None:
    started(logic, modality="ct")
    program, worker, fixed, moving, _, settings = Process.last.arguments
    assert Path(program).exists()
    assert Path(worker) == EXTENSION / "CoreReg" / "CoreRegLib" / "worker.py"
    assert json.loads(settings) == {"modality": "ct"}
    assert read_image(fixed).grid.close_to(FIXED)
    assert read_image(moving).grid.close_to(MOVING)
    logic.cancel()
    Process.last.end(1)


def test_moving_volume_ends_up_under_the_transform(logic: Any) -> None:
    moving, reports, results = started(logic)
    process = Process.last
    process.say('{"text": "reading", "share": 0.0}\n{"text": "refining", ')
    process.say('"share": 0.25}\nnumba: a line of its own\n{"text": "aligning", "share": null}\n')
    assert reports == [("reading", 0.0), ("refining", 0.25), ("aligning", None)]
    assert not results
    folder = Path(process.arguments[4]).parent
    registered().save(process.arguments[4])
    process.end(0)
    ((node, error),) = results
    assert error is None
    assert moving.transform_id == node.GetID()
    assert node.name == "day 2 to day 1"
    points, lps = np.random.default_rng(0).uniform(-25, 25, (50, 3)), LPS_RAS[:3, :3]
    moved = np.array([node.itk.TransformPoint((lps @ p).tolist()) for p in points]) @ lps
    assert_allclose(moved, registered().apply_points(points), atol=1e-2)
    assert not folder.exists()


def test_worker_registers_the_files_as_the_package_does(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    worker = load(EXTENSION / "CoreReg" / "CoreRegLib" / "worker.py")
    files = [str(tmp_path / name) for name in ("fixed.nrrd", "moving.nrrd", "transform.h5")]
    for volume, file in zip(volumes(), files[:2], strict=True):
        export(volume, file)
    worker.main(*files, json.dumps(QUICK))
    reports = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert reports[0] == {"text": "reading", "share": 0.0}
    assert reports[-1] == {"text": "done", "share": 1.0}
    itk = SimpleITK.ReadTransform(files[2])
    points, lps = np.random.default_rng(0).uniform(-25, 25, (50, 3)), LPS_RAS[:3, :3]
    moved = np.array([itk.TransformPoint((lps @ p).tolist()) for p in points]) @ lps
    assert_allclose(moved, registered().apply_points(points), atol=1e-2)


def test_failed_and_cancelled_registrations_say_why_and_leave_nothing(logic: Any, tmp_path: Path) -> None:
    moving, _, results = started(logic)
    with pytest.raises(RuntimeError, match="cancel it first"):
        started(logic)
    first = Process.last
    first.end(1, "a warning\ngot an image, expected another\n")
    assert results == [(None, "got an image, expected another")]
    assert not Path(first.arguments[4]).parent.exists()
    _, _, results = started(logic)
    logic.cancel()
    assert Process.last.killed
    Process.last.end(9)
    assert results == [(None, "")]
    assert moving.transform_id == ""
    worker = EXTENSION / "CoreReg" / "CoreRegLib" / "worker.py"
    nowhere = [str(tmp_path / "no.nrrd"), str(tmp_path / "no.nrrd"), str(tmp_path / "t.h5"), "{}"]
    ended = subprocess.run([sys.executable, worker, *nowhere], capture_output=True, text=True)
    assert ended.returncode == 1
    assert "no.nrrd, which does not exist" in ended.stderr.splitlines()[-1]


def test_slicer_module_names_missing_inputs(logic: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="choose a fixed volume"):
        logic.check(None, "fixed")
    node = Volume(scan(FIXED), "day 1")
    node.parent = object()
    with pytest.raises(ValueError, match="harden it"):
        logic.check(node, "fixed")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(RuntimeError, match="pip_install"):
        started(logic)


def test_slicer_module_shows_itself(slicer_module: ModuleType) -> None:
    parent = SimpleNamespace()
    slicer_module.CoreReg(parent)
    assert parent.title == "corereg"
    assert parent.categories == ["Registration"]


ENTRY: dict[str, type] = {
    **{"$schema": str, "category": str, "scm_url": str, "scm_revision": str, "scm_type": str},
    **{"build_dependencies": list, "build_subdirectory": str, "enabled": bool, "tier": int},
}
"""What slicer-extension-catalog-entry-schema-v1.0.1.json allows; the first three are required."""


def test_catalog_entry_passes_the_checks_of_the_extensions_index() -> None:
    """Those of its schema and of scripts/check_description_files.py that need no network."""
    entry = json.loads((EXTENSION / "CoreReg.json").read_text("utf-8"))
    assert set(list(ENTRY)[:3]) <= entry.keys() <= ENTRY.keys()
    assert all(type(value) is ENTRY[name] for name, value in entry.items())
    assert entry["$schema"].partition("#")[0].endswith("/slicer-extension-catalog-entry-schema-v1.0.1.json")
    assert entry["tier"] in (1, 3, 5)
    assert entry["category"] == "Registration"  # one of those that it knows
    scheme, _, place = entry["scm_url"].partition("://")
    assert scheme in ("git", "https")
    assert "slicer" in Path(place).stem.lower()
    cmake = (EXTENSION / "CMakeLists.txt").read_text("utf-8")
    assert re.search(r"project\s*\(\s*([^\s\)]+)", cmake)[1] == "CoreReg"  # type: ignore[index]
    for name in ("ICONURL", "SCREENSHOTURLS"):
        (urls,) = re.findall(rf'set\s*\(EXTENSION_{name}\s*"([^"]+)"[ ]*\)', cmake)
        assert all(url.startswith("https://") and url.endswith(".png") for url in urls.split())
    assert "Apache License" in (EXTENSION / "LICENSE").read_text("utf-8")


@pytest.mark.skipif(shutil.which("cmake") is None, reason="CMake is not installed")
def test_cmake_configures_the_extension_and_finds_its_files(tmp_path: Path) -> None:
    """With a stand-in for Slicer's package, whose macros check the files that they are given."""
    (tmp_path / "SlicerConfig.cmake").write_text(SLICER_PACKAGE.replace("@HERE@", tmp_path.as_posix()), "utf-8")
    for name in ("use", "generate", "pack"):
        (tmp_path / f"{name}.cmake").write_text("", "utf-8")
    words = ["cmake", "-S", EXTENSION, "-B", tmp_path / "build", f"-DSlicer_DIR={tmp_path}", "-DBUILD_TESTING=ON"]
    done = subprocess.run(list(map(str, words)), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "CMake Warning" not in done.stderr
    assert "built CoreReg" in done.stdout
    assert "tested CoreReg.py" in done.stdout


SLICER_PACKAGE = """
set(Slicer_USE_FILE "@HERE@/use.cmake")
set(Slicer_EXTENSION_GENERATE_CONFIG "@HERE@/generate.cmake")
set(Slicer_EXTENSION_CPACK "@HERE@/pack.cmake")
macro(slicerMacroBuildScriptedModule)
  cmake_parse_arguments(MODULE "WITH_GENERIC_TESTS" "NAME" "SCRIPTS;RESOURCES" ${ARGN})
  foreach(file ${MODULE_SCRIPTS} ${MODULE_RESOURCES})
    if(NOT EXISTS "${CMAKE_CURRENT_SOURCE_DIR}/${file}")
      message(FATAL_ERROR "no ${file}")
    endif()
  endforeach()
  if(MODULE_UNPARSED_ARGUMENTS)
    message(FATAL_ERROR "unknown ${MODULE_UNPARSED_ARGUMENTS}")
  endif()
  message(STATUS "built ${MODULE_NAME}")
endmacro()
function(slicer_add_python_unittest)
  cmake_parse_arguments(TEST "" "SCRIPT" "" ${ARGN})
  message(STATUS "tested ${TEST_SCRIPT}")
endfunction()
"""


def test_extension_is_laid_out_as_the_extensions_index_requires() -> None:
    cmake = (EXTENSION / "CMakeLists.txt").read_text("utf-8")
    stated = dict(re.findall(r'^set\(EXTENSION_(\w+) "(.*)"\)$', cmake, flags=re.M))
    assert {"HOMEPAGE", "CATEGORY", "CONTRIBUTORS", "DESCRIPTION", "ICONURL", "SCREENSHOTURLS"} <= stated.keys()
    assert all(stated.values())
    entry = json.loads((EXTENSION / "CoreReg.json").read_text("utf-8"))
    required = {"$schema", "build_dependencies", "build_subdirectory", "category", "scm_revision", "scm_url", "tier"}
    assert entry.keys() == required
    assert entry["category"] == stated["CATEGORY"]
    assert entry["scm_url"] == stated["HOMEPAGE"] + ".git"
    for url in (stated["ICONURL"], stated["SCREENSHOTURLS"]):
        repository, _, file = url.partition("/main/")
        assert repository.endswith(stated["HOMEPAGE"].removeprefix("https://github.com"))
        assert (EXTENSION / file).read_bytes().startswith(b"\x89PNG")
    module = (EXTENSION / "CoreReg" / "CMakeLists.txt").read_text("utf-8").replace("${MODULE_NAME}", "CoreReg")
    listed = re.findall(r"^  (\S+\.(?:py|png))$", module, flags=re.M)
    scripts = {str(path.relative_to(EXTENSION / "CoreReg")) for path in (EXTENSION / "CoreReg").rglob("*.py")}
    assert {name for name in listed if name.endswith(".py")} == scripts
    assert all((EXTENSION / "CoreReg" / name).is_file() for name in listed)
