"""The napari plug-in, against stand-ins for its layers."""

import importlib.util
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import current_thread
from types import ModuleType, SimpleNamespace
from typing import Any, Generic, TypeVar

import numpy as np
import pytest
from numpy.testing import assert_allclose

from corereg.io.images.image import Image
from corereg.method.register import register
from helpers.programs import FIXED, MOVING, QUICK, registered
from helpers.refusals import refusal
from helpers.scenes import scan, wave
from helpers.transforms import label_map

Result = TypeVar("Result")


class Layer:
    """As napari has it: an array, and where its indices are in the world."""

    def __init__(self, image: Image, name: str) -> None:
        self.data, self.name, self.grid = image.array, name, image.grid

    def data_to_world(self, position: Any) -> tuple[float, ...]:
        return tuple(self.grid.to_world(np.asarray(position, dtype=float)))


class LabelsLayer(Layer):
    """A layer of labels."""


class Worker(Generic[Result]):
    """As napari's: runs a function in a thread of its own."""

    def __init__(
        self, function: Callable[..., Result], *arguments: Any, _start_thread: bool, _progress: dict[str, str]
    ) -> None:
        assert _start_thread
        assert _progress["desc"]
        self.future = ThreadPoolExecutor(1).submit(function, *arguments)


@pytest.fixture
def napari(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The widget's module, with a stand-in for napari, whose types its annotations name."""
    layers = ModuleType("napari.layers")
    layers.Image, layers.Labels = Layer, LabelsLayer  # type: ignore[attr-defined]
    types = ModuleType("napari.types")
    types.LayerDataTuple = tuple  # type: ignore[attr-defined]
    qt, threading = ModuleType("napari.qt"), ModuleType("napari.qt.threading")
    threading.FunctionWorker, threading.create_worker = Worker, Worker  # type: ignore[attr-defined]
    qt.threading = threading  # type: ignore[attr-defined]
    package = ModuleType("napari")
    package.qt = qt  # type: ignore[attr-defined]
    package.layers, package.types = layers, types  # type: ignore[attr-defined]
    for module in (package, layers, types, qt, threading):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return importlib.import_module("corereg.integrations.napari")


def test_napari_widget_registers_in_a_thread_and_gives_the_warped_layers(
    napari: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = []

    def quick(fixed: Image, moving: Image, modality: str) -> Any:
        threads.append(current_thread())
        return register(fixed, moving, modality=modality, **QUICK)

    monkeypatch.setattr(napari, "register", quick)
    labels = LabelsLayer(label_map(MOVING, np.uint8), "organs")
    worker = napari.register_layers(Layer(scan(FIXED), "day 1"), Layer(scan(MOVING, wave), "day 2"), labels)
    (warped, place, kind), (organs, organs_place, label_kind) = worker.future.result()
    assert threads[0] is not current_thread()
    assert (kind, label_kind, place["name"]) == ("image", "labels", "day 2 on day 1")
    assert organs_place["name"] == "organs on day 1"
    assert_allclose(place["affine"], FIXED.affine)
    assert_allclose(warped, registered().apply(scan(MOVING, wave)).array, atol=1e-2)
    assert organs.dtype == np.uint8
    flat = SimpleNamespace(data=np.zeros((4, 5)), name="flat")
    assert "expected a volume" in refusal(napari.image_of_layer, flat)


def test_napari_manifest_names_existing_functions(napari: ModuleType) -> None:
    import yaml

    text = (Path(napari.__file__).parent / "napari.yaml").read_text("utf-8")
    manifest = yaml.safe_load(text)
    (command,) = manifest["contributions"]["commands"]
    module, function = command["python_name"].split(":")
    assert callable(getattr(importlib.import_module(module), function))
    assert manifest["contributions"]["widgets"][0]["command"] == command["id"]
