"""Sample volumes at positions. The only caller of `grid_sample`, and the only place that knows its axis order.

Legend: B batch, C channels, I J K voxel axes of the sampled volume, X Y Z voxel axes of the output.
Coordinates are voxel centres 0..N-1 in array axis order, channel a along array axis a.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor
from torch.nn import functional

from corereg.geometry.grid import Matrix
from corereg.geometry.kernels.dispatch import use_kernels, use_triton

__all__ = ["affine_coords", "identity_coords", "inside", "sample", "sample_labels", "warp", "warp_labels"]


def identity_coords(shape: Sequence[int], *, like: Tensor) -> Float[Tensor, "1 3 X Y Z"]:
    """Voxel coordinates of every voxel of a grid of `shape`, with the device and type of `like`."""
    axes = [torch.arange(n, device=like.device, dtype=like.dtype) for n in shape]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"))[None]


def affine_coords(shape: Sequence[int], matrix: Matrix, *, like: Tensor) -> Float[Tensor, "1 3 X Y Z"]:
    """Where a 4x4 matrix sends every voxel of a grid of `shape`, computed axis by axis to save memory."""
    i, j, k = (torch.arange(n, device=like.device, dtype=torch.float64) for n in shape)
    matrix_t = torch.as_tensor(np.array(matrix), device=like.device)
    offset = matrix_t[:3, 3].view(3, 1, 1, 1)
    columns = matrix_t[:3, :3].view(3, 3, 1, 1, 1)
    along_i, along_jk = columns[:, 0] * i.view(-1, 1, 1), columns[:, 1] * j.view(-1, 1) + columns[:, 2] * k
    return (along_i.to(like.dtype) + (along_jk + offset).to(like.dtype))[None]


def _vox_to_grid_sample(coords_vox: Tensor, shape: Sequence[int]) -> Tensor:
    """Voxel coordinates (B, 3, X, Y, Z) as `grid_sample` takes them: [-1, 1], axes reversed (here and nowhere else)."""
    last = coords_vox.new_tensor([max(n - 1, 1) for n in shape]).view(1, 3, 1, 1, 1)
    return (2 * coords_vox / last - 1).flip(1).permute(0, 2, 3, 4, 1).contiguous()


def inside(coords_vox: Float[Tensor, "B 3 X Y Z"], shape: Sequence[int]) -> Shaped[Tensor, "B 1 X Y Z"]:
    """True where a position lies in the volume, including the half voxel around the outer centres (as in ITK)."""
    last = coords_vox.new_tensor(shape).view(1, 3, 1, 1, 1) - 0.5
    return ((coords_vox >= -0.5) & (coords_vox <= last)).all(1, keepdim=True)


def sample(
    volume: Float[Tensor, "B C I J K"], coords_vox: Float[Tensor, "B 3 X Y Z"], *, outside: float | None = None
) -> Float[Tensor, "B C X Y Z"]:
    """Trilinear interpolation of a volume at voxel coordinates.

    Args:
        outside: value for positions more than half a voxel beyond the volume; None holds the edge value.
    """
    if use_kernels(volume, coords_vox):
        from corereg.geometry.kernels import sample as kernels_sample

        return kernels_sample.sample(volume, coords_vox, from_identity=False, outside=outside)
    if use_triton(volume, coords_vox):
        from corereg.geometry.kernels import cuda as kernels_cuda

        return kernels_cuda.pull(volume, coords_vox, from_identity=False, outside=outside)
    grid = _vox_to_grid_sample(coords_vox, volume.shape[2:])
    values = functional.grid_sample(volume, grid, mode="bilinear", padding_mode="border", align_corners=True)
    return values if outside is None else torch.where(inside(coords_vox, volume.shape[2:]), values, outside)


def sample_labels(
    labels: Shaped[Tensor, "I J K"], coords_vox: Float[Tensor, "1 3 X Y Z"], *, outside: int = 0
) -> Shaped[Tensor, "X Y Z"]:
    """Nearest label: the one at floor(p + 0.5), and `outside` where p < -0.5 or p >= N - 0.5.

    An integer gather, since `grid_sample(mode="nearest")` rounds ties to even and differs on some devices.
    """
    index = torch.floor(coords_vox[0] + 0.5).long()
    last = index.new_tensor(labels.shape).view(3, 1, 1, 1)
    valid = ((index >= 0) & (index < last)).all(0)
    i, j, k = index.clamp(min=0).minimum(last - 1)
    return torch.where(valid, labels[i, j, k], outside)


def warp(
    volume: Float[Tensor, "B C I J K"], disp_vox: Float[Tensor, "B 3 I J K"], *, outside: float | None = None
) -> Float[Tensor, "B C I J K"]:
    """Pull-back: warped(x) = volume(x + u(x)) for every voxel x, linearly interpolated."""
    if use_kernels(volume, disp_vox):
        from corereg.geometry.kernels import sample as kernels_sample

        return kernels_sample.sample(volume, disp_vox, from_identity=True, outside=outside)
    if use_triton(volume, disp_vox):
        from corereg.geometry.kernels import cuda as kernels_cuda

        return kernels_cuda.pull(volume, disp_vox, from_identity=True, outside=outside)
    return sample(volume, identity_coords(volume.shape[2:], like=disp_vox) + disp_vox, outside=outside)


def warp_labels(labels: Shaped[Tensor, "I J K"], disp_vox: Float[Tensor, "1 3 I J K"]) -> Shaped[Tensor, "I J K"]:
    """Pull-back of a label map by nearest neighbour, which creates no new labels."""
    return sample_labels(labels, identity_coords(labels.shape, like=disp_vox) + disp_vox)
