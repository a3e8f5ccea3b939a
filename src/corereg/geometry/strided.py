"""Move volumes between a grid and its strided grids, and smooth them without border effects.

Point i of a grid with stride s lies on voxel s * i. Upsampling interpolates the value of fine voxel x at x / s, and
holds it constant beyond the last coarse point.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Shaped
from torch import Tensor
from torch.nn import functional

from corereg.geometry.kernels.dispatch import use_kernels, use_triton
from corereg.geometry.smoothing_matrix import smoothing_matrix

__all__ = ["box_mean", "halve", "strided_shape", "subsample", "upsample", "window_mean"]


def strided_shape(shape: Sequence[int], stride: int) -> tuple[int, int, int]:
    """Shape of the grid of every `stride`-th voxel."""
    i, j, k = (-(-n // stride) for n in shape)
    return i, j, k


def box_mean(volume: Float[Tensor, "B C I J K"], *, times: int = 1, reach: int = 0) -> Float[Tensor, "B C I J K"]:
    """Repeated 3x3x3 mean over the voxels that exist: the border is normalised, not padded.

    Args:
        reach: mix wider means in along each axis, of 2 * reach + 1 voxels (see `smoothing_matrix`); 0 does not.
    """
    if (times or reach) and use_kernels(volume):
        from corereg.geometry.kernels import filter as kernels_filter

        return kernels_filter.box_mean(volume, times, reach)
    if (times or reach) and use_triton(volume):
        from corereg.geometry.kernels import cuda as kernels_cuda

        return kernels_cuda.box_mean(volume, times, reach)
    if reach:
        for axis in (2, 3, 4):
            matrix = torch.from_numpy(smoothing_matrix(volume.shape[axis], times, reach)).to(volume)
            volume = (volume.movedim(axis, -1) @ matrix.T).movedim(-1, axis)
        return volume
    for _ in range(times):
        volume = functional.avg_pool3d(volume, 3, stride=1, padding=1, count_include_pad=False)
    return volume


def window_mean(volume: Float[Tensor, "B C I J K"], width: int) -> Float[Tensor, "B C X Y Z"]:
    """Means of the windows of width^3 voxels that lie within the volume, in the order of their first voxels."""
    for axis in (2, 3, 4):
        size = volume.shape[axis] - width + 1
        # Sums of shifted copies take a tenth of the time of PyTorch's pooling, which does not vectorise.
        total = volume.narrow(axis, 0, size).clone()
        for first in range(1, width):
            total += volume.narrow(axis, first, size)
        volume = total
    return volume / width**3


def upsample(volume: Float[Tensor, "B C I J K"], factor: int, shape: Sequence[int]) -> Float[Tensor, "B C X Y Z"]:
    """Linear interpolation of a strided volume at every voxel of the `factor` times finer grid of `shape`.

    Values are not rescaled; for a displacement use `upsample_displacement`.
    """
    if use_kernels(volume):
        from corereg.geometry.kernels import filter as kernels_filter

        return kernels_filter.upsample(volume, ((factor, tuple(shape)),))
    for axis, size in enumerate(shape, start=2):
        position = torch.arange(size, device=volume.device, dtype=volume.dtype) / factor
        low = position.long().clamp(max=volume.shape[axis] - 1)
        high = (low + 1).clamp(max=volume.shape[axis] - 1)
        weight = (position - low).view([-1 if a == axis else 1 for a in range(5)])
        volume = torch.lerp(volume.index_select(axis, low), volume.index_select(axis, high), weight)
    return volume


def halve(volume: Float[Tensor, "B C I J K"]) -> Float[Tensor, "B C X Y Z"]:
    """The 3x3x3 mean over the voxels that exist, at every second voxel."""
    return functional.avg_pool3d(volume, 3, stride=2, padding=1, count_include_pad=False)


def subsample(volume: Shaped[Tensor, "B C I J K"], factor: int) -> Shaped[Tensor, "B C X Y Z"]:
    """Every `factor`-th voxel, starting at the first."""
    return volume[:, :, ::factor, ::factor, ::factor]
