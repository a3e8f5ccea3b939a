"""Stage 2 of 4: features of two images -> cost of each candidate displacement. Downstream: coupled_convex.

Legend: B batch, C channels, L candidates, I J K axes of the feature grid.
"""

from itertools import product

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from corereg.geometry.resample import box_mean

__all__ = ["candidates_vox", "cost_volume"]


def candidates_vox(radius: int, *, like: Tensor) -> Float[Tensor, "L 3"]:
    """All integer displacements with components up to the radius, in voxels of the feature grid, (i, j, k) order."""
    return torch.tensor(list(product(range(-radius, radius + 1), repeat=3)), dtype=like.dtype, device=like.device)


def cost_volume(
    fixed_features: Float[Tensor, "B C I J K"], moving_features: Float[Tensor, "B C I J K"], *, radius: int
) -> Float[Tensor, "B L I J K"]:
    """c(x, d) = 3x3x3 mean over x of sum over channels |f(x) - m(x + d)|; outside its grid m is held constant."""
    i, j, k = fixed_features.shape[2:]
    padded = functional.pad(moving_features, (radius,) * 6, mode="replicate")
    costs = [
        (fixed_features - padded[:, :, a : a + i, b : b + j, c : c + k]).abs().sum(1)
        for a, b, c in product(range(2 * radius + 1), repeat=3)
    ]
    return box_mean(torch.stack(costs, 1))
