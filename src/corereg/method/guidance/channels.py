"""Further images of both sides, such as T2 with T1, as more features of every stage.

Each is described by MIND-SSC, whatever the model of the first images is. Upstream: images in the worlds of the first
ones. Downstream: coarse, refine.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from corereg.errors import InputError
from corereg.geometry.grid import Grid, Matrix
from corereg.io.images.image import Image, as_image
from corereg.io.transforms.transform import Transform
from corereg.method.features.mind import COST_GAIN, CT_INTENSITY, MindModel
from corereg.method.guidance.start import placed
from corereg.preprocessing.detection import find_intensities
from corereg.preprocessing.filling import without_filling
from corereg.preprocessing.modality import Modality
from corereg.preprocessing.pair import Scan, prepare_pair

__all__ = ["ChannelGuide", "channel_guide", "further_channels"]

Channels = tuple[tuple[Image, Image], ...]


@dataclass(frozen=True, slots=True)
class ChannelGuide:
    """One further image of each side, on the working grid. It counts as much as the first one."""

    images: tuple[Tensor, Tensor]
    """(1, 1, I, J, K), fixed and moving."""
    model: MindModel

    def coarse(self) -> tuple[Tensor, Tensor]:
        """Features for the passes, on the 1/2 grid."""
        return self._scaled(self._half(), COST_GAIN)

    def half(self) -> tuple[Tensor, Tensor]:
        """Features for the refinement on the 1/2 grid, such that the sum over channels counts."""
        found = self._half()
        return self._scaled(found, found[0].shape[1] ** -0.5)

    def full(self) -> tuple[Tensor, Tensor]:
        """The same on the full grid."""
        fixed, moving = (_given(self.model.fine(image)) for image in self.images)
        return self._scaled((fixed, moving), fixed.shape[1] ** -0.5)

    def _half(self) -> tuple[Tensor, Tensor]:
        fixed, moving = (_given(self.model.encode(image, ()).shallow) for image in self.images)
        return fixed, moving

    @staticmethod
    def _scaled(features: tuple[Tensor, Tensor], factor: float) -> tuple[Tensor, Tensor]:
        return factor * features[0], factor * features[1]


def further_channels(fixed: Sequence[object], moving: Sequence[object], images: Sequence[Image]) -> Channels:
    """The further images of both sides, read and checked.

    Raises:
        InputError: they differ in number, or one does not overlap the first image of its side.
    """
    if len(fixed) != len(moving):
        raise InputError(
            f"got {len(fixed)} further fixed and {len(moving)} further moving images, expected as many of each; give "
            "every channel of both sides"
        )
    pairs = tuple((as_image(f), as_image(m)) for f, m in zip(fixed, moving, strict=True))
    for pair in pairs:
        for channel, first in zip(pair, images, strict=True):
            if not channel.grid.overlaps(first.grid):
                raise InputError(
                    f"got the channel {channel.name}, which does not overlap {first.name}, expected images of one "
                    "patient in one position; align them first"
                )
    return pairs


def channel_guide(
    channels: Channels,
    start: Transform,
    working: Grid,
    affine: Matrix | None,
    modality: Modality,
    device: torch.device,
) -> tuple[ChannelGuide, ...]:
    """Bring further images to the working grid, as the first ones are."""
    guides = []
    for pair in channels:
        shown = [without_filling(image, None)[0] for image in pair]
        intensities = find_intensities(shown, modality)
        scans = [Scan(image, each) for image, each in zip(shown, intensities, strict=True)]
        scans[1] = placed(scans[1], start, working)
        prepared = prepare_pair(scans, working, affine=affine, device=device)
        both_ct = all(each.modality.startswith("ct") for each in intensities)
        model = MindModel(intensity=CT_INTENSITY if both_ct else 0.0)
        guides.append(ChannelGuide((prepared.fixed, prepared.moving), model))
    return tuple(guides)


def _given(features: Tensor | None) -> Tensor:
    assert features is not None
    return features
