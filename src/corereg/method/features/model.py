"""The feature model as the stages see it: the protocol, its types, and the projection of features."""

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from corereg.lazy import torch_generator

__all__ = ["Encoded", "FeatureModel", "Features", "Image5D", "Projection", "project_features"]

Image5D = Float[Tensor, "B 1 I J K"]

Projection = Callable[[Tensor], Tensor]
"""Maps features to fewer channels, voxel by voxel."""


class Encoded(NamedTuple):
    """An image's features for the later stages."""

    shallow: Float[Tensor, "B C I J K"] | None
    """Features on the 1/2 grid, for the instance optimisation; None if not requested."""
    cost: Mapping[int, Float[Tensor, "B C X Y Z"]]
    """Features for the cost volume of each pass, by the pass's stride."""


@runtime_checkable
class FeatureModel(Protocol):
    """Anything that describes an image well enough to register by."""

    name: str
    passes: tuple[int, ...]
    """Strides of the passes that the model is made for."""

    def encode(
        self, image: Image5D, strides: Iterable[int], *, shallow: bool = True, project: Projection | None = None
    ) -> Encoded:
        """Features of an image whose sizes are multiples of 16, for passes on grids of these strides.

        Args:
            shallow: also return the features for the refinement.
            project: applied to those features, voxel by voxel; None keeps them as they are.
        """
        ...

    def fine(self, image: Image5D, *, correlated: bool = False) -> Float[Tensor, "B C I J K"] | None:
        """Features on the full grid, for a last refinement there; None if the model has none.

        Args:
            correlated: the images' local correlation is compared too, which replaces descriptors: only features that
                say more than the images themselves are worth their time.
        """
        ...

    def prepare(self, images: Iterable[Image5D]) -> None:
        """Adapt to the images before they are encoded; most models do nothing."""
        ...


Features = Float[Tensor, "B C I J K"]


def project_features(features: Features, channels: int, *, seed: int) -> Float[Tensor, "B P I J K"]:
    """Reduce features to `channels` by a fixed random 1x1x1 projection; the same seed gives the same projection.

    Its entries are uniform in +-1/sqrt(C), like the initial weights of a PyTorch convolution. Features that have no
    more than `channels` are returned unchanged.
    """
    count = features.shape[1]
    if count <= channels:
        return features
    generator = torch_generator(seed)
    matrix = (2 * torch.rand(channels, count, generator=generator) - 1) / count**0.5
    projected = features.flatten(2).mT @ matrix.to(features).mT  # channels-last in memory, as the kernels need them
    shaped: Tensor = projected.reshape(features.shape[0], *features.shape[2:], channels)
    return shaped.permute(0, 4, 1, 2, 3)
