"""Stage 1 of 4: image -> features. The trained network of CoRe. Downstream: cost_volume, refine.

Legend: B batch, C channels, I J K voxel axes; a grid "1/s" holds every s-th voxel, offset 0.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from corereg.errors import InputError
from corereg.method.features.convolution.inference import computing_type, convolve, extract, fold
from corereg.method.features.model import Encoded, Image5D, Projection

__all__ = ["ConvNetModel", "FeatureExtractor", "NetworkConfig", "ProjectionHead", "fill_statistics", "random_model"]


@dataclass(frozen=True, kw_only=True, slots=True)
class NetworkConfig:
    """Sizes of the network, stored with its weights."""

    shallow_channels: tuple[int, int] = (32, 64)
    """Channels of blocks 1 and 2, on the 1/2 grid."""
    deep_channels: int = 128
    """Channels of blocks 3 and 4, on the 1/4 grid."""
    head_channels: int = 16
    """Channels that a cost volume compares."""
    strides: tuple[int, ...] = (8,)
    """Grids for which there is a head: 8 (the paper), 4 (1x1x1 on block 4)."""
    descriptors: bool = False
    """Whether the refinement matches MIND-SSC descriptors beside the learned features (see `hybrid`)."""

    def __post_init__(self) -> None:
        if not self.strides or not set(self.strides) <= {4, 8}:
            raise ValueError(f"strides must be among 4 and 8, got {self.strides}")


class Stages(NamedTuple):
    """Outputs of the extractor by name."""

    shallow: Tensor
    """Block 2, 1/2 grid."""
    deep_conv: Tensor
    """Block 4's convolution before its normalisation, 1/4 grid: what the contrastive loss looks at."""
    deep: Tensor
    """Block 4, 1/4 grid."""


def _block(channels_in: int, channels_out: int, stride: int) -> nn.Sequential:
    conv = nn.Conv3d(channels_in, channels_out, 3, stride=stride, padding=1)
    return nn.Sequential(conv, nn.BatchNorm3d(channels_out), nn.ReLU(inplace=True))


class FeatureExtractor(nn.Module):
    """g of the paper: four convolution blocks, (B, 1, I, J, K) -> Stages. Source: method section of CoRe."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        first, second = config.shallow_channels
        self.block1 = _block(1, first, 2)
        self.block2 = _block(first, second, 1)
        self.block3 = _block(second, config.deep_channels, 2)
        self.block4 = _block(config.deep_channels, config.deep_channels, 1)

    @property
    def blocks(self) -> tuple[nn.Sequential, ...]:
        """The four in order."""
        return self.block1, self.block2, self.block3, self.block4

    def forward(self, image: Tensor) -> Stages:
        shallow = self.block2(self.block1(image))
        deep_conv = self.block4[0](self.block3(shallow))
        return Stages(shallow, deep_conv, self.block4[2](self.block4[1](deep_conv)))


class ProjectionHead(nn.Module):
    """p of the paper: block 4's features on the 1/4 grid -> head features by stride of the pass."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        deep, head = config.deep_channels, config.head_channels
        self.strides = config.strides
        if 8 in config.strides:
            self.block = _block(deep, deep, 2)
            self.out = nn.Conv3d(deep, head, 1)
        if 4 in config.strides:
            self.out4 = nn.Conv3d(deep, head, 1)

    def forward(self, deep: Tensor, stride: int) -> Tensor:
        return self.out(self.block(deep)) if stride == 8 else self.out4(deep)  # type: ignore[no-any-return]

    def infer(self, deep: Tensor, stride: int) -> Tensor:
        """The same without gradients, from features of any number type: the 1x1x1 convolution is always in float32."""
        if stride == 8:
            return self.out(convolve(fold(self.block, deep.dtype), deep).float())  # type: ignore[no-any-return]
        return self.out4(deep.float())  # type: ignore[no-any-return]


class ConvNetModel(nn.Module):
    """FeatureExtractor and ProjectionHead together: the model that training makes and files hold."""

    def __init__(self, config: NetworkConfig, name: str) -> None:
        super().__init__()
        self.config, self.name = config, name
        self.extractor = FeatureExtractor(config)
        self.head = ProjectionHead(config)
        coarsest, finest = max(config.strides), min(config.strides)
        self.passes: tuple[int, ...] = (coarsest, finest)
        self.statistics_filled = True
        self.precision = "auto"
        """Of the convolutions where nothing is recorded for a gradient: auto, fp32, bf16 or fp16."""

    def encode(
        self, image: Image5D, strides: Iterable[int], *, shallow: bool = True, project: Projection | None = None
    ) -> Encoded:
        """See `FeatureModel`. Without gradients it runs folded, in the number type of `precision`."""
        wanted = sorted(set(strides))
        missing = set(wanted) - set(self.config.strides)
        if missing:
            raise InputError(
                f"got passes with stride {sorted(missing)}, expected some of {self.config.strides}, for which model "
                f"{self.name} has heads; choose --passes among these"
            )
        if self.training or torch.is_grad_enabled():
            stages = self.extractor(image)
            kept = stages.shallow if project is None else project(stages.shallow)
            return Encoded(kept, {s: self.head(stages.deep, s) for s in wanted})
        dtype = computing_type(self.precision, image.device)
        kept, deep = extract(self.extractor.blocks, image, dtype, shallow=shallow, project=project)
        return Encoded(kept, {s: self.head.infer(deep, s) for s in wanted})

    def fine(self, image: Image5D) -> None:
        """The network describes no grid finer than the 1/2 grid."""

    def prepare(self, images: Iterable[Image5D]) -> None:
        """Fill empty normalisation statistics (a model that was never trained) from the images at hand."""
        if not self.statistics_filled:
            fill_statistics(self, images)


def fill_statistics(model: ConvNetModel, images: Iterable[Image5D]) -> None:
    """One pass over the images that sets every BatchNorm's mean and variance to their average over the images.

    A fresh network has the statistics of no data, and its features are too weak to register by.
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
    """Seeded random weights, what stage 0 of training starts from. Call `prepare` before `encode`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = ConvNetModel(config or NetworkConfig(strides=(8, 4)), "random").eval()
    model.statistics_filled = False
    return model
