"""Views of a pair: random affine maps with the exact transport of the pseudo-label, and where a view has data.

Affine maps send voxel coordinates of a view to voxel coordinates of the original: view(x) = image(A x). They are drawn
in coordinates that run from -1 to 1 along each axis, as the paper's strengths are, and handed out for the full grid;
`for_stride` gives the same map on a strided grid.

Legend: B batch, I J K axes of the grid at hand.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from corereg.geometry.displacement import Disp, transport_by_affines
from corereg.geometry.warp import affine_coords, inside, sample

__all__ = ["for_stride", "random_affine", "transport", "valid_region", "view"]

Affine = Float[Tensor, "4 4"]


def random_affine(
    strength: float, shape: Sequence[int], *, generator: torch.Generator, after: Affine | None = None
) -> Affine:
    """Identity plus N(0, strength) on all twelve entries, in coordinates from -1 to 1; float64 voxels of `shape`.

    Args:
        after: an affine in voxels of `shape` that is applied first.
    """
    normalised = torch.eye(4, dtype=torch.float64)
    normalised[:3] += strength * torch.randn(3, 4, dtype=torch.float64, generator=generator)
    to_vox = torch.eye(4, dtype=torch.float64)
    for axis, size in enumerate(shape):
        to_vox[axis, axis] = to_vox[axis, 3] = (size - 1) / 2
    drawn: Tensor = to_vox @ normalised @ torch.linalg.inv(to_vox)
    return drawn if after is None else drawn @ after


def for_stride(affine: Affine, stride: int) -> Affine:
    """The map in voxels of the grid of every `stride`-th voxel, offset 0."""
    scaled = affine.clone()
    scaled[:3, 3] /= stride
    return scaled


def view(images: Float[Tensor, "B 1 I J K"], affines: Sequence[Affine]) -> Float[Tensor, "B 1 I J K"]:
    """Each image resampled by its map, held constant beyond its edge."""
    return sample(images, _coords(images, affines))


def valid_region(images: Float[Tensor, "B 1 I J K"], affines: Sequence[Affine]) -> Bool[Tensor, "B 1 I J K"]:
    """Where a view shows the image and not what lies beyond its edge."""
    return inside(_coords(images, affines), images.shape[2:])


def _coords(images: Tensor, affines: Sequence[Affine]) -> Tensor:
    return torch.cat([affine_coords(images.shape[2:], affine.numpy(), like=images) for affine in affines])


def transport(
    pseudo_vox: Disp, fixed_affines: Sequence[Affine], moving_affines: Sequence[Affine], *, stride: int
) -> Disp:
    """The pseudo-labels of the augmented pairs, exactly: x + u'(x) = A2^-1(A1 x + u(A1 x)).

    Args:
        pseudo_vox: on the grid of this stride, in its voxels.
        fixed_affines, moving_affines: A1 and A2 of each pair, on the full grid.
    """
    moved = [
        transport_by_affines(u[None], for_stride(a1, stride), for_stride(a2, stride))
        for u, a1, a2 in zip(pseudo_vox, fixed_affines, moving_affines, strict=True)
    ]
    return torch.cat(moved)
