"""Features as 16-bit integers for the compiled CPU kernels: half the size of float32, exact to 1/65534 of their range.

Legend: C channels, I J K axes; channels are last.
"""
# mypy: disable-error-code="no-untyped-def, no-untyped-call"

import numpy as np
import torch
from numpy.typing import NDArray

from corereg.errors import InputError
from corereg.geometry.kernels.simd import LANES
from corereg.geometry.kernels.threads import kernel, run_slabs

__all__ = ["Integers", "as_integers", "padded_channels"]

Integers = NDArray[np.int16]
LARGEST = np.iinfo(np.int16).max
LARGEST_FEATURE = 1e9
"""The sum of squares of larger ones could overflow."""
U = np.uint64
"""Type of offsets into flat arrays: unsigned ones need no test for negative values, so the inner loops vectorise."""


def padded_channels(count: int) -> tuple[int, ...]:
    """One entry per channel, padding included: `as_integers` pads the channels to whole vectors."""
    return (0,) * (-(-count // LANES) * LANES)


def as_integers(fixed: NDArray[np.float32], moving: NDArray[np.float32]) -> tuple[tuple[Integers, Integers], float]:
    """Features (I, J, K, C) of two images as multiples of one unit, and that unit. The results are flat, with C padded
    with zeros to whole vectors.

    Raises:
        InputError: a feature is NaN, infinite or absurdly large.
    """
    extremes = [extreme for f in (fixed, moving) for extreme in torch.from_numpy(f).aminmax()]
    largest = float(torch.stack(extremes).abs().max())
    if not largest <= LARGEST_FEATURE:  # true for NaN
        raise InputError(
            f"got network features up to {largest:.3g}, expected finite values of moderate size; the weights are "
            "damaged, so fetch the model again or retrain it"
        )
    unit = largest / LARGEST if largest else 1.0
    return (_in_units(fixed, unit), _in_units(moving, unit)), unit


def _in_units(features: NDArray[np.float32], unit: float) -> Integers:
    given = features.shape[3]
    voxels, padded = features.size // given, len(padded_channels(given))
    # Torch's memory starts on a cache line, so no voxel's features span more lines than they need.
    counted: Integers = torch.empty(voxels * padded, dtype=torch.int16).numpy()
    run_slabs(_count_units, voxels, features.reshape(-1), np.float32(1 / unit), (given, padded), counted)
    return counted


@kernel
def _count_units(features, per_unit, counts, out, first, last):
    given, padded = U(counts[0]), U(counts[1])
    for voxel in range(U(first), U(last)):
        at, to = voxel * given, voxel * padded
        for c in range(given):
            out[to + c] = np.int16(np.rint(features[at + c] * per_unit))
        out[to + given : to + padded] = 0
