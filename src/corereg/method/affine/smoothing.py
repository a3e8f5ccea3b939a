"""Smooth a volume with a Gaussian. Downstream: `mutual_information`, `translation`."""

from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

from corereg.geometry.kernels.dispatch import use_kernels

__all__ = ["gaussian"]

TRUNCATE = 3.0
"""Reach of the Gaussian, in standard deviations."""


def gaussian(volume: NDArray[np.float32], deviations: Sequence[float]) -> NDArray[np.float32]:
    """The volume (I, J, K) smoothed; beyond the border it continues with its outermost values.

    Args:
        deviations: standard deviation along each axis, in voxels.
    """
    sizes = tuple((n, round(float(d), 6)) for n, d in zip(volume.shape, deviations, strict=True))
    if use_kernels():
        from corereg.geometry.kernels.filter import apply_bands, band

        i, j, k = (band(_matrix(*size)) for size in sizes)
        return np.asarray(apply_bands(np.ascontiguousarray(volume, dtype=np.float32)[None], (i, j, k))[0])
    for axis, size in enumerate(sizes):
        volume = np.moveaxis(np.tensordot(_matrix(*size), volume, (1, axis)), 0, axis).astype(np.float32)
    return volume


@cache
def _matrix(size: int, deviation: float) -> NDArray[np.float64]:
    reach = int(TRUNCATE * deviation + 0.5)
    steps = np.arange(-reach, reach + 1)
    weights = np.exp(-0.5 * (steps / max(deviation, 1e-6)) ** 2)
    rows, columns = np.arange(size)[:, None], (np.arange(size)[:, None] + steps).clip(0, size - 1)
    matrix = np.zeros((size, size))
    np.add.at(matrix, (rows, columns), weights / weights.sum())
    return matrix
