"""A label map painted as a scan in a contrast that no scanner has: a network trained on such scans reads any contrast.

Source: Billot et al., "SynthSeg", Medical Image Analysis 2023, without its deformations.

Legend: X Y Z axes of a view.
"""

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from corereg.geometry.strided import box_mean, strided_shape, upsample
from corereg.method.features.mind import SOFT_TISSUE
from corereg.training.objective.views import bezier_map

__all__ = ["painted"]

TEXTURE = 0.1
"""Largest standard deviation of the texture within a structure, in scaled intensities."""

MOST_BLUR = 2
"""Largest number of 3x3x3 means, which mix structures at their borders as large voxels do."""

BIAS, BIAS_STRIDE = 0.3, 24
"""Largest deviation of the bias field from 1, and the voxels between its random values."""


def painted(
    image: Float[Tensor, "1 1 X Y Z"], classes: Shaped[Tensor, "X Y Z"], *, generator: torch.Generator
) -> Float[Tensor, "1 1 X Y Z"]:
    """The view with a random grey value and texture for each structure, blurred and shaded.

    What lies in no structure keeps the image's pattern, through a random map of intensities.

    Args:
        classes: of each voxel; 0 and below lie in no structure.
        generator: on the CPU, whatever the device.
    """
    low, high = SOFT_TISSUE
    index = classes.clamp(min=0).long()[None, None]
    means, spreads = torch.rand(2, 1 + int(index.max()), generator=generator).to(image)
    seed, blur = (int(torch.randint(n, (), generator=generator)) for n in (2**31, 1 + MOST_BLUR))
    coarse = 1 + BIAS * (2 * torch.rand(1, 1, *strided_shape(classes.shape, BIAS_STRIDE), generator=generator) - 1)
    texture = torch.randn(image.shape, generator=torch.Generator(image.device).manual_seed(seed), device=image.device)
    grey = low + (high - low) * means[index] + TEXTURE * spreads[index] * texture
    drawn = torch.where(index > 0, grey, bezier_map(image, generator=generator))
    return box_mean(drawn, times=blur) * upsample(coarse.to(image), BIAS_STRIDE, classes.shape)
