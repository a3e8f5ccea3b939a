"""Stage 1 of 4: image -> features. The trained network of CoRe. Downstream: cost_volume, refine.

Legend: B batch, C channels, I J K voxel axes; a grid "1/s" holds every s-th voxel, offset 0.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple

import torch
from annotated_types import Ge, MinLen
from torch import Tensor, nn

from corereg.errors import InputError
from corereg.method.features.convolution.inference import computing_type, extract, run_folded
from corereg.method.features.model import Encoded, Image5D, Projection
from corereg.settings import check

__all__ = [
    "ConvNetModel",
    "DeepOutputs",
    "ExtractorOutputs",
    "FeatureExtractor",
    "NetworkConfig",
    "ProjectionHead",
    "fill_statistics",
    "random_model",
]

Convolve = Callable[[nn.Conv3d, Tensor], Tensor]
RunBlock = Callable[[nn.Sequential, Tensor], Tensor]

Channels = Annotated[int, Ge(1)]


@dataclass(frozen=True, kw_only=True, slots=True)
class NetworkConfig:
    """Sizes of the network, stored with its weights."""

    shallow_channels: tuple[Channels, Channels] = (32, 64)
    """Channels of blocks 1 and 2, on the 1/2 grid."""
    deep_channels: Channels = 128
    """Channels of blocks 3 and 4, on the 1/4 grid."""
    head_channels: Channels = 16
    """Channels compared by a cost volume."""
    strides: Annotated[tuple[Literal[4, 8], ...], MinLen(1)] = (8,)
    """Strides of the grids that have a head: 8 as in the paper, 4 for a 1x1x1 convolution on block 4."""
    descriptors: bool = False
    """Whether the refinement also matches MIND-SSC descriptors (see `network_and_mind`)."""

    def __post_init__(self) -> None:
        check(self)


class DeepOutputs(NamedTuple):
    """Outputs of block 4, on the 1/4 grid."""

    deep_conv: Tensor
    """Its convolution before the normalisation: what the contrastive loss compares."""
    deep: Tensor
    """Its final output."""


class ExtractorOutputs(NamedTuple):
    """Outputs of the extractor."""

    shallow: Tensor
    """Output of block 2, 1/2 grid."""
    deep_conv: Tensor
    """See `DeepOutputs`."""
    deep: Tensor


def _block(channels_in: int, channels_out: int, stride: int) -> nn.Sequential:
    conv = nn.Conv3d(channels_in, channels_out, 3, stride=stride, padding=1)
    return nn.Sequential(conv, nn.BatchNorm3d(channels_out), nn.ReLU(inplace=True))


class FeatureExtractor(nn.Module):
    """g of the paper: four convolution blocks, applied to (B, 1, I, J, K). Source: method section of CoRe."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        first, second = config.shallow_channels
        self.block1 = _block(1, first, 2)
        self.block2 = _block(first, second, 1)
        self.block3 = _block(second, config.deep_channels, 2)
        self.block4 = _block(config.deep_channels, config.deep_channels, 1)

    @property
    def blocks(self) -> tuple[nn.Sequential, ...]:
        """The four blocks in order."""
        return self.block1, self.block2, self.block3, self.block4

    def forward(self, image: Tensor) -> ExtractorOutputs:
        shallow = self.shallow(image)
        return ExtractorOutputs(shallow, *self.after_block3(self.block3(shallow)))

    def shallow(self, image: Tensor) -> Tensor:
        """Blocks 1 and 2."""
        return self.block2(self.block1(image))  # type: ignore[no-any-return]

    def after_block3(self, third: Tensor, *, convolve: Convolve = nn.Conv3d.__call__) -> DeepOutputs:
        """Block 4, from block 3's output.

        Args:
            convolve: how its convolution is computed.
        """
        conv, norm, activation = self.block4
        assert isinstance(conv, nn.Conv3d)
        deep_conv = convolve(conv, third)
        return DeepOutputs(deep_conv, activation(norm(deep_conv)))


class ProjectionHead(nn.Module):
    """p of the paper: block 4's features on the 1/4 grid -> head features for the stride of a pass."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        deep, head = config.deep_channels, config.head_channels
        self.strides = config.strides
        if 8 in config.strides:
            self.block = _block(deep, deep, 2)
            self.out = nn.Conv3d(deep, head, 1)
        if 4 in config.strides:
            self.out4 = nn.Conv3d(deep, head, 1)

    def forward(self, deep: Tensor, stride: int, *, run_block: RunBlock = nn.Sequential.__call__) -> Tensor:
        """Head features, in the weights' number type even for `deep` of less: sign and soft-argmin amplify rounding.

        Args:
            run_block: how the block of stride 2 is computed.
        """
        out, hidden = (self.out, run_block(self.block, deep)) if stride == 8 else (self.out4, deep)
        return out(hidden.to(out.weight.dtype))  # type: ignore[no-any-return]


class ConvNetModel(nn.Module):
    """FeatureExtractor and ProjectionHead together: the model that is trained and stored."""

    def __init__(self, config: NetworkConfig, name: str) -> None:
        super().__init__()
        self.config, self.name = config, name
        self.extractor = FeatureExtractor(config)
        self.head = ProjectionHead(config)
        coarsest, finest = max(config.strides), min(config.strides)
        self.passes: tuple[int, ...] = (coarsest, finest)
        self.statistics_filled = True
        self.precision = "auto"
        """Number type of the convolutions when no gradient is recorded: auto, fp32, bf16 or fp16."""

    def encode(
        self, image: Image5D, strides: Iterable[int], *, shallow: bool = True, project: Projection | None = None
    ) -> Encoded:
        """See `FeatureModel`. Without gradients the blocks run folded, in the number type of `precision`."""
        wanted = sorted(set(strides))
        missing = set(wanted) - set(self.config.strides)
        if missing:
            raise InputError(
                f"got passes with stride {sorted(missing)}, expected strides among {self.config.strides}, for which "
                f"the model {self.name} has heads; choose --passes among these"
            )
        if self.training or torch.is_grad_enabled():
            outputs = self.extractor(image)
            kept = outputs.shallow if project is None else project(outputs.shallow)
            return Encoded(kept, {s: self.head(outputs.deep, s) for s in wanted})
        dtype = computing_type(self.precision, image.device)
        kept, deep = extract(self.extractor.blocks, image, dtype, shallow=shallow, project=project)
        return Encoded(kept, {s: self.head(deep, s, run_block=run_folded) for s in wanted})

    def fine(self, image: Image5D, *, correlated: bool = False) -> None:
        """None: the network has no features on a grid finer than the 1/2 grid."""

    def prepare(self, images: Iterable[Image5D]) -> None:
        """Fill the normalisation statistics of an untrained model from the images."""
        if not self.statistics_filled:
            fill_statistics(self, images)


def fill_statistics(model: ConvNetModel, images: Iterable[Image5D]) -> None:
    """Set every BatchNorm's mean and variance to their averages over the images, in one pass.

    A fresh network has seen no data, and without statistics its features are too weak to register by.
    """
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm3d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
    model.train()
    with torch.no_grad():
        for image in images:
            model.encode(image, model.config.strides)
    model.eval()
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def random_model(seed: int = 0, config: NetworkConfig | None = None) -> ConvNetModel:
    """A network with seeded random weights, from which training starts. Call `prepare` before `encode`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = ConvNetModel(config or NetworkConfig(strides=(8, 4)), "random").eval()
    model.statistics_filled = False
    return model
