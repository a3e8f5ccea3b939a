"""Compiled CPU kernels of batch normalisation and ReLU in training: one sweep forward, one backward.

Legend: y is a convolution's output for one image, kept as 16-bit integers q = y / unit; z = max(scale y + shift, 0) is
the output of normalisation and ReLU; dy and dz are the loss's gradients with respect to them; arrays are flat and
channels-last.
"""
# mypy: disable-error-code="no-untyped-def, no-untyped-call"

import numpy as np
from numpy.typing import NDArray

from corereg.geometry.kernels.threads import kernel, run_slabs

__all__ = ["activate", "gradient_of_input", "gradient_sums", "keep"]

Array = NDArray[np.float32]
Integers = NDArray[np.int16]
Sums = NDArray[np.float64]

U = np.uint64
"""Type of offsets into flat arrays: unsigned ones need no test for negative values, so the inner loops vectorise."""

CHUNK = U(512)
"""Voxels summed in float32 before their sum is added to the rest in float64."""


def keep(values: Array, unit: float, channels: int, out: Integers) -> tuple[Sums, Sums]:
    """Compute q from y; return the sums of q and of its square per channel."""
    sums = _sums(values.size // channels, channels)
    run_slabs(_keep, sums.shape[1], values, np.float32(1 / unit), out, sums)
    first, second = sums.sum(1, dtype=np.float64)
    return first, second


def activate(counted: Integers, scale: Array, shift: Array, out: Array) -> None:
    """Compute z from q. Here and below, `scale` includes the unit as a factor."""
    run_slabs(_activate, counted.size // scale.size, counted, scale, shift, out)


def gradient_sums(gradient: Array, counted: Integers, scale: Array, shift: Array) -> tuple[Sums, Sums]:
    """Sums of dz and of dz q over the voxels that pass the ReLU, per channel."""
    sums = _sums(counted.size // scale.size, scale.size)
    run_slabs(_gradient_sums, sums.shape[1], gradient, counted, scale, shift, sums)
    first, second = sums.sum(1, dtype=np.float64)
    return first, second


def gradient_of_input(
    gradient: Array, counted: Integers, normalisation: tuple[Array, Array], factors: tuple[Array, Array, Array]
) -> None:
    """Turn dz into dy = a dz [z > 0] + b + c q, in place.

    Args:
        normalisation: scale and shift.
        factors: a, b, c per channel.
    """
    run_slabs(_gradient_of_input, counted.size // factors[0].size, gradient, counted, normalisation, factors)


def _sums(voxels: int, channels: int) -> Array:
    return np.empty((2, -(-voxels // int(CHUNK)), channels), np.float32)


@kernel
def _keep(values, per_unit, out, sums, first, last):
    channels = U(sums.shape[2])
    for chunk in range(U(first), U(last)):
        total, squares = sums[0, chunk], sums[1, chunk]
        total[:] = 0
        squares[:] = 0
        for voxel in range(chunk * CHUNK, min((chunk + U(1)) * CHUNK, U(values.size) // channels)):
            at = voxel * channels
            for c in range(channels):
                value = np.rint(values[at + c] * per_unit)
                out[at + c] = np.int16(value)
                total[c] += value
                squares[c] += value * value


@kernel
def _activate(counted, scale, shift, out, first, last):
    channels = U(scale.size)
    for voxel in range(U(first), U(last)):
        at = voxel * channels
        for c in range(channels):
            out[at + c] = max(np.float32(counted[at + c]) * scale[c] + shift[c], np.float32(0))


@kernel
def _gradient_sums(gradient, counted, scale, shift, sums, first, last):
    channels = U(scale.size)
    for chunk in range(U(first), U(last)):
        total, products = sums[0, chunk], sums[1, chunk]
        total[:] = 0
        products[:] = 0
        for voxel in range(chunk * CHUNK, min((chunk + U(1)) * CHUNK, U(counted.size) // channels)):
            at = voxel * channels
            for c in range(channels):
                value, given = np.float32(counted[at + c]), gradient[at + c]
                passed = given if value * scale[c] + shift[c] > 0 else np.float32(0)
                total[c] += passed
                products[c] += passed * value


@kernel
def _gradient_of_input(gradient, counted, normalisation, factors, first, last):
    scale, shift = normalisation
    slope, constant, linear = factors
    channels = U(scale.size)
    for voxel in range(U(first), U(last)):
        at = voxel * channels
        for c in range(channels):
            value, given = np.float32(counted[at + c]), gradient[at + c]
            passed = given if value * scale[c] + shift[c] > 0 else np.float32(0)
            gradient[at + c] = slope[c] * passed + constant[c] + linear[c] * value
