"""What the stages ask of a feature model, whatever it is made of: the protocol and its types."""

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["Encoded", "FeatureModel", "Features", "Image5D", "Projection", "project_features"]

Image5D = Float[Tensor, "B 1 I J K"]

Projection = Callable[[Tensor], Tensor]
"""From features to fewer, voxel by voxel."""


class Encoded(NamedTuple):
    """What the later stages need of one image."""

    shallow: Float[Tensor, "B C I J K"] | None
    """1/2 grid, matched by the instance optimisation; None where it was not asked for."""
    cost: Mapping[int, Float[Tensor, "B C X Y Z"]]
    """For each stride of a pass, what its cost volume compares."""


@runtime_checkable
class FeatureModel(Protocol):
    """Anything that describes an image well enough to be registered by."""

    name: str
    passes: tuple[int, ...]
    """Strides of the passes that it is made for."""

    def encode(
        self, image: Image5D, strides: Iterable[int], *, shallow: bool = True, project: Projection | None = None
    ) -> Encoded:
        """Features of an image whose sizes are multiples of 16, for passes on grids of these strides.

        Args:
            shallow: whether those of the refinement are wanted.
            project: what is kept of these, voxel by voxel; None keeps them as they are.
        """
        ...

    def fine(self, image: Image5D) -> Float[Tensor, "B C I J K"] | None:
        """Features on the full grid, for a last refinement there; None where the model has none."""
        ...

    def prepare(self, images: Iterable[Image5D]) -> None:
        """Adapt to the images at hand before they are encoded; most models have nothing to do."""
        ...


Features = Float[Tensor, "B C I J K"]


def project_features(features: Features, channels: int, *, seed: int) -> Float[Tensor, "B P I J K"]:
    """Reduce features to `channels` by a fixed random 1x1x1 projection; the same seed gives the same projection.

    Entries are uniform in +-1/sqrt(C), as a PyTorch convolution's initial weights are. Fewer channels are left alone.
    """
    count = features.shape[1]
    if count <= channels:
        return features
    generator = torch.Generator().manual_seed(seed)
    matrix = (2 * torch.rand(channels, count, generator=generator) - 1) / count**0.5
    projected = features.flatten(2).mT @ matrix.to(features).mT  # channels last in memory, as the kernels want them
    shaped: Tensor = projected.reshape(features.shape[0], *features.shape[2:], channels)
    return shaped.permute(0, 4, 1, 2, 3)
