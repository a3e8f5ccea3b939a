"""A trained network combined with MIND-SSC descriptors in the refinement: each alone does worse.

The passes compare the network's head features; the instance optimisation matches the network's shallow features and
MIND-SSC descriptors together.
"""

from collections.abc import Iterable
from functools import partial

import torch
from torch import nn

from corereg.method.features.mind import CT_INTENSITY, MindModel
from corereg.method.features.model import Encoded, FeatureModel, Image5D, Projection, project_features
from corereg.method.features.network import ConvNetModel

__all__ = ["NetworkAndMind", "with_descriptors"]

CHANNELS = 32
"""Descriptors and learned features together, as many as the refinement takes without projecting them again."""

DESCRIPTOR_WEIGHT, LEARNED_WEIGHT = 0.84, 1.09
"""The weights that make 32 channels equivalent to 13 descriptor channels and 32 projected learned ones of equal weight:
the learned part keeps its energy with fewer channels."""

PROJECTION_SEED = 0


class NetworkAndMind(nn.Module):
    """A trained network whose refinement also sees descriptors. See `FeatureModel`."""

    def __init__(self, network: ConvNetModel, *, both_ct: bool) -> None:
        super().__init__()
        self.network, self.name, self.passes = network, network.name, network.passes
        self.descriptors = MindModel(intensity=CT_INTENSITY if both_ct else 0.0)

    def encode(
        self, image: Image5D, strides: Iterable[int], *, shallow: bool = True, project: Projection | None = None
    ) -> Encoded:
        """See `FeatureModel`."""
        if not shallow:
            return self.network.encode(image, strides, shallow=False)
        described = self.descriptors.encode(image, ()).shallow
        assert described is not None
        learned = partial(project_features, channels=CHANNELS - described.shape[1], seed=PROJECTION_SEED)
        encoded = self.network.encode(image, strides, project=learned)
        assert encoded.shallow is not None
        both = torch.cat([DESCRIPTOR_WEIGHT * described, LEARNED_WEIGHT * encoded.shallow], 1)
        both = both.contiguous(memory_format=torch.channels_last_3d)
        return encoded._replace(shallow=both if project is None else project(both))

    def fine(self, image: Image5D, *, correlated: bool = False) -> torch.Tensor | None:
        return self.descriptors.fine(image, correlated=correlated)

    def prepare(self, images: Iterable[Image5D]) -> None:
        self.network.prepare(images)


def with_descriptors(network: ConvNetModel, *, both_ct: bool) -> FeatureModel:
    """The network as used for registration: combined with descriptors if its configuration says so.

    Args:
        both_ct: whether both images are CTs, whose intensities are then compared along with the descriptors.
    """
    return NetworkAndMind(network, both_ct=both_ct) if network.config.descriptors else network
