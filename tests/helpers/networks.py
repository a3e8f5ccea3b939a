"""Small networks, and images for them."""

import torch
from torch import Tensor, nn

from corereg.method.features.network import ConvNetModel, NetworkConfig, random_model
from corereg.preprocessing.intensity import normalise
from helpers.scenes import centred_grid, scan


def made_up_model() -> ConvNetModel:
    """Small, and with weights and statistics that are all different from what a fresh network has."""
    model = random_model(3, NetworkConfig(shallow_channels=(8, 12), deep_channels=20, head_channels=6, strides=(8, 4)))
    generator = torch.Generator().manual_seed(5)
    for norm in (m for m in model.modules() if isinstance(m, nn.BatchNorm3d)):
        for values, low, high in (
            (norm.weight, 0.5, 2.0),
            (norm.bias, -0.5, 0.5),
            (norm.running_mean, -0.3, 0.3),
            (norm.running_var, 0.05, 2.0),
        ):
            assert values is not None
            values.data.uniform_(low, high, generator=generator)
    model.statistics_filled = True
    model.precision = "fp32"
    return model


def noise(shape: tuple[int, ...], seed: int = 0) -> Tensor:
    return 0.2 * torch.randn(1, 1, *shape, generator=torch.Generator().manual_seed(seed))


SMALL = NetworkConfig(shallow_channels=(4, 6), deep_channels=8, head_channels=5, strides=(8, 4))


def volume() -> Tensor:
    image = scan(centred_grid((48, 32, 64), (3.0, 4.0, 2.0)))
    return normalise(torch.as_tensor(image.array), "ct")[None, None]
