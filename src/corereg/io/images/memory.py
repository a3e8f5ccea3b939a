"""Images that other libraries hold in memory: SimpleITK, nibabel, and MONAI's tensors with an affine."""

import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

from corereg.errors import InputError
from corereg.io.images.checks import scalar_volume_shape
from corereg.io.images.itk import LPS_RAS, volume_of_sitk
from corereg.io.images.nifti_reader import volume_of_nibabel
from corereg.io.images.stored import StoredVolume
from corereg.lazy import nibabel, simpleitk

__all__ = ["affine_of_metatensor", "is_metatensor", "volume_in_memory"]

CHANNEL_AND_VOXELS = 4
"""Axes of a tensor (C, I, J, K), as MONAI has them."""


def volume_in_memory(image: Any) -> tuple[StoredVolume, str]:
    """Read one scalar volume from another library's object; the text is its name for messages.

    Raises:
        InputError: no image of these libraries, or not one scalar volume.
    """
    if is_metatensor(image):  # first, because neither SimpleITK nor nibabel need be installed then
        name = "the MetaTensor"
        array = image.detach().cpu().numpy()
        array = array[0] if array.ndim == CHANNEL_AND_VOXELS and len(array) == 1 else array
        shape = scalar_volume_shape(array.shape, array.dtype, name)
        return StoredVolume(array.reshape(shape), affine_of_metatensor(image)), name
    sitk, nib = simpleitk(), nibabel()
    if isinstance(image, sitk.Image):
        name = "the SimpleITK image"
        return volume_of_sitk(image, name), name
    if isinstance(image, nib.spatialimages.SpatialImage):
        name = image.get_filename() or "the nibabel image"
        return volume_of_nibabel(image, name), name
    raise InputError(
        f"got {type(image).__module__}.{type(image).__name__}, expected a path, an Image, a SimpleITK or nibabel image "
        "or a MetaTensor, or an array or tensor with its affine"
    )


def is_metatensor(image: Any) -> bool:
    """Whether it is one of MONAI's. MONAI is not imported to find out: whoever holds a MetaTensor has imported it."""
    monai = sys.modules.get("monai.data.meta_tensor")
    return monai is not None and isinstance(image, monai.MetaTensor)


def affine_of_metatensor(image: Any) -> NDArray[np.float64]:
    """(4, 4), voxel to RAS+ millimetres, of a tensor whose own affine may count in LPS."""
    affine = np.asarray(image.affine.cpu().numpy(), dtype=np.float64)
    return LPS_RAS @ affine if str(image.meta.get("space", "RAS")).upper().endswith("LPS") else affine
