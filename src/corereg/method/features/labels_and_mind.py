"""A label network combined with MIND-SSC descriptors: the probabilities of labels are features of every stage.

Where labels are predicted, they say what lies where; everywhere else the descriptors (and two CTs' intensities) do.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from corereg.geometry.strided import box_mean, halve
from corereg.method.features.label_codes import codes_of
from corereg.method.features.label_network import LabelNetwork
from corereg.method.features.mind import CT_INTENSITY, MindModel
from corereg.method.features.model import Encoded, Image5D, Projection

__all__ = ["LabelsAndMind"]

COST_WEIGHT, HALF_WEIGHT, FINE_WEIGHT, CORRELATED_WEIGHT = 2.0, 4.0, 1.5, 1.0
"""Weights of the probabilities for the passes, on the 1/2 grid, and on the full one with descriptors or with the
images' correlation. Measured on head-and-neck CT: benchmarks/training.md."""

SMOOTHING = 1
"""Number of 3x3x3 means of the probabilities, which are steep at the labels' borders and flat elsewhere."""


class LabelsAndMind(nn.Module):
    """A label network whose stages also see descriptors. See `FeatureModel`."""

    passes: tuple[int, ...] = (8, 4)

    def __init__(self, network: LabelNetwork, *, both_ct: bool) -> None:
        super().__init__()
        self.network, self.name = network, network.name
        self.descriptors = MindModel(intensity=CT_INTENSITY if both_ct else 0.0)
        codes = torch.from_numpy(codes_of(len(network.config.labels)))
        self.codes = codes / codes.sum(1).max().sqrt()

    def encode(
        self, image: Image5D, strides: Iterable[int], *, shallow: bool = True, project: Projection | None = None
    ) -> Encoded:
        """See `FeatureModel`."""
        wanted = sorted(set(strides))
        described = self.descriptors.encode(image, wanted, shallow=shallow)
        learned, stride = halve(self._learned(image)), 2
        half = None
        if shallow:
            assert described.shallow is not None
            half = torch.cat([described.shallow, HALF_WEIGHT * learned], 1)
            half = (half if project is None else project(half)).contiguous(memory_format=torch.channels_last_3d)
        cost = {}
        while stride <= max(wanted, default=0):
            if stride in wanted:
                cost[stride] = torch.cat([described.cost[stride], COST_WEIGHT * learned], 1)
            learned, stride = halve(learned), 2 * stride
        return Encoded(half, cost)

    def fine(self, image: Image5D, *, correlated: bool = False) -> Tensor:
        """See `FeatureModel`. What lies where cannot be seen in the images, so that it always has its say."""
        described = self.descriptors.fine(image, correlated=correlated)
        learned = (CORRELATED_WEIGHT if correlated else FINE_WEIGHT) * self._learned(image)
        found = learned if described is None else torch.cat([described, learned], 1)
        return found.contiguous(memory_format=torch.channels_last_3d)

    def prepare(self, images: Iterable[Image5D]) -> None:
        """Does nothing: instance normalisation has no statistics to fill."""

    def _learned(self, image: Image5D) -> Tensor:
        """Probabilities of the labels, without the background, which they imply; of many labels, sums of them."""
        with torch.no_grad():
            coded = self.network.coded(image, self.codes.to(image))
        return box_mean(coded.contiguous(), times=SMOOTHING)
