"""Coarse copies of the scans, on which the affine pre-alignment works. Downstream: align."""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from corereg.geometry.grid import Grid
from corereg.io.images.image import Image
from corereg.preprocessing.detection import Intensities
from corereg.preprocessing.intensity import normalise
from corereg.preprocessing.working_grid import resample_mask, shrink

__all__ = ["CoarseCopy", "coarse_copy"]

AFFINE_SPACING_MM = 3.0
"""Voxel size of the coarse copies; a scan with larger voxels keeps its own."""

CPU = torch.device("cpu")


class CoarseCopy(NamedTuple):
    """A scan reduced to what the pre-alignment needs."""

    array: NDArray[np.float32]
    """(I, J, K), scaled intensities."""
    grid: Grid
    mask: NDArray[np.bool_] | None = None
    """Voxels that count; None counts all."""


def coarse_copy(image: Image, intensities: Intensities, mask: NDArray[np.bool_] | None = None) -> CoarseCopy:
    """Reduce an image to voxels of about 3 mm and scale its intensities.

    Raises:
        InputError: an image without contrast.
    """
    volume, grid = shrink(image.array, image.grid, AFFINE_SPACING_MM, device=CPU)
    # Fat, muscle and organs show where one field of view lies within another; the full range from air to bone does not.
    window = "ct-abdomen" if intensities.modality.startswith("ct") else intensities.modality
    coarse = None if mask is None else resample_mask(mask, image.grid, grid, device=CPU)[0, 0].numpy() > 0
    return CoarseCopy(normalise(volume, window, intensities.offset_hu)[0, 0].numpy(), grid, coarse)
