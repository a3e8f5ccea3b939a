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

from corereg.geometry.grid import Matrix
from corereg.geometry.resample import resample
from corereg.geometry.strided import window_mean
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
    share_counted = window_mean(counted, WINDOW)
    inside = share_counted > MOST
    if int(inside.sum()) < FEWEST_WINDOWS:
        return None
    scale = inside / share_counted.clamp(min=MOST)

    def mean(values: Tensor) -> Tensor:
        return window_mean(counted * values, WINDOW).mul_(scale)

    mean_f, mean_w = mean(fixed), mean(warped)
    variance_f = mean(fixed * fixed).addcmul_(mean_f, mean_f, value=-1).clamp_(min=0)
    variance_w = mean(warped * warped).addcmul_(mean_w, mean_w, value=-1).clamp_(min=0)
    squared = mean(fixed * warped).addcmul_(mean_f, mean_w, value=-1).square_()

    def share(own: Tensor, other: Tensor) -> float:
        explained, all_of_it = (float(t.sum(dtype=torch.float64)) for t in (squared / (other + TINY), own))
        return min(explained / max(all_of_it, TINY), 1.0)

    return share(variance_f, variance_w), share(variance_w, variance_f)
