"""A label map painted as a scan in a contrast that no scanner has: a network trained on such scans reads any contrast.

Source: Billot et al., "SynthSeg", Medical Image Analysis 2023.

Legend: X Y Z axes of a view.
"""

import torch
from jaxtyping import Float, Shaped
from torch import Tensor
from torch.nn import functional

from corereg.geometry.strided import box_mean, strided_shape, upsample
from corereg.method.features.mind import SOFT_TISSUE
from corereg.training.objective.views import bezier_map

__all__ = ["in_thick_slices", "painted"]

TEXTURE = 0.1
"""Largest standard deviation of the texture within a structure, in scaled intensities."""

MOST_BLUR = 2
"""Largest number of 3x3x3 means, which mix structures at their borders as large voxels do."""

BIAS, BIAS_STRIDE = 0.3, 24
"""Largest deviation of the bias field from 1, and the voxels between its random values."""


SHARED_GREYS, MOST_GREYS, GREY_SPREAD = 0.5, 8, 0.03
"""Share of the scans that show a few tissues, each in many structures; most tissues, and the spread within one."""

DARK_AIR = 0.8
"""Share of the scans without an image whose background is black."""


def painted(
    image: Float[Tensor, "1 1 X Y Z"] | None,
    classes: Shaped[Tensor, "X Y Z"],
    *,
    generator: torch.Generator,
    count: int,
) -> Float[Tensor, "1 1 X Y Z"]:
    """The view with a random grey value and texture for each structure, blurred and shaded.

    What lies in no structure keeps the image's pattern, through a random map of intensities.

    Args:
        image: None where a label map has no scan: what lies in no structure is then even, and mostly black.
        classes: of each voxel; 0 and below lie in no structure.
        generator: on the CPU, whatever the device.
        count: number of classes, the background included.
    """
    device = classes.device
    low, high = SOFT_TISSUE
    means, spreads = torch.rand(2, count, generator=generator)
    if float(torch.rand((), generator=generator)) < SHARED_GREYS:
        greys = torch.rand(int(torch.randint(2, 1 + MOST_GREYS, (), generator=generator)), generator=generator)
        chosen = greys[torch.randint(len(greys), (count,), generator=generator)]
        means = chosen + GREY_SPREAD * torch.randn(count, generator=generator)
    if image is None:
        dark = float(torch.rand((), generator=generator)) < DARK_AIR
        means[0], spreads[0] = (0.0, 0.0) if dark else (means[0], spreads[0])
    seed, blur = (int(torch.randint(n, (), generator=generator)) for n in (2**31, 1 + MOST_BLUR))
    coarse = 1 + BIAS * (2 * torch.rand(1, 1, *strided_shape(classes.shape, BIAS_STRIDE), generator=generator) - 1)
    on_device = torch.Generator(device).manual_seed(seed)
    texture = torch.randn(1, 1, *classes.shape, generator=on_device, device=device)
    index = classes.clamp(min=0).long()[None, None]
    grey = low + (high - low) * means.to(device)[index] + TEXTURE * spreads.to(device)[index] * texture
    if image is not None:
        grey = torch.where(index > 0, grey, bezier_map(image, generator=generator))
    return box_mean(grey, times=blur) * upsample(coarse.to(device), BIAS_STRIDE, classes.shape)


def in_thick_slices(
    image: Float[Tensor, "1 1 X Y Z"], most: float, *, generator: torch.Generator
) -> Float[Tensor, "1 1 X Y Z"]:
    """The view as slices across a random axis show it that are up to `most` voxels thick, resampled to its own grid."""
    axis = int(torch.randint(3, (), generator=generator))
    thickness = most ** float(torch.rand((), generator=generator))
    shape = list(image.shape[2:])
    shape[axis] = max(1, round(shape[axis] / thickness))
    thick = functional.interpolate(image, shape, mode="area")
    return functional.interpolate(thick, image.shape[2:], mode="trilinear")
