"""A small U-Net that predicts label maps from scans: what `train --labels` trains. Downstream: labels_and_mind.

Legend: B batch, C classes (the background first, then one for each label), I J K voxel axes; a grid "1/s" holds blocks
of s x s x s voxels.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated

import torch
from annotated_types import Ge, Gt, MinLen
from jaxtyping import Float
from torch import Tensor, nn

from corereg.method.features.convolution.inference import computing_type
from corereg.method.features.model import Image5D
from corereg.settings import check

__all__ = ["LabelNetwork", "LabelNetworkConfig", "random_label_network"]

Channels = Annotated[int, Ge(1)]

BLOCK = 2
"""Edge of the blocks of voxels that the first layer reads and the last one writes at once: the finest convolutions run
on the 1/2 grid, at an eighth of the cost of the full one."""

BACKGROUND = 3.0
"""First logit of the background, which fills most of a scan: without it, the first hundred steps learn nothing else."""

SLAB = 8
"""Planes of the 1/2 grid whose probabilities are in memory at once."""

SLOPE = 0.01
"""Slope of the activations below zero."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelNetworkConfig:
    """Sizes of the network, stored with its weights."""

    labels: Annotated[tuple[Annotated[int, Ge(1)], ...], MinLen(1)]
    """Labels that it predicts, in the order of its classes after the background."""
    channels: Annotated[tuple[Channels, ...], MinLen(1)] = (16, 48, 64, 96)
    """Channels on the 1/2 grid, the 1/4 grid, and so on."""
    spacing_mm: Annotated[float | None, Gt(0)] = None
    """Mean voxel size of the grid that it was trained on, on which organs have the size that it knows."""

    def __post_init__(self) -> None:
        check(self)


class LabelNetwork(nn.Module):
    """A U-Net from intensities (B, 1, I, J, K), whose sizes are multiples of 16, to logits (B, C, I, J, K).

    Source: Ronneberger et al., "U-Net", MICCAI 2015, with instance normalisation and leaky activations as in Isensee et
    al., "nnU-Net", Nature Methods 2021.
    """

    def __init__(self, config: LabelNetworkConfig, name: str) -> None:
        super().__init__()
        self.config, self.name, self.precision = config, name, "auto"
        widths, classes = config.channels, 1 + len(config.labels)
        self.first = nn.Conv3d(BLOCK**3, widths[0], 1)
        finest = _block(widths[0], widths[0], 1)
        coarser = (nn.Sequential(_block(a, b, 2), _block(b, b, 1)) for a, b in pairwise(widths))
        self.down = nn.ModuleList([finest, *coarser])
        self.up = nn.ModuleList(nn.ConvTranspose3d(coarse, fine, 2, stride=2) for fine, coarse in pairwise(widths))
        self.merge = nn.ModuleList(_block(fine, fine, 1) for fine in widths[:-1])
        self.last = nn.Conv3d(widths[0], classes * BLOCK**3, 1)

    def forward(self, image: Image5D) -> Float[Tensor, "B C I J K"]:
        """The logits."""
        return _channels_to_blocks(self.last(self._features(image)))

    def _features(self, image: Image5D) -> Tensor:
        """(B, C, I/2, J/2, K/2)"""
        features: Tensor = self.first(_blocks_to_channels(image))
        skipped = []
        for down in self.down:
            features = down(features)
            skipped.append(features)
        for up, merge, skip in zip(reversed(self.up), reversed(self.merge), skipped[-2::-1], strict=True):
            features = merge(up(features) + skip)
        return features

    def probabilities(self, image: Image5D) -> Float[Tensor, "B C I J K"]:
        """Probability of each class at each voxel."""
        return self(image).softmax(1)  # type: ignore[no-any-return]

    def coded(self, image: Image5D, codes: Float[Tensor, "C D"]) -> Float[Tensor, "B D I J K"]:
        """Sums of the classes' probabilities, weighted by `codes`, without all classes of all voxels in memory.

        The convolutions run in the number type of `precision`.

        Args:
            codes: D weights of each class, the background first.
        """
        features = self._in_precision(self._features, image)
        chances = (
            _channels_to_blocks(self._in_precision(self.last, slab)).softmax(1)
            for slab in torch.split(features, SLAB, 2)
        )
        return torch.cat([torch.einsum("cd,bcijk->bdijk", codes, slab) for slab in chances], 2)

    def _in_precision(self, convolve: Callable[[Tensor], Tensor], given: Tensor) -> Tensor:
        dtype = computing_type(self.precision, given.device)
        if dtype is torch.float32:  # which autocast refuses or warns of on some devices
            return convolve(given)
        with torch.autocast(given.device.type, dtype):
            return convolve(given).float()


def random_label_network(config: LabelNetworkConfig, *, seed: int) -> LabelNetwork:
    """A network with seeded random weights, from which training starts."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LabelNetwork(config, "random")
    with torch.no_grad():
        bias = torch.zeros(1 + len(config.labels), BLOCK**3)
        bias[0] = BACKGROUND
        assert model.last.bias is not None
        model.last.bias.copy_(bias.flatten())
    return model


def _block(channels_in: int, channels_out: int, stride: int) -> nn.Sequential:
    conv = nn.Conv3d(channels_in, channels_out, 3, stride=stride, padding=1, bias=False)
    return nn.Sequential(conv, nn.InstanceNorm3d(channels_out, affine=True), nn.LeakyReLU(SLOPE, inplace=True))


def _blocks_to_channels(image: Tensor) -> Tensor:
    """(B, 1, I, J, K) -> (B, 8, I/2, J/2, K/2): the voxels of each block become channels."""
    i, j, k = (n // BLOCK for n in image.shape[2:])
    blocks = image.reshape(-1, 1, i, BLOCK, j, BLOCK, k, BLOCK).permute(0, 1, 3, 5, 7, 2, 4, 6)
    return blocks.reshape(-1, BLOCK**3, i, j, k)


def _channels_to_blocks(features: Tensor) -> Tensor:
    """(B, 8 C, I/2, J/2, K/2) -> (B, C, I, J, K): the reverse, for each class."""
    i, j, k = features.shape[2:]
    blocks = features.reshape(len(features), -1, BLOCK, BLOCK, BLOCK, i, j, k).permute(0, 1, 5, 2, 6, 3, 7, 4)
    return blocks.reshape(len(features), -1, BLOCK * i, BLOCK * j, BLOCK * k)
