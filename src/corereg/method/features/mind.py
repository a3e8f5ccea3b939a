"""Stage 1 of 4, without training: MIND-SSC descriptors, alike in CT and MR. Downstream: cost_volume, refine.

Source: Heinrich et al., "Towards realtime multimodal fusion for image-guided interventions using self-similarities",
MICCAI 2013.
"""

from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from corereg.geometry.kernels.dispatch import use_kernels
from corereg.geometry.strided import box_mean, halve
from corereg.method.features.model import Encoded, Image5D, Projection

__all__ = ["CT_INTENSITY", "MindModel", "mind_ssc", "mind_ssc_half"]

NEIGHBOURS = ((-1, 0, 0), (1, 0, 0), (0, -1, 0), (0, 1, 0), (0, 0, -1), (0, 0, 1))
PAIRS = tuple((a, b) for n, a in enumerate(NEIGHBOURS) for b in NEIGHBOURS[n + 1 :] if a != tuple(-c for c in b))
"""The 12 pairs of face neighbours that do not lie opposite each other: the self-similarity context."""

VARIANCE_RANGE = (1e-3, 1e3)
"""Bounds of a voxel's variance estimate, relative to its mean over the image, so that flat regions do not divide by
zero."""

SOFT_TISSUE = (-0.4, 0.6)
"""-200 to 300 HU divided by 500; other modalities are scaled to this range."""

COMPRESSION = 0.2
"""Contrast kept outside that window. Measured on head-and-neck CT: benchmarks/history/accuracy.md."""

COST_GAIN = 0.15
"""Factor on the features of a cost volume: with a larger one, twelve channels make the soft-argmin lock onto whole
voxels."""

CT_INTENSITY = 3.0
"""Weight of the intensity channel for two CTs, measured in the same way."""

FINE_WEIGHT, FINE_INTENSITY = 0.28, 4.4
"""Weights of descriptors and intensity on the full grid, measured in the same way: with them the regularisation of the
1/2 grid suits the full grid too."""


def _shift(image: Tensor, offset: tuple[int, int, int], margin: int) -> Tensor:
    """image(x + offset), read from an image padded by `margin` on every side."""
    i, j, k = (slice(margin + o, n - margin + o) for o, n in zip(offset, image.shape[2:], strict=True))
    return image[:, :, i, j, k]


def mind_ssc(image: Image5D, *, radius: int = 1, dilation: int = 2) -> Float[Tensor, "B 12 I J K"]:
    """Twelve distances between patches around each voxel, mapped to (0, 1] by their local variance.

    Args:
        image: in any intensity unit; a linear intensity map does not change the descriptor.
        radius: radius of the patches in voxels (1 is a mean over 3x3x3 voxels).
        dilation: distance of the patches' centres from the voxel, in voxels.
    """
    padded = functional.pad(image, (dilation,) * 6, mode="replicate")
    distances = []
    for a, b in PAIRS:
        first, second = (tuple(dilation * c for c in offset) for offset in (a, b))
        difference = _shift(padded, first, dilation) - _shift(padded, second, dilation)  # type: ignore[arg-type]
        distances.append(box_mean(difference**2, times=radius))
    ssd = torch.cat(distances, 1)
    ssd = ssd - ssd.amin(1, keepdim=True)
    variance = ssd.mean(1, keepdim=True)
    typical = float(variance.mean())
    low, high = VARIANCE_RANGE
    return torch.exp(
        -ssd / variance.clamp(max(low * typical, torch.finfo(image.dtype).tiny), high * max(typical, 1e-30))
    )


def mind_ssc_half(image: Image5D, *, radius: int = 1, dilation: int = 2) -> Float[Tensor, "B 12 X Y Z"]:
    """`mind_ssc` averaged down to the 1/2 grid."""
    if radius == 1 and min(image.shape[2:]) > 1 and use_kernels(image):
        from corereg.method.features import kernels_mind

        return kernels_mind.mind_ssc_half(image, PAIRS, dilation=dilation, variance_range=VARIANCE_RANGE)
    return halve(mind_ssc(image, radius=radius, dilation=dilation))


def _compress(image: Image5D) -> Image5D:
    """Keep soft tissue as it is and bring air, lung and bone closer, so that their borders do not drown it.

    The descriptor does not change under a linear map, so the structure inside air, lung and bone is preserved.
    """
    inside = image.clamp(*SOFT_TISSUE)
    return torch.lerp(inside, image, COMPRESSION)


class MindModel:
    """MIND-SSC on the working grid, averaged down to the grids on which the stages match.

    Args:
        intensity: weight of the image itself as an extra channel, for pairs whose intensities mean the same (two CTs).
    """

    name = "mind"
    passes: tuple[int, ...] = (8, 4)

    def __init__(self, *, intensity: float = 0.0) -> None:
        self.intensity = intensity

    def encode(
        self, image: Image5D, strides: Iterable[int], *, shallow: bool = True, project: Projection | None = None
    ) -> Encoded:
        """See `FeatureModel`."""
        features = mind_ssc_half(_compress(image))
        if self.intensity:
            tissue = halve(image.clamp(*SOFT_TISSUE))
            features = torch.cat([features, self.intensity * tissue], 1)
        half, cost, stride, wanted = None, {}, 2, set(strides)
        if shallow:
            half = features if project is None else project(features)
        while True:
            if stride in wanted:
                cost[stride] = COST_GAIN * features
            if stride >= max(wanted, default=0):
                return Encoded(half, cost)
            features, stride = halve(features), stride * 2

    def fine(self, image: Image5D, *, correlated: bool = False) -> Float[Tensor, "B C I J K"] | None:
        """See `FeatureModel`: descriptors, with the image as an extra channel if it has a weight."""
        if correlated:
            return None
        features = FINE_WEIGHT * mind_ssc(_compress(image))
        if self.intensity:
            features = torch.cat([features, FINE_INTENSITY * image.clamp(*SOFT_TISSUE)], 1)
        return features.contiguous(memory_format=torch.channels_last_3d)

    def prepare(self, images: Iterable[Image5D]) -> None:
        """Does nothing: there are no statistics to fill."""
