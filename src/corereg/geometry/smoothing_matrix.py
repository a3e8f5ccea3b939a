"""The matrix that smooths a line of voxels: repeated means of neighbours, with wider ones mixed in if so wanted.

Downstream: strided, and the compiled filters of the CPU and of CUDA.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

__all__ = ["mean_matrix", "smoothing_matrix"]

WIDE_MEANS, WIDE_SHARE = 2, 0.6
"""How many wider means there are in a row, and their share of the sum: benchmarks/history/refine-speed.md."""


@lru_cache(maxsize=16)
def smoothing_matrix(size: int, times: int, reach: int = 0) -> NDArray[np.float64]:
    """The smoothing of a line of voxels, (size, size); each row sums to 1.

    Args:
        times: how many means of 3 neighbours there are in a row.
        reach: radius in voxels of the wider means, which then take `WIDE_SHARE` of the sum; 0 leaves them out.
    """
    near = np.linalg.matrix_power(mean_matrix(size, 1), times)
    if not reach:
        return near
    wide = np.linalg.matrix_power(mean_matrix(size, reach), WIDE_MEANS)
    return np.asarray(WIDE_SHARE * wide + (1 - WIDE_SHARE) * near)


def mean_matrix(size: int, radius: int) -> NDArray[np.float64]:
    """Means over the up to 2 * radius + 1 voxels that exist around each, (size, size)."""
    near = np.abs(np.subtract.outer(np.arange(size), np.arange(size))) <= radius
    return np.asarray(near / near.sum(1, keepdims=True))
