"""Compiled CPU kernels of the local correlation of two images: its sum, and the force on the warped image's values.

A step warps the moving image, takes three window means (of the warped image w, w^2 and f w), turns them into three
coefficients per voxel, and spreads these by the adjoint of the window mean. With the coefficients

    p = 2 (c + n) / ((v_f + n) (v_w + n)),    q = p (c + n) / (v_w + n)

and A the adjoint, the derivative of the sum of 1 - cc^2 by w(x) is A(p m_f - q m_w) + w A(q) - f A(p).

Legend: as in `correlation`; I J K axes of the grid. Arrays are flat float32. Used by `kernels_cpu`.
"""
# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from corereg.geometry.kernels.filter import Band, apply_bands, window_band
from corereg.geometry.kernels.threads import kernel, run_slabs
from corereg.method.refine.correlation import NOISE, RADIUS

__all__ = ["Correlation", "add_force_pull", "correlation_force"]

Array = NDArray[np.float32]
U, F = np.uint64, np.float32
"""Types of offsets and values. Unsigned offsets into flat arrays spare every inner loop a test for negative ones."""


class Correlation(NamedTuple):
    """What stays the same from step to step, and the work space of a step."""

    fixed: Array
    moving: Array
    fixed_mean: Array
    fixed_variance: Array
    """With the noise floor added."""
    shape: tuple[int, ...]
    windows: tuple[Band, Band, Band]
    adjoint: tuple[Band, Band, Band]
    slopes: Array
    """(3, I, J, K), derivatives of the moving image at its sampling positions, written by each step."""
    work: tuple[Array, Array, Array, Array]
    """Two of (3, I, J, K) and two of (I * J * K): fresh memory at each step would cost as much as its arithmetic."""

    @staticmethod
    def of(fixed: Array, moving: Array, *, radius: int = RADIUS) -> "Correlation":
        """Prepare two images (I, J, K)."""
        windows, adjoint = (_bands(fixed.shape, radius, adjoint=turned) for turned in (False, True))
        mean, square = apply_bands(np.stack([fixed, fixed * fixed]), windows)
        variance = np.maximum(square - mean * mean, 0) + np.float32(NOISE)
        slopes = np.empty(3 * fixed.size, np.float32)
        products, filtered = np.empty((3, *fixed.shape), np.float32), np.empty((3, *fixed.shape), np.float32)
        warped, force = np.empty(fixed.size, np.float32), np.empty(fixed.size, np.float32)
        return Correlation(
            fixed.reshape(-1),
            moving.reshape(-1),
            mean.reshape(-1),
            variance.reshape(-1),
            fixed.shape,
            windows,
            adjoint,
            slopes,
            (products, filtered, warped, force),
        )


def _bands(shape: tuple[int, ...], radius: int, *, adjoint: bool) -> tuple[Band, Band, Band]:
    i, j, k = (window_band(n, radius, adjoint=adjoint) for n in shape)
    return i, j, k


def correlation_force(data: Correlation, disp: Array, mask: Array, factor: float) -> tuple[NDArray[np.float64], Array]:
    """Sum of 1 - cc^2 over each plane's voxels, weighted by the mask, and `factor` x its derivative by the values of
    the warped image, (I * J * K), which the next call overwrites."""
    shape = data.shape
    volumes, filtered, warped, force = data.work
    flat, means = volumes.reshape(3, -1), filtered.reshape(3, -1)
    run_slabs(_warp_planes, shape[0], data.moving, data.fixed, disp, flat, data.slopes, shape)
    warped[:] = flat[0]
    sums = np.empty(shape[0])
    apply_bands(volumes, data.windows, out=filtered)
    given = data.fixed_mean, data.fixed_variance, F(NOISE), mask
    run_slabs(_coefficient_planes, shape[0], means, given, flat, sums, shape)
    apply_bands(volumes, data.adjoint, out=filtered)
    run_slabs(_force_planes, shape[0], means, data.fixed, warped, F(factor), force, shape)
    return sums, force


@kernel
def add_force_pull(force, slopes, gradient, shape, i):
    """Add to the gradient's plane i, (3, J, K), the force along the slopes of the warped image."""
    plane = U(shape[1]) * U(shape[2])
    for a in range(U(3)):
        at = (a * U(shape[0]) + i) * plane
        for n in range(plane):
            gradient[a * plane + n] += force[i * plane + n] * slopes[at + n]


@kernel
def _warp_planes(moving, fixed, disp, products, slopes, shape, first, last):
    """The warped image, its square and its product with the fixed image; and its slopes, 0 where it is held constant
    beyond the edge."""
    size_i, size_j, size_k = U(shape[0]), U(shape[1]), U(shape[2])
    plane = size_j * size_k
    volume = size_i * plane
    last_i, last_j, last_k = F(shape[0] - 1), F(shape[1] - 1), F(shape[2] - 1)
    cells_i, cells_j, cells_k = np.int32(shape[0] - 2), np.int32(shape[1] - 2), np.int32(shape[2] - 2)
    for i in range(U(first), U(last)):
        for j in range(size_j):
            line = i * plane + j * size_k
            for k in range(size_k):
                at = line + k
                x, y, z = F(i) + disp[at], F(j) + disp[at + volume], F(k) + disp[at + volume + volume]
                free_i = F(1) if (x > 0) & (x < last_i) else F(0)
                free_j = F(1) if (y > 0) & (y < last_j) else F(0)
                free_k = F(1) if (z > 0) & (z < last_k) else F(0)
                # The order of the comparisons sends NaN to 0.
                x = min(x, last_i) if x > 0 else F(0)
                y = min(y, last_j) if y > 0 else F(0)
                z = min(z, last_k) if z > 0 else F(0)
                a, b, c = min(np.int32(x), cells_i), min(np.int32(y), cells_j), min(np.int32(z), cells_k)
                u, v, w = x - F(a), y - F(b), z - F(c)
                n000 = (U(a) * size_j + U(b)) * size_k + U(c)
                n010, n100, n110 = n000 + size_k, n000 + plane, n000 + plane + size_k
                v000, v001, v010, v011 = moving[n000], moving[n000 + U(1)], moving[n010], moving[n010 + U(1)]
                v100, v101, v110, v111 = moving[n100], moving[n100 + U(1)], moving[n110], moving[n110 + U(1)]
                step00, step01, step10, step11 = v001 - v000, v011 - v010, v101 - v100, v111 - v110
                line00, line01 = v000 + w * step00, v010 + w * step01
                line10, line11 = v100 + w * step10, v110 + w * step11
                plane0, plane1 = line00 + v * (line01 - line00), line10 + v * (line11 - line10)
                value = plane0 + u * (plane1 - plane0)
                slopes[at] = free_i * (plane1 - plane0)
                slopes[at + volume] = free_j * ((F(1) - u) * (line01 - line00) + u * (line11 - line10))
                along0, along1 = step00 + v * (step01 - step00), step10 + v * (step11 - step10)
                slopes[at + volume + volume] = free_k * (along0 + u * (along1 - along0))
                products[0, at] = value
                products[1, at] = value * value
                products[2, at] = value * fixed[at]


@kernel
def _coefficient_planes(means, given, out, sums, shape, first, last):
    fixed_mean, fixed_variance, noise, mask = given
    plane = U(shape[1]) * U(shape[2])
    for i in range(U(first), U(last)):
        total = F(0)
        for at in range(i * plane, (i + U(1)) * plane):
            mean = means[0, at]
            variance = max(means[1, at] - mean * mean, F(0)) + noise
            covariance = means[2, at] - fixed_mean[at] * mean + noise
            weight = mask[at] if mask.size else F(1)
            ratio = covariance / (fixed_variance[at] * variance)
            square = covariance * ratio
            total += weight * (F(1) - square)
            p, q = F(2) * weight * ratio, F(2) * weight * square / variance
            out[0, at] = p
            out[1, at] = q
            out[2, at] = p * fixed_mean[at] - q * mean
        sums[i] = total


@kernel
def _force_planes(spread, fixed, warped, factor, force, shape, first, last):
    plane = U(shape[1]) * U(shape[2])
    for at in range(U(first) * plane, U(last) * plane):
        force[at] = factor * (spread[2, at] + warped[at] * spread[1, at] - fixed[at] * spread[0, at])
