"""Compiled CPU kernels of the smoothness terms of stage 4, diffusion and volume: their sums and gradients.

Legend: I J K axes of the displacement's grid; arrays are flat, float32. Inlined by `kernels_refine`.
"""
# mypy: disable-error-code="no-untyped-def, no-untyped-call"

import numpy as np

from corereg.geometry.parallel import kernel

__all__ = ["add_divergence_pull", "add_pull", "divergence_planes"]

U, F = np.uint64, np.float32
"""Offsets into flat arrays are unsigned, which spares the test for negative ones in every inner loop."""


@kernel
def add_pull(disp, line, other, gradient, into, size, factor):
    """Gradient of the squared steps from the line `other`, added to the gradient of `line`; returns their sum."""
    total = F(0)
    for k in range(size):
        step = disp[line + k] - disp[other + k]
        gradient[into + k] += factor * step
        total += step * step
    return total


@kernel
def divergence_planes(disp, out, shape, first, last):
    """Divergence by central differences; 0 on the faces."""
    size_i, size_j, size_k = U(shape[0]), U(shape[1]), U(shape[2])
    plane = size_j * size_k
    volume = size_i * plane
    half = F(0.5)
    for i in range(U(first), U(last)):
        out[i * plane : (i + U(1)) * plane] = F(0)
        if i == 0 or i == size_i - U(1):
            continue
        for j in range(U(1), size_j - U(1)):
            at_i = i * plane + j * size_k
            at_j, at_k = at_i + volume, at_i + volume + volume
            for k in range(U(1), size_k - U(1)):
                along_i = disp[at_i + plane + k] - disp[at_i - plane + k]
                along_j = disp[at_j + size_k + k] - disp[at_j - size_k + k]
                along_k = disp[at_k + U(1) + k] - disp[at_k - U(1) + k]
                out[at_i + k] = half * (along_i + along_j + along_k)


@kernel
def add_divergence_pull(divergence, gradient, shape, factor, i):
    """Gradient of the squared divergences, added to that of plane i (3, J, K); returns their sum on that plane."""
    size_i, size_j, size_k = U(shape[0]), U(shape[1]), U(shape[2])
    plane = size_j * size_k
    half = F(0.5) * factor
    total = F(0)
    for j in range(size_j):
        line = i * plane + j * size_k
        to = j * size_k
        for k in range(size_k):
            total += divergence[line + k] * divergence[line + k]
        if i > 0:
            _add(divergence, line - plane, gradient, to, size_k, half)
        if i < size_i - U(1):
            _add(divergence, line + plane, gradient, to, size_k, -half)
        if j > 0:
            _add(divergence, line - size_k, gradient, to + plane, size_k, half)
        if j < size_j - U(1):
            _add(divergence, line + size_k, gradient, to + plane, size_k, -half)
        to += plane + plane
        _add(divergence, line, gradient, to + U(1), size_k - U(1), half)
        _add(divergence, line + U(1), gradient, to, size_k - U(1), -half)
    return total


@kernel
def _add(source, at, target, to, size, factor):
    for k in range(size):
        target[to + k] += factor * source[at + k]
