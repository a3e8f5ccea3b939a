"""The 3D Slicer module, against stand-ins for its nodes."""

import importlib.util
import sys
from contextlib import nullcontext
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import SimpleITK
from numpy.testing import assert_allclose

from corereg.io.images.image import Image
from corereg.io.images.itk import LPS_RAS
from helpers.programs import FIXED, MOVING, QUICK, registered
from helpers.scenes import scan, wave


class Volume:
    """As much of a vtkMRMLScalarVolumeNode as the module uses."""

    def __init__(self, image: Image, name: str) -> None:
        self.image, self.name, self.transform_id, self.parent = image, name, "", None

    def GetName(self) -> str:  # noqa: N802
        return self.name

    def GetParentTransformNode(self) -> Any:  # noqa: N802
        return self.parent

    def GetIJKToRASMatrix(self, matrix: Any) -> None:  # noqa: N802
        matrix.values = self.image.grid.affine.copy()

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


@pytest.fixture
def slicer_module(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The scripted module, loaded where `slicer`, `qt` and `vtk` are stand-ins."""
    bases = {
        name: type(name, (), {"__init__": lambda self, parent=None: None}) for name in ("", "Logic", "Test", "Widget")
    }
    scripted = ModuleType("slicer.ScriptedLoadableModule")
    for name, base in bases.items():
        setattr(scripted, f"ScriptedLoadableModule{name}", base)
    slicer = ModuleType("slicer")
    slicer.util = SimpleNamespace(  # type: ignore[attr-defined]
        arrayFromVolume=lambda node: node.image.array.transpose(2, 1, 0),
        arrayFromVTKMatrix=lambda matrix: matrix.values,
        loadTransform=TransformNode,
        showStatusMessage=lambda text: None,
        tryWithErrorDisplay=lambda *_, **__: nullcontext(),
    )
    vtk = ModuleType("vtk")
    vtk.vtkMatrix4x4 = lambda: SimpleNamespace(values=None)  # type: ignore[attr-defined]
    stand_ins = {"slicer": slicer, "slicer.ScriptedLoadableModule": scripted, "vtk": vtk, "qt": ModuleType("qt")}
    for name, module in stand_ins.items():
        monkeypatch.setitem(sys.modules, name, module)
    path = Path(__file__).parents[2] / "integrations" / "slicer" / "CoreReg" / "CoreReg.py"
    spec = importlib.util.spec_from_file_location("CoreReg", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_slicer_module_puts_the_moving_volume_under_the_transform(slicer_module: ModuleType) -> None:
    logic = slicer_module.CoreRegLogic()
    fixed, moving = Volume(scan(FIXED), "day 1"), Volume(scan(MOVING, wave), "day 2")
    node = logic.register(fixed, moving, **QUICK)
    assert moving.transform_id == node.GetID()
    assert node.name == "day 2 to day 1"
    points, lps = np.random.default_rng(0).uniform(-25, 25, (50, 3)), LPS_RAS[:3, :3]
    moved = np.array([node.itk.TransformPoint((lps @ p).tolist()) for p in points]) @ lps
    assert_allclose(moved, registered().apply_points(points), atol=1e-2)


def test_slicer_module_names_missing_inputs(slicer_module: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    logic = slicer_module.CoreRegLogic()
    with pytest.raises(ValueError, match="choose a fixed volume"):
        logic.image(None, "fixed")
    node = Volume(scan(FIXED), "day 1")
    node.parent = object()
    with pytest.raises(ValueError, match="harden it"):
        logic.image(node, "fixed")
    monkeypatch.setitem(sys.modules, "corereg", None)
    with pytest.raises(RuntimeError, match="pip_install"):
        logic.corereg()


def test_slicer_module_shows_itself(slicer_module: ModuleType) -> None:
    parent = SimpleNamespace()
    slicer_module.CoreReg(parent)
    assert parent.title == "corereg"
    assert parent.categories == ["Registration"]
