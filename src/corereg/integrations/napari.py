"""napari: register two image layers and add the warped one (the extra `napari`; `napari.yaml` declares the widget).

A layer's scale, translation, rotation and shear place it in napari's world, whose axes have no anatomical names. The
method needs none: the world is taken as RAS+ millimetres, and both layers must be placed in it.
"""

from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np

from corereg.errors import InputError
from corereg.geometry.grid import Grid
from corereg.io.images.image import Image
from corereg.method.register import register
from corereg.preprocessing.modality import Modality

if TYPE_CHECKING:
    import napari.layers
    import napari.qt.threading
    import napari.types

__all__ = ["image_of_layer", "register_layers", "registered_layers"]


def register_layers(
    fixed: "napari.layers.Image",
    moving: "napari.layers.Image",
    moving_labels: "napari.layers.Labels | None" = None,
    modality: Modality = "auto",
) -> "napari.qt.threading.FunctionWorker[list[napari.types.LayerDataTuple]]":
    """Register MOVING onto FIXED in a thread, so that the viewer stays usable, and add the warped layers.

    Raises:
        InputError: a layer is not a volume.
    """
    images = [image_of_layer(layer) for layer in (fixed, moving)]
    labels = None if moving_labels is None else image_of_layer(moving_labels)
    names = [layer.name for layer in (fixed, moving, moving_labels) if layer is not None]
    threading = import_module("napari.qt.threading")
    return threading.create_worker(
        registered_layers, *images, labels, names, modality, _start_thread=True, _progress={"desc": "Registering"}
    )


def registered_layers(
    fixed: Image, moving: Image, labels: Image | None, names: Sequence[str], modality: Modality
) -> "list[napari.types.LayerDataTuple]":
    """The warped layers, called after those of `names`: fixed, moving and, if there are any, labels.

    Raises:
        InputError: the images cannot be registered.
    """
    transform = register(fixed, moving, modality=modality).transform
    warped = transform.apply(moving)
    placement = {"affine": warped.grid.affine}
    layers = [(warped.array, {"name": f"{names[1]} on {names[0]}", **placement}, "image")]
    if labels is not None:
        array = transform.apply(labels, labels=True).array
        layers.append((array, {"name": f"{names[2]} on {names[0]}", **placement}, "labels"))
    return layers


def image_of_layer(layer: Any) -> Image:
    """A layer's volume on its grid in napari's world.

    Raises:
        InputError: the layer does not have three axes.
    """
    array = np.asarray(layer.data)
    if array.ndim != 3:
        raise InputError(f"got the layer {layer.name} of shape {array.shape}, expected a volume; pick one channel")
    affine = np.eye(4)
    affine[:3, 3] = layer.data_to_world((0, 0, 0))
    for axis in range(3):
        affine[:3, axis] = np.array(layer.data_to_world(np.eye(3)[axis])) - affine[:3, 3]
    i, j, k = array.shape
    return Image(array, Grid((i, j, k), affine), name=f"the layer {layer.name}")
