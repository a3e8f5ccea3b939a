"""Images and transforms as objects of other libraries, and back: the type that goes in is the type that comes out."""

from typing import Any

import numpy as np
import torch
from jaxtyping import Shaped
from torch import Tensor

from corereg.errors import InputError
from corereg.geometry.grid import Grid, Matrix
from corereg.io.images.image import Image, as_image
from corereg.io.images.itk import to_sitk
from corereg.io.images.memory import is_metatensor
from corereg.io.transforms.formats.sitk_parts import stored_from_sitk, stored_to_sitk
from corereg.io.transforms.formats.stored import Located
from corereg.io.transforms.transform import Transform
from corereg.lazy import nibabel, simpleitk

__all__ = [
    "from_tensor",
    "in_the_likeness",
    "to_metatensor",
    "to_nibabel",
    "to_simpleitk",
    "to_tensor",
    "transform_from_sitk",
    "transform_to_sitk",
    "warp",
]


def warp(transform: Transform, image: Any, **options: Any) -> Any:
    """`Transform.apply` for an Image, a SimpleITK or nibabel image or a MetaTensor (C, I, J, K); returns the same type.

    Args:
        **options: options of `Transform.apply`.

    Raises:
        InputError: the image cannot be used.
    """
    if not is_metatensor(image):
        return in_the_likeness(transform.apply(image, **options), image)
    channels = [transform.apply(channel, **options) for channel in _channels(image)]
    stacked = torch.stack([to_tensor(channel)[0] for channel in channels])
    return _metatensor(stacked, channels[0].grid.affine)


def transform_to_sitk(transform: Transform) -> Any:
    """All parts of a transform as a SimpleITK.CompositeTransform."""
    return stored_to_sitk(transform.stored())


def transform_from_sitk(transform: Any, *, fixed: Located | None = None, moving: Located | None = None) -> Transform:
    """Make a transform of any 3-D SimpleITK transform. A part that is neither linear nor a field is sampled.

    Args:
        fixed: image or grid that it resamples onto; by default, the grid of the first displacement that a point passes.
        moving: the same for the inverse.

    Raises:
        InputError: it is not 3-D, singular, or not finite, or `fixed` is missing though it is needed.
    """
    return Transform.from_stored(stored_from_sitk(transform, fixed=fixed, moving=moving))


def in_the_likeness(image: Image, like: Any) -> Any:
    """The image as an object of the library that `like` comes from; unchanged if `like` is a path or an Image."""
    if is_metatensor(like):
        return to_metatensor(image)
    if isinstance(like, nibabel().spatialimages.SpatialImage):
        return to_nibabel(image)
    return to_simpleitk(image) if isinstance(like, simpleitk().Image) else image


def to_simpleitk(image: Image) -> Any:
    """Convert to a SimpleITK.Image."""
    return to_sitk(image.array, image.grid)


def to_nibabel(image: Image) -> Any:
    """Convert to a nibabel.Nifti1Image, with the image's own header if it has one."""
    stored = np.asarray(image.array, dtype=np.uint8) if image.array.dtype == bool else image.array
    made = nibabel().Nifti1Image(stored, image.grid.affine, image.header)
    made.set_data_dtype(stored.dtype)
    return made


def to_tensor(image: Image) -> Shaped[Tensor, "1 I J K"]:
    """The voxels alone, with a channel axis; `from_tensor` needs the affine to get back."""
    return torch.as_tensor(np.ascontiguousarray(image.array))[None]


def from_tensor(tensor: Shaped[Tensor, "*channel I J K"], affine: Matrix) -> Image:
    """An Image from voxels (I, J, K) or (1, I, J, K) and their voxel-to-RAS affine (4, 4).

    Raises:
        InputError: several channels, or a singular affine.
    """
    if tensor.ndim > 3 and tensor.shape[:-3].numel() != 1:
        raise InputError(f"got a tensor of shape {tuple(tensor.shape)}, expected a single channel; pick one")
    i, j, k = tensor.shape[-3:]
    return as_image(Image(tensor.detach().cpu().numpy().reshape(i, j, k), Grid((i, j, k), affine), name="the tensor"))


def to_metatensor(image: Image) -> Any:
    """Convert to a monai.data.MetaTensor (1, I, J, K)."""
    return _metatensor(to_tensor(image), image.grid.affine)


def _metatensor(values: Tensor, affine: Matrix) -> Any:
    from monai.data.meta_tensor import MetaTensor

    return MetaTensor(values, affine=torch.as_tensor(np.array(affine)), meta={"space": "RAS"})


def _channels(image: Any) -> list[Any]:
    """The channels of a MetaTensor (C, I, J, K), each with its affine."""
    if image.ndim != 4:
        raise InputError(f"got a MetaTensor of shape {tuple(image.shape)}, expected (C, I, J, K); add a channel first")
    return [image[channel : channel + 1] for channel in range(len(image))]
