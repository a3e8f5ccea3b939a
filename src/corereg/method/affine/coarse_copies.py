"""From scans to the working grid: coarse copies that are pre-aligned, and what part of the grid a scan covers."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from corereg.geometry.grid import Grid
from corereg.io.images.image import Image
from corereg.method.affine.align import Alignment, align
from corereg.preprocessing.intensity import normalise
from corereg.preprocessing.working_grid import resample_mask, shrink

__all__ = ["CoarseCopy", "align_copies", "coarse_copy"]

AFFINE_SPACING_MM = 3.0
"""Of the coarse copies that are pre-aligned."""

CPU = torch.device("cpu")


@dataclass(frozen=True, slots=True)
class CoarseCopy:
    """An image with voxels of about 3 mm (its own where they are larger), scaled."""

    array: NDArray[np.float32]
    grid: Grid
    mask: NDArray[np.bool_] | None
    """Voxels that count; None: all."""


def coarse_copy(image: Image, modality: str, mask: NDArray[np.bool_] | None = None) -> CoarseCopy:
    """What the pre-alignment needs of an image.

    Raises:
        InputError: an image without contrast.
    """
    volume, grid = shrink(image.array, image.grid, AFFINE_SPACING_MM, device=CPU)
    # Fat, muscle and organs tell where a field of view lies within another; all of air to bone does not.
    window = "ct-abdomen" if modality.startswith("ct") else modality
    coarse = None if mask is None else resample_mask(mask, image.grid, grid, device=CPU)[0, 0].numpy() > 0
    return CoarseCopy(normalise(volume, window)[0, 0].numpy(), grid, coarse)


def align_copies(fixed: CoarseCopy, moving: CoarseCopy, *, seed: int) -> Alignment:
    """The affine map from the world of the fixed image to that of the moving one."""
    return align(
        fixed.array,
        fixed.grid,
        moving.array,
        moving.grid,
        fixed_mask=fixed.mask,
        moving_mask=moving.mask,
        seed=seed,
    )
