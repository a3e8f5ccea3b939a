"""napari: register two image layers and add the warped one (the extra `napari`; `napari.yaml` declares the widget).

A layer's scale, translation, rotation and shear place it in napari's world, whose axes have no anatomical names. The
method needs none: the world is taken as RAS+ millimetres, and both layers must be placed in it.
"""

from typing import TYPE_CHECKING, Any

import numpy as np

from corereg.errors import InputError
from corereg.geometry.grid import Grid
from corereg.io.images.image import Image
from corereg.method.register import register
from corereg.preprocessing.modality import Modality

if TYPE_CHECKING:
    import napari.layers
    import napari.types

__all__ = ["image_of_layer", "register_layers"]


def register_layers(
    fixed: "napari.layers.Image",
    moving: "napari.layers.Image",
    moving_labels: "napari.layers.Labels | None" = None,
    modality: Modality = "auto",
) -> "list[napari.types.LayerDataTuple]":
    """Register MOVING onto FIXED and add the warped layers.

    Raises:
        InputError: a layer is not a volume, or cannot be registered.
    """
    transform = register(image_of_layer(fixed), image_of_layer(moving), modality=modality).transform
    warped = transform.apply(image_of_layer(moving))
    placement = {"affine": warped.grid.affine}
    layers = [(warped.array, {"name": f"{moving.name} on {fixed.name}", **placement}, "image")]
    if moving_labels is not None:
        labels = transform.apply(image_of_layer(moving_labels), labels=True)
        layers.append((labels.array, {"name": f"{moving_labels.name} on {fixed.name}", **placement}, "labels"))
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
