"""How well the images agree in detail under an affine map: what decides between maps of different freedom.

Mutual information counts how values go together anywhere; large regions without content, such as air or the padding of
a resampled scan, weigh most in it. Local agreement compares the contrast within small windows, where these count
nothing. Upstream: `coarse_copies`. Downstream: `align`, `similarity`.
"""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import avg_pool3d

from corereg.geometry.grid import Matrix
from corereg.geometry.resample import resample
from corereg.method.affine.coarse_copies import CoarseCopy

__all__ = ["WINDOW", "Agreement", "explained_shares", "local_agreement"]

WINDOW = 5
"""Width in voxels of the windows that are compared."""
FEWEST_WINDOWS = 500
"""With fewer windows to compare, nothing is said."""
MOST = 0.6
"""Share of a window whose voxels must count for the window to count."""
TINY = 1e-6
"""Added to variances, in the square of scaled intensities."""


class Agreement(NamedTuple):
    """What two images have in common."""

    odds: float
    """Explained over unexplained local variance of one image, given the other. Of the two directions, the better one
    counts; minus infinity if too little can be compared."""
    compared: float
    """Share of the fixed image that counts in both."""


def local_agreement(fixed: CoarseCopy, moving: CoarseCopy, matrix: Matrix) -> Agreement:
    """Compare two images under a map, in windows of the fixed one.

    Args:
        matrix: (4, 4), from the fixed image's world to the moving image's.
    """

    def there(volume: NDArray[np.float32]) -> Tensor:
        return _volume(resample(volume, moving.grid, fixed.grid, (matrix,), interpolation="linear", outside=0.0))

    known = np.ones(moving.grid.shape, np.float32) if moving.mask is None else moving.mask.astype(np.float32)
    counted = (there(known) > 0.5).float()
    if fixed.mask is not None:
        counted = counted * _volume(fixed.mask)
    shares = explained_shares(_volume(fixed.array), there(moving.array), counted)
    odds = -np.inf if shares is None else max(shares) / max(1 - max(shares), TINY)
    return Agreement(odds, float(counted.mean()))


def _volume(array: NDArray[np.float32] | NDArray[np.bool_]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array, np.float32))[None, None]


def explained_shares(fixed: Tensor, warped: Tensor, counted: Tensor) -> tuple[float, float] | None:
    """Share of each image's local variance that lines through the values of the other explain; None if too few windows
    count.

    Args:
        fixed, warped, counted: (1, 1, I, J, K); voxels count where the last is 1, and not where it is 0.
    """
    if min(counted.shape[2:]) < WINDOW:
        return None
    share_counted = _mean(counted)
    inside = share_counted > MOST
    if int(inside.sum()) < FEWEST_WINDOWS:
        return None
    size = share_counted[inside].double()

    def mean(values: Tensor) -> Tensor:
        return _mean(counted * values)[inside].double() / size

    mean_f, mean_w = mean(fixed), mean(warped)
    variance_f = (mean(fixed * fixed) - mean_f * mean_f).clamp(min=0)
    variance_w = (mean(warped * warped) - mean_w * mean_w).clamp(min=0)
    squared = (mean(fixed * warped) - mean_f * mean_w) ** 2

    def share(own: Tensor, other: Tensor) -> float:
        return min(float((squared / (other + TINY)).sum()) / max(float(own.sum()), TINY), 1.0)

    return share(variance_f, variance_w), share(variance_w, variance_f)


def _mean(volume: Tensor) -> Tensor:
    for axis in range(3):
        volume = avg_pool3d(volume, [WINDOW if a == axis else 1 for a in range(3)], stride=1)
    return volume
