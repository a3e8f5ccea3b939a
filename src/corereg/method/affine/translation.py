"""The translation at which two scans look most alike, by masked normalised cross-correlation over all shifts at once.

Finds where one field of view lies within another, which neither centres nor local optimisers can. Both scans must be of
one modality.
Source: Padfield, "Masked object registration in the Fourier domain", IEEE TIP 2012.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from corereg.geometry.grid import Grid
from corereg.geometry.warp import affine_coords, inside, sample
from corereg.method.affine.smoothing import gaussian

__all__ = ["best_translation"]

SPACING_MM = 8.0
LEAST_OVERLAP = 0.35
"""Share of the smaller field of view that must be covered; with less, a sliver of air could match a sliver of air."""

SMOOTHING = 0.4
"""Standard deviation in correlation voxels, against aliasing."""


def best_translation(
    fixed: NDArray[np.float32], fixed_grid: Grid, moving: NDArray[np.float32], moving_grid: Grid
) -> NDArray[np.float64]:
    """Shift (3,), RAS+ millimetres, from the fixed image's world to the moving image's.

    Args:
        fixed, moving: (I, J, K), intensities of one modality on a common scale.
    """
    first_grid, first, first_mask = _on_world_axes(fixed, fixed_grid)
    second_grid, second, second_mask = _on_world_axes(moving, moving_grid)
    shape = [_smooth_number(a + b - 1) for a, b in zip(first.shape, second.shape, strict=True)]

    def spectrum(volume: NDArray[np.float32]) -> Tensor:
        found: Tensor = torch.fft.rfftn(torch.from_numpy(volume), shape)
        return found

    f, ff, mf = spectrum(first), spectrum(first**2), spectrum(first_mask)
    m, mm, ms = spectrum(second), spectrum(second**2), spectrum(second_mask)

    def correlate(a: Tensor, b: Tensor) -> NDArray[np.float64]:
        return np.asarray(torch.fft.irfftn(a.conj() * b, shape).double().numpy())

    count = np.maximum(correlate(mf, ms), 1.0)
    sum_f, sum_m = correlate(f, ms), correlate(mf, m)
    covariance = correlate(f, m) - sum_f * sum_m / count
    variance_f = np.maximum(correlate(ff, ms) - sum_f**2 / count, 0)
    variance_m = np.maximum(correlate(mf, mm) - sum_m**2 / count, 0)
    deviation = np.sqrt(variance_f * variance_m)
    usable = count > LEAST_OVERLAP * min(first_mask.sum(), second_mask.sum())
    usable &= deviation > 1e-3 * deviation.max()
    score = np.where(usable, covariance / np.where(usable, deviation, 1), -np.inf)
    shift = np.array(np.unravel_index(int(np.argmax(score)), score.shape))
    shift = np.where(shift >= second.shape, shift - shape, shift)
    return np.asarray(second_grid.affine[:3, 3] + shift * SPACING_MM - first_grid.affine[:3, 3])


def _on_world_axes(array: NDArray[np.float32], grid: Grid) -> tuple[Grid, NDArray[np.float32], NDArray[np.float32]]:
    """The volume on a coarse grid along the world's axes (0 outside its field of view), and a mask of its data."""
    corners = grid.corners_mm()
    affine = np.diag([SPACING_MM, SPACING_MM, SPACING_MM, 1.0])
    affine[:3, 3] = corners.min(0) + SPACING_MM / 2
    i, j, k = (max(1, int(np.ceil(n))) for n in (corners.max(0) - corners.min(0)) / SPACING_MM)
    world = Grid((i, j, k), affine)
    sigma = [SMOOTHING * SPACING_MM / s for s in grid.spacing]
    volume = torch.from_numpy(gaussian(array, sigma))[None, None]
    coords = affine_coords(world.shape, world.to_voxels_of(grid), like=volume)
    mask = inside(coords, grid.shape).to(volume)
    return world, (sample(volume, coords) * mask)[0, 0].numpy(), mask[0, 0].numpy()


def _smooth_number(least: int) -> int:
    """The next number without a prime factor above 5, for which the Fourier transform is fast."""
    while True:
        left = least
        for prime in (2, 3, 5):
            while left % prime == 0:
                left //= prime
        if left == 1:
            return least
        least += 1
