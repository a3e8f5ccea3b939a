"""What both images of a pair show: beyond it, both are held constant.

Anatomy that one image alone shows makes the features near the edge of the other image differ, although the images agree
there. On a slab of a few slices that is every feature.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from corereg.geometry.grid import Grid, Matrix
from corereg.geometry.positions import inverse_matrix
from corereg.geometry.warp import affine_coords, sample

__all__ = ["hold_beyond_common_view"]

TOLERANCE_VOX = 1e-3
"""Positions this far beyond the outermost voxel centres count as inside, because coordinates are rounded."""


def hold_beyond_common_view(
    volumes: Sequence[Tensor], working: Grid, views: Sequence[tuple[Grid, Matrix | None]]
) -> list[Tensor]:
    """Volumes (1, 1, I, J, K) on the working grid whose values beyond the common view are those at its edge.

    Args:
        views: grid of each of the two images, and (4, 4) from the working grid's world to the image's.
    """
    (fixed, fixed_affine), (moving, moving_affine) = views
    if fixed == moving and fixed_affine is None and moving_affine is None:
        return list(volumes)  # resampling already holds them constant
    like = volumes[0]
    to_views: list[Matrix] = [
        grid.inverse_affine @ (working.affine if m is None else m @ working.affine) for grid, m in views
    ]
    shown = torch.ones_like(like, dtype=torch.bool)
    for (grid, _), to_view in zip(views, to_views, strict=True):
        coords = affine_coords(working.shape, to_view, like=like)
        last = coords.new_tensor(grid.shape).view(1, 3, 1, 1, 1) - 1
        shown &= ((coords >= -TOLERANCE_VOX) & (coords <= last + TOLERANCE_VOX)).all(1, keepdim=True)
    beyond = (~shown[0, 0]).nonzero()
    if len(beyond) == 0:
        return list(volumes)
    position, placed = beyond.T.double(), np.eye(4)
    # Onto each view in turn. The first is visited again, because the second may have led out of it.
    for n in (0, 1, 0):
        last = torch.tensor(views[n][0].shape, device=like.device)[:, None] - 1.0
        position = _moved(to_views[n] @ placed, position).clamp_(min=0).minimum(last)
        placed = inverse_matrix(to_views[n])
    coords = _moved(placed, position).to(like.dtype)[None, :, :, None, None]
    return [_replaced(volume, beyond, sample(volume, coords)[0, 0, :, 0, 0]) for volume in volumes]


def _moved(matrix: Matrix, points: Tensor) -> Tensor:
    """Apply a matrix (4, 4) to points (3, N) in float64."""
    affine = torch.from_numpy(matrix).to(points)
    return torch.addmm(affine[:3, 3:], affine[:3, :3], points)


def _replaced(volume: Tensor, voxels: Tensor, values: Tensor) -> Tensor:
    changed = volume.clone()
    changed[0, 0][tuple(voxels.T)] = values
    return changed
