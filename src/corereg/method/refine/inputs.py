"""What the refinement of one pair compares, as arrays for the compiled CPU kernels. Downstream: kernels_cpu."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from corereg.method.config import RefineConfig
from corereg.method.refine.energy import Compared, correlation_factor, energy_factors

__all__ = ["Factors", "Inputs", "Sampled"]

Array = NDArray[np.float32]
Sampled = tuple[tuple[int, ...], tuple[int, ...]]
"""Shape of the moving image, and which of its voxels the displacement's first voxel is."""


class Factors(NamedTuple):
    """Factors of the energy: data x sum of squared feature differences + smooth[a] x sum of squared steps along axis a
    + volume x sum of squared divergences + correlation x sum of 1 - cc^2."""

    data: float
    smooth: tuple[float, ...]
    volume: float = 0.0
    correlation: float = 0.0


class Inputs(NamedTuple):
    """What one pair compares, as arrays."""

    features: tuple[Array, Array] | None
    """(I, J, K, C) of the fixed and of the moving image."""
    images: tuple[Array, Array] | None
    """(I, J, K), fixed and moving."""
    weight: Array | None
    """(I, J, K), or None for 1 everywhere."""
    factors: Factors
    origin: tuple[int, ...] = (0, 0, 0)
    """Voxel of the moving image at which the fixed one, the weight and the displacement begin."""

    @staticmethod
    def of(compared: Compared, disp_vox: Tensor, config: RefineConfig) -> "Inputs":
        """The inputs for a batch of one pair."""
        features, images, weight = compared
        channels = 1 if features is None else features[0].shape[1]
        data, smooth, volume = energy_factors(channels, disp_vox, config, weight)
        correlation = 0.0 if images is None else float(correlation_factor(disp_vox, weight))
        return Inputs(
            None if features is None else (_channels_last(features[0]), _channels_last(features[1])),
            None if images is None else (_channels_last(images[0])[..., 0], _channels_last(images[1])[..., 0]),
            None if weight is None else weight[0, 0].detach().contiguous().numpy(),
            Factors(float(data), smooth, volume, correlation),
        )

    def within(self, box: tuple[slice, ...]) -> "Inputs":
        """The inputs of a box of the fixed image, of the same energy: the factors stay those of the whole."""
        features, images, weight, factors, _ = self
        return Inputs(
            None if features is None else (np.ascontiguousarray(features[0][box]), features[1]),
            None if images is None else (np.ascontiguousarray(images[0][box]), images[1]),
            None if weight is None else np.ascontiguousarray(weight[box]),
            factors,
            tuple(side.start for side in box),
        )


def _channels_last(volume: Tensor) -> Array:
    return volume[0].detach().permute(1, 2, 3, 0).contiguous().numpy()
