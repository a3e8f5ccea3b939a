"""Bare arrays and tensors: voxels without a place, which an affine gives them."""

import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

from corereg.errors import InputError
from corereg.io.images.memory import is_metatensor
from corereg.io.images.stored import StoredVolume

__all__ = ["array_volume", "as_array", "is_array", "like_array"]

AFFINE_SHAPE = (4, 4)

BFLOAT16 = "torch.bfloat16"
"""What numpy has no type for."""


def is_array(image: object) -> bool:
    """Whether it is an array or a tensor without an affine of its own."""
    return (isinstance(image, np.ndarray) or _is_tensor(image)) and not is_metatensor(image)


def _is_tensor(image: object) -> bool:
    """Whether it is torch's. Torch is not imported to find out: whoever holds a tensor has imported it."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(image, torch.Tensor)


def as_array(image: Any) -> NDArray[Any]:
    """The voxels (I, J, K) of an array or tensor that may have leading axes of size 1, for batch and channel.

    Raises:
        InputError: voxels are masked: an image has a value everywhere.
    """
    if _is_tensor(image):
        image = image.detach().cpu()
        array = np.asarray((image.float() if str(image.dtype) == BFLOAT16 else image).numpy())
    elif isinstance(image, np.ma.MaskedArray) and image.mask.any():
        raise InputError(
            f"got an array of which {int(image.mask.sum())} voxels are masked, expected a value in each; give "
            "image.filled(...), and ~image.mask as fixed_mask or moving_mask if the rest alone is to count"
        )
    else:
        array = np.asarray(image)
    while array.ndim > 3 and len(array) == 1:
        array = array[0]
    return array.astype(np.float32) if array.dtype == np.float16 else array


def array_volume(image: Any, affine: object, name: str) -> StoredVolume:
    """A volume of an array or tensor.

    Args:
        affine: (4, 4), voxel to RAS+ millimetres; None is refused, because a spacing is never guessed.

    Raises:
        InputError: there is no affine, or it is not a (4, 4) matrix of numbers.
    """
    if affine is None:
        raise InputError(
            f"got {name} as an array of shape {tuple(image.shape)}, expected its voxel-to-RAS matrix (4 x 4) as well; "
            "give fixed_affine=, moving_affine= or affine=, or an Image"
        )
    try:
        matrix = as_array(affine).astype(np.float64)
    except (TypeError, ValueError):
        matrix = np.empty(0)
    if matrix.shape != AFFINE_SHAPE:
        raise InputError(
            f"got an affine of shape {matrix.shape} for {name}, expected (4, 4): voxel indices to RAS+ millimetres"
        )
    array = as_array(image)
    return StoredVolume(array.astype(np.uint8) if array.dtype == bool else array, matrix)


def like_array(array: NDArray[Any], like: Any) -> Any:
    """The voxels as an array, or as a tensor on the device of `like` and with its leading axes."""
    if not _is_tensor(like):
        return array
    found = sys.modules["torch"].as_tensor(np.ascontiguousarray(array)).to(like.device)
    return found.reshape(*[1] * (like.ndim - found.ndim), *found.shape)
