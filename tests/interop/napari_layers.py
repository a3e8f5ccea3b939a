"""The napari plug-in in napari itself, without a window. Run by `make test-interop`."""

import warnings
from typing import Any, get_type_hints

import numpy as np
import pytest
from numpy.testing import assert_allclose

import corereg.integrations.napari as plugin
from corereg.method.register import register
from helpers.programs import FIXED, MOVING, QUICK, registered
from helpers.scenes import scan, wave

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # theirs
    import napari.layers
    import napari.types
    from napari.qt.threading import FunctionWorker
    from npe2 import PluginManifest


def test_installed_manifest_is_valid() -> None:
    manifest = PluginManifest.from_distribution("corereg")
    (widget,) = manifest.contributions.widgets
    assert widget.command == "corereg.register_layers"
    assert widget.autogenerate


def test_arguments_of_the_widget_are_types_that_napari_makes_choices_of() -> None:
    hints = get_type_hints(plugin.register_layers, {"napari": napari})
    assert hints["fixed"] is hints["moving"] is napari.layers.Image
    assert hints["moving_labels"] == napari.layers.Labels | None
    assert hints["return"] == FunctionWorker[list[napari.types.LayerDataTuple]]


@pytest.mark.filterwarnings("ignore:Non-orthogonal slicing")  # of oblique layers, in what is shown
def test_layers_are_placed_where_napari_places_them(monkeypatch: pytest.MonkeyPatch) -> None:
    def quick(fixed: Any, moving: Any, modality: str) -> Any:
        return register(fixed, moving, modality=modality, **QUICK)

    monkeypatch.setattr(plugin, "register", quick)
    fixed, moving = (
        napari.layers.Image(image.array, name=name, affine=image.grid.affine)
        for image, name in ((scan(FIXED), "day 1"), (scan(MOVING, wave), "day 2"))
    )
    assert plugin.image_of_layer(fixed).grid.close_to(FIXED)
    scaled = napari.layers.Image(np.zeros((4, 5, 6)), scale=(1, 2, 3), translate=(7, 8, 9))
    assert_allclose(plugin.image_of_layer(scaled).grid.affine[:3, 3], (7, 8, 9))
    assert plugin.image_of_layer(scaled).grid.spacing == (1, 2, 3)
    images = [plugin.image_of_layer(layer) for layer in (fixed, moving)]
    ((warped, place, _),) = plugin.registered_layers(*images, None, ["day 1", "day 2"], "auto")
    assert_allclose(warped, registered().apply(scan(MOVING, wave)).array, atol=1e-2)
    shown = napari.layers.Image(warped, **place)
    assert_allclose(shown.data_to_world((3, 4, 5)), FIXED.to_world((3, 4, 5)), atol=1e-4)
