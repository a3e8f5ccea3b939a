"""Compiled CPU kernels of the local correlation of two images: its sum, and the force on the warped image's values.

A step makes three sweeps. The first warps the moving image and sums the warped image w, w^2 and f w over the part of
each window that lies in one plane. The second completes the window means, turns them into three coefficients per voxel,
and sums these within planes. The third, part of the gradient's, completes those sums. With the coefficients

    p = 2 (c + n) / ((v_f + n) (v_w + n)),    q = p (c + n) / (v_w + n)

and A the adjoint of the window mean, the derivative of the sum of 1 - cc^2 by w(x) is

    A(p m_f - q m_w) + w A(q) - f A(p).

A window mean is the window's sum over the number of voxels that exist, which is a product of one number per axis. Its
adjoint sums what has been divided by that number before. Sums start afresh at every voxel, so results do not depend on
how the volume is divided among threads.

Legend: as in `correlation`; I J K axes of the grid. Arrays are flat float32. Used by `kernels_cpu`.
"""
# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from corereg.geometry.kernels.filter import apply_bands, window_band
from corereg.geometry.kernels.threads import kernel, run_slabs
from corereg.method.refine.correlation import NOISE, RADIUS
from corereg.method.refine.inputs import Sampled
from corereg.method.refine.kernels_cpu_places import locate

__all__ = ["Correlation", "add_force_pull", "correlation_planes"]

Array = NDArray[np.float32]
U, F = np.uint64, np.float32
"""Types of offsets and values. Unsigned offsets into flat arrays spare every inner loop a test for negative ones."""

assert RADIUS == 2, "the kernels sum windows of five"


class Correlation(NamedTuple):
    """What stays the same from step to step, and the work space of a step."""

    fixed: Array
    moving: Array
    fixed_mean: Array
    fixed_variance: Array
    """With the noise floor added."""
    shape: tuple[int, ...]
    sampled: Sampled
    shares: tuple[Array, Array, Array]
    """1 / the number of voxels in the window, along each axis."""
    warped: Array
    slopes: Array
    """(3, I, J, K), derivatives of the moving image at its sampling positions."""
    spread: Array
    """(3, I * J * K), sums of the coefficients over the windows' parts in one plane."""

    @staticmethod
    def of(fixed: Array, moving: Array, origin: tuple[int, ...]) -> "Correlation":
        """Prepare a fixed image (I, J, K), which begins at voxel `origin` of the moving one's grid."""
        i, j, k = (window_band(n, RADIUS) for n in fixed.shape)
        mean, square = apply_bands(np.stack([fixed, fixed * fixed]), (i, j, k))
        variance = np.maximum(square - mean * mean, 0) + np.float32(NOISE)
        shares = _shares(fixed.shape[0]), _shares(fixed.shape[1]), _shares(fixed.shape[2])
        warped, slopes = np.empty(fixed.size, np.float32), np.empty(3 * fixed.size, np.float32)
        spread = np.empty((3, fixed.size), np.float32)
        return Correlation(
            fixed.reshape(-1), moving.reshape(-1), mean.reshape(-1), variance.reshape(-1), fixed.shape,
            (moving.shape, origin), shares, warped, slopes, spread,
        )  # fmt: skip


def _shares(size: int) -> Array:
    place = np.arange(size)
    count = np.minimum(place + RADIUS, size - 1) - np.maximum(place - RADIUS, 0) + 1
    return (1 / count).astype(np.float32)


def correlation_planes(data: Correlation, disp: Array, mask: Array, sums: Array) -> NDArray[np.float64]:
    """Sum of 1 - cc^2 over each plane's voxels, weighted by the mask. Leaves in `data` what `add_force_pull` takes.

    Args:
        sums: work space (3, I * J * K), for sums of the images over the windows' parts in one plane.
    """
    shape = data.shape
    energies = np.empty(shape[0])
    images = data.moving, data.fixed
    run_slabs(_warp_planes, shape[0], images, disp, data.warped, data.slopes, sums, shape, data.sampled)
    given = data.fixed_mean, data.fixed_variance, F(NOISE), mask
    run_slabs(_coefficient_planes, shape[0], sums, given, data.shares, data.spread, energies, shape)
    return energies


@kernel
def add_force_pull(force, factor, gradient, shape, i):
    """Add to the gradient's plane i, (3, J, K), the force on the warped image's values along its slopes."""
    spread, fixed, warped, slopes = force
    plane = U(shape[1]) * U(shape[2])
    volume = U(shape[0]) * plane
    at_p, at_q, at_r = np.empty(plane, np.float32), np.empty(plane, np.float32), np.empty(plane, np.float32)
    _sum_across(spread[0], at_p, shape, i)
    _sum_across(spread[1], at_q, shape, i)
    _sum_across(spread[2], at_r, shape, i)
    line = i * plane
    for n in range(plane):
        pull = factor * (at_r[n] + warped[line + n] * at_q[n] - fixed[line + n] * at_p[n])
        gradient[n] += pull * slopes[line + n]
        gradient[plane + n] += pull * slopes[line + volume + n]
        gradient[plane + plane + n] += pull * slopes[line + volume + volume + n]


@kernel
def _sum_across(volume, out, shape, i):
    """out (J, K) = the sum of plane i and up to two planes on either side."""
    plane = U(shape[1]) * U(shape[2])
    _sum_lines(volume, U(0), plane, out, U(0), plane, i, U(shape[0]))


@kernel
def _sum_lines(source, at, stride, out, to, size, n, count):
    """out[to : to + size] = the sum of line n of `count` lines, `stride` apart, and up to two on either side."""
    if n >= U(2) and n + U(2) < count:
        first = at + (n - U(2)) * stride
        second, third, fourth = first + stride, first + stride + stride, first + stride + stride + stride
        fifth = fourth + stride
        for k in range(size):
            out[to + k] = (
                source[first + k] + source[second + k] + source[third + k] + source[fourth + k] + source[fifth + k]
            )
    else:
        for k in range(size):
            out[to + k] = F(0)
        for t in range(n - min(n, U(2)), min(n + U(3), count)):
            line = at + t * stride
            for k in range(size):
                out[to + k] += source[line + k]


@kernel
def _sum_in_plane(values, lines, out, to, shape):
    """out[to:] = for each voxel of a plane (J, K) the sum over its window in the plane; `lines` is work space."""
    size_j, size_k = U(shape[1]), U(shape[2])
    near_ends = min(U(4), size_k)
    for j in range(size_j):
        at = j * size_k
        for n in range(near_ends):
            k = n if n < U(2) else size_k - near_ends + n
            total = F(0)
            for t in range(k - min(k, U(2)), min(k + U(3), size_k)):
                total += values[at + t]
            lines[at + k] = total
        if size_k > U(4):
            for k in range(at, at + size_k - U(4)):
                lines[k + U(2)] = values[k] + values[k + U(1)] + values[k + U(2)] + values[k + U(3)] + values[k + U(4)]
    for j in range(size_j):
        _sum_lines(lines, U(0), size_k, out, to + j * size_k, size_k, j, size_j)


@kernel
def _warp_planes(images, disp, warped, slopes, sums, shape, sampled, first, last):
    """The warped image and its slopes, 0 where it is held constant beyond the edge; and sums within planes of the
    warped image, its square and its product with the fixed image."""
    moving, fixed = images
    size_i, size_j, size_k = U(shape[0]), U(shape[1]), U(shape[2])
    plane = size_j * size_k
    volume = size_i * plane
    row = U(sampled[0][2])
    sheet = U(sampled[0][1]) * row
    cell = np.empty(size_k, np.int32)
    share, free = np.empty((3, size_k), np.float32), np.empty((3, size_k), np.float32)
    squares, products = np.empty(plane, np.float32), np.empty(plane, np.float32)
    values, lines = np.empty(plane, np.float32), np.empty(plane, np.float32)
    for i in range(U(first), U(last)):
        for j in range(size_j):
            line = i * plane + j * size_k
            locate(disp, shape, sampled, i, j, cell, share, free)
            for k in range(size_k):
                at, n000 = line + k, U(cell[k])
                u, v, w = share[0, k], share[1, k], share[2, k]
                n010, n100, n110 = n000 + row, n000 + sheet, n000 + sheet + row
                v000, v001, v010, v011 = moving[n000], moving[n000 + U(1)], moving[n010], moving[n010 + U(1)]
                v100, v101, v110, v111 = moving[n100], moving[n100 + U(1)], moving[n110], moving[n110 + U(1)]
                step00, step01, step10, step11 = v001 - v000, v011 - v010, v101 - v100, v111 - v110
                line00, line01 = v000 + w * step00, v010 + w * step01
                line10, line11 = v100 + w * step10, v110 + w * step11
                plane0, plane1 = line00 + v * (line01 - line00), line10 + v * (line11 - line10)
                value = plane0 + u * (plane1 - plane0)
                slopes[at] = free[0, k] * (plane1 - plane0)
                slopes[at + volume] = free[1, k] * ((F(1) - u) * (line01 - line00) + u * (line11 - line10))
                along0, along1 = step00 + v * (step01 - step00), step10 + v * (step11 - step10)
                slopes[at + volume + volume] = free[2, k] * (along0 + u * (along1 - along0))
                warped[at] = value
                here = j * size_k + k
                values[here], squares[here], products[here] = value, value * value, value * fixed[at]
        _sum_in_plane(values, lines, sums[0], i * plane, shape)
        _sum_in_plane(squares, lines, sums[1], i * plane, shape)
        _sum_in_plane(products, lines, sums[2], i * plane, shape)


@kernel
def _coefficient_planes(sums, given, shares, spread, energies, shape, first, last):
    fixed_mean, fixed_variance, noise, mask = given
    share_i, share_j, share_k = shares
    size_j, size_k = U(shape[1]), U(shape[2])
    plane = size_j * size_k
    lines = np.empty(plane, np.float32)
    # Sums of the warped image, its square and its product with the fixed image; then the coefficients.
    a, b, c = np.empty(plane, np.float32), np.empty(plane, np.float32), np.empty(plane, np.float32)
    for i in range(U(first), U(last)):
        total = F(0)
        _sum_across(sums[0], a, shape, i)
        _sum_across(sums[1], b, shape, i)
        _sum_across(sums[2], c, shape, i)
        for j in range(size_j):
            of_line = share_i[i] * share_j[j]
            at, line = i * plane + j * size_k, j * size_k
            for k in range(size_k):
                share = of_line * share_k[k]
                mean = share * a[line + k]
                variance = max(share * b[line + k] - mean * mean, F(0)) + noise
                covariance = share * c[line + k] - fixed_mean[at + k] * mean + noise
                weight = mask[at + k] if mask.size else F(1)
                ratio = covariance / (fixed_variance[at + k] * variance)
                square = covariance * ratio
                total += weight * (F(1) - square)
                p, q = F(2) * weight * ratio, F(2) * weight * square / variance
                a[line + k] = share * p
                b[line + k] = share * q
                c[line + k] = share * (p * fixed_mean[at + k] - q * mean)
        energies[i] = total
        _sum_in_plane(a, lines, spread[0], i * plane, shape)
        _sum_in_plane(b, lines, spread[1], i * plane, shape)
        _sum_in_plane(c, lines, spread[2], i * plane, shape)
