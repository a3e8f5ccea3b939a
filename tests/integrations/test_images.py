"""corereg in other programs: MONAI, 3D Slicer, napari, and objects of SimpleITK, nibabel and torch."""

import importlib.util
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import nibabel
import numpy as np
import pytest
import SimpleITK
import torch
from numpy.testing import assert_allclose, assert_array_equal

from corereg.geometry.grid import Grid
from corereg.integrations.images import (
    from_tensor,
    to_metatensor,
    to_nibabel,
    to_simpleitk,
    to_tensor,
    transform_from_sitk,
    transform_to_sitk,
    warp,
)
from corereg.io.images.image import Image, as_image
from corereg.io.images.itk import LPS_RAS, from_sitk
from corereg.io.transforms.transform import Transform
from corereg.method.register import register
from helpers.programs import FIXED, MOVING, QUICK, registered
from helpers.refusals import refusal
from helpers.scenes import scan, wave
from helpers.transforms import label_map, wavy

needs_monai = pytest.mark.skipif(importlib.util.find_spec("monai") is None, reason="MONAI is an extra")
in_each_library = pytest.mark.parametrize(
    "make", [to_simpleitk, to_nibabel, pytest.param(to_metatensor, marks=needs_monai)], ids=["sitk", "nibabel", "monai"]
)


@in_each_library
def test_objects_of_other_libraries_hold_the_same_image(make: Callable[[Image], Any]) -> None:
    again = as_image(make(scan(FIXED)))
    assert_array_equal(again.array, scan(FIXED).array)
    assert again.grid.close_to(FIXED)


@in_each_library
def test_warped_image_is_of_the_type_that_was_given(make: Callable[[Image], Any]) -> None:
    given = make(scan(MOVING))
    warped = warp(wavy(FIXED), given)
    assert type(warped) is type(given)
    assert_allclose(as_image(warped).array, wavy(FIXED).apply(scan(MOVING)).array, atol=1e-2)
    assert as_image(warped).grid.close_to(FIXED)
    labels = warp(wavy(FIXED), make(label_map(MOVING, np.uint8)), labels=True)
    assert_array_equal(
        as_image(labels, labels=True).array, wavy(FIXED).apply(label_map(MOVING, np.uint8), labels=True).array
    )


def test_tensor_needs_its_affine() -> None:
    tensor = to_tensor(scan(FIXED))
    assert tensor.shape == (1, *FIXED.shape)
    again = from_tensor(tensor, FIXED.affine)
    assert again.grid == FIXED
    assert_array_equal(again.array, scan(FIXED).array)
    assert "wrap an array with its grid" in refusal(as_image, tensor)
    assert "one channel" in refusal(from_tensor, tensor.repeat(2, 1, 1, 1), FIXED.affine)


@needs_monai
def test_metatensor_in_lps_is_the_same_image() -> None:
    from monai.data.meta_tensor import MetaTensor

    affine = torch.as_tensor(LPS_RAS @ FIXED.affine)
    tensor = MetaTensor(to_tensor(scan(FIXED)), affine=affine, meta={"space": "LPS"})
    assert as_image(tensor).grid.close_to(FIXED)


@needs_monai
def test_channels_of_a_metatensor_are_warped_each() -> None:
    from monai.data.meta_tensor import MetaTensor

    both = torch.cat([to_tensor(scan(MOVING)), -to_tensor(scan(MOVING))])
    warped = warp(wavy(FIXED), MetaTensor(both, affine=torch.as_tensor(MOVING.affine.copy())), outside=0.0)
    assert warped.shape == (2, *FIXED.shape)
    assert_allclose(warped[0].numpy(), -warped[1].numpy(), atol=1e-3)


def test_transform_goes_to_simpleitk_and_back() -> None:
    theirs = transform_to_sitk(wavy(FIXED))
    points, lps = np.random.default_rng(0).uniform(-40, 40, (200, 3)), LPS_RAS[:3, :3]
    moved = np.array([theirs.TransformPoint((lps @ p).tolist()) for p in points]) @ lps
    assert_allclose(wavy(FIXED).apply_points(points), moved, atol=1e-3)
    assert_allclose(transform_from_sitk(theirs, fixed=FIXED).apply_points(points), moved, atol=1e-3)
    assert "2 dimensions" in refusal(transform_from_sitk, SimpleITK.Euler2DTransform())


@needs_monai
def test_monai_pipeline_registers_and_warps() -> None:
    from corereg.integrations.monai import CoreRegisterd

    data = {
        "fixed": to_metatensor(scan(FIXED)),
        "moving": to_metatensor(scan(MOVING, wave)),
        "organs": to_metatensor(label_map(MOVING, np.uint8)),
        "name": "patient 1",
    }
    step = CoreRegisterd(["moving", "organs"], label_keys=["organs"], **QUICK)
    found = step(data)
    assert found["name"] == "patient 1"
    assert_allclose(found["moving"].affine.numpy(), FIXED.affine)
    assert_allclose(found["moving"][0].numpy(), registered().apply(scan(MOVING, wave)).array, atol=1e-2)
    assert set(np.unique(found["organs"].numpy())) <= {0, 3, 17, 90}
    assert found["organs"].shape == (1, *FIXED.shape)
    assert_array_equal(data["organs"][0].numpy(), label_map(MOVING, np.uint8).array)
    assert isinstance(found["transform"], Transform)
    with pytest.raises(KeyError, match="lungs"):
        CoreRegisterd(["lungs"], **QUICK)(data)


class Layer:
    """As napari has it: an array, and where its indices are in the world."""

    def __init__(self, image: Image, name: str) -> None:
        self.data, self.name, self.grid = image.array, name, image.grid

    def data_to_world(self, position: Any) -> tuple[float, ...]:
        return tuple(self.grid.to_world(np.asarray(position, dtype=float)))


class LabelsLayer(Layer):
    """Of labels."""


@pytest.fixture
def napari(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The widget's module, with a stand-in for napari, whose types its annotations name."""
    layers = ModuleType("napari.layers")
    layers.Image, layers.Labels = Layer, LabelsLayer  # type: ignore[attr-defined]
    types = ModuleType("napari.types")
    types.LayerDataTuple = tuple  # type: ignore[attr-defined]
    package = ModuleType("napari")
    package.layers, package.types = layers, types  # type: ignore[attr-defined]
    for module in (package, layers, types):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return importlib.import_module("corereg.integrations.napari")


def test_napari_widget_gives_the_warped_layers(napari: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    quick = lambda fixed, moving, modality: register(fixed, moving, modality=modality, **QUICK)  # noqa: E731
    monkeypatch.setattr(napari, "register", quick)
    labels = LabelsLayer(label_map(MOVING, np.uint8), "organs")
    layers = napari.register_layers(Layer(scan(FIXED), "day 1"), Layer(scan(MOVING, wave), "day 2"), labels)
    (warped, place, kind), (organs, _, label_kind) = layers
    assert (kind, label_kind, place["name"]) == ("image", "labels", "day 2 on day 1")
    assert_allclose(place["affine"], FIXED.affine)
    assert_allclose(warped, registered().apply(scan(MOVING, wave)).array, atol=1e-2)
    assert organs.dtype == np.uint8
    flat = SimpleNamespace(data=np.zeros((4, 5)), name="flat")
    assert "expected a volume" in refusal(napari.image_of_layer, flat)


def test_napari_manifest_names_what_is_there(napari: ModuleType) -> None:
    import yaml

    text = (Path(napari.__file__).parent / "napari.yaml").read_text()
    manifest = yaml.safe_load(text)
    (command,) = manifest["contributions"]["commands"]
    module, function = command["python_name"].split(":")
    assert callable(getattr(importlib.import_module(module), function))
    assert manifest["contributions"]["widgets"][0]["command"] == command["id"]


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


def test_slicer_module_says_what_is_missing(slicer_module: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_simpleitk_image_is_read_back_with_its_grid() -> None:
    array, grid = from_sitk(warp(wavy(FIXED), to_simpleitk(scan(MOVING))))
    assert array.shape == FIXED.shape
    assert grid.close_to(Grid(FIXED.shape, FIXED.affine))


def test_nibabel_image_keeps_the_header_of_the_fixed_image(tmp_path: Path) -> None:
    nibabel.Nifti1Image(scan(FIXED).array, FIXED.affine).to_filename(tmp_path / "fixed.nii")
    fixed = as_image(tmp_path / "fixed.nii")
    warped = warp(wavy(fixed), to_nibabel(scan(MOVING)))
    assert_allclose(warped.header.get_sform(), fixed.header.get_sform(), atol=0)
