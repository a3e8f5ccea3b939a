"""Both images of a pair on the working grid: resampled, limited to what both show, and scaled."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from corereg.errors import InputError
from corereg.geometry.grid import Grid, Matrix
from corereg.io.images.image import Image
from corereg.preprocessing.common_view import hold_beyond_common_view
from corereg.preprocessing.detection import Intensities
from corereg.preprocessing.intensity import normalise
from corereg.preprocessing.working_grid import resample_image, resample_mask

__all__ = ["Mask", "PreparedPair", "Scan", "prepare_pair"]

Mask = NDArray[np.bool_]


class Scan(NamedTuple):
    """An image with what is known about it."""

    image: Image
    intensities: Intensities
    mask: Mask | None = None
    """Voxels that count; None counts all."""


class PreparedPair(NamedTuple):
    """A pair as the stages take it: (1, 1, I, J, K) on the working grid."""

    fixed: Tensor
    moving: Tensor
    fixed_weight: Tensor | None
    """1 where both images have data and the fixed one's counts; None if that is everywhere."""
    moving_weight: Tensor | None
    """The same for the moving image."""


def prepare_pair(scans: Sequence[Scan], working: Grid, *, affine: Matrix | None, device: torch.device) -> PreparedPair:
    """Bring the fixed and the moving image to the working grid.

    Args:
        affine: (4, 4) from the fixed image's world to the moving image's; None is the identity.

    Raises:
        InputError: an image without contrast, or fields of view (or masks) without anything in common.
    """
    views = [(scan.image.grid, matrix) for scan, matrix in zip(scans, (None, affine), strict=True)]
    resampled = [
        resample_image(scan.image.array, grid, working, affine=matrix, device=device)
        for scan, (grid, matrix) in zip(scans, views, strict=True)
    ]
    volumes, common = [volume for volume, _ in resampled], torch.minimum(resampled[0][1], resampled[1][1])
    if not bool(common.all()):
        volumes = hold_beyond_common_view(volumes, working, views)
    weights = [
        common if scan.mask is None else common * resample_mask(scan.mask, grid, working, affine=matrix, device=device)
        for scan, (grid, matrix) in zip(scans, views, strict=True)
    ]
    if not bool(torch.minimum(*weights).any()):
        raise InputError(
            f"got {scans[0].image.name} and {scans[1].image.name}, whose fields of view (or masks) have nothing in "
            "common after the pre-alignment, expected an overlap; check the headers and the masks"
        )
    scaled = [
        normalise(volume, scan.intensities.modality, scan.intensities.offset_hu)
        for volume, scan in zip(volumes, scans, strict=True)
    ]
    return PreparedPair(*scaled, *(None if bool(weight.all()) else weight for weight in weights))
