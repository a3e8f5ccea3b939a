"""Compiled CPU kernels of the smoothness terms of stage 4, diffusion and volume: their sums and gradients.

Legend: I J K axes of the displacement's grid; arrays are flat, float32. Inlined by `kernels_cpu`.
"""
# mypy: disable-error-code="no-untyped-def, no-untyped-call"

import numpy as np

from corereg.geometry.kernels.threads import kernel

__all__ = ["add_diffusion_pull", "add_divergence_pull", "divergence_planes"]

U, F = np.uint64, np.float32
"""Types of offsets and values. Unsigned offsets into flat arrays spare every inner loop a test for negative ones."""


@kernel
def add_diffusion_pull(disp, line, sides, gradient, into, size, factors, sums):
    """Add the gradient of the squared steps between a line of voxels and its neighbours to the line's gradient, and the
    squared steps to `sums` per axis, each step once.

    Args:
        sides: the lines before and after along i, then along j; beyond an edge, the line itself.
    """
    up, down, left, right = sides
    along_i, along_j, along_k = F(0), F(0), F(0)
    for k in range(size):
        here = disp[line + k]
        step_i, step_j = disp[down + k] - here, disp[right + k] - here
        pull_i, pull_j = here - disp[up + k] - step_i, here - disp[left + k] - step_j
        gradient[into + k] += factors[1] * pull_i + factors[2] * pull_j
        along_i += step_i * step_i
        along_j += step_j * step_j
    last = size - U(1)
    for k in range(U(1), last):
        here = disp[line + k]
        step = disp[line + k + U(1)] - here
        gradient[into + k] += factors[3] * (here - disp[line + k - U(1)] - step)
        along_k += step * step
    first, final = disp[line + U(1)] - disp[line], disp[line + last] - disp[line + last - U(1)]
    gradient[into] -= factors[3] * first
    gradient[into + last] += factors[3] * final
    sums[1] += along_i
    sums[2] += along_j
    sums[3] += along_k + first * first


@kernel
def divergence_planes(disp, out, shape, first, last):
    """Divergence by central differences, 0 on the faces of the volume."""
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
    """Add the gradient of the squared divergences to that of plane i (3, J, K); return their sum on that plane."""
    size_i, size_j, size_k = U(shape[0]), U(shape[1]), U(shape[2])
    plane = size_j * size_k
    half = F(0.5) * factor
    total = F(0)
    for j in range(size_j):
        line = i * plane + j * size_k
        to = j * size_k
        # Beyond an edge, the line itself stands in with factor 0.
        up, from_up = (line - plane, half) if i > 0 else (line, F(0))
        down, from_down = (line + plane, half) if i < size_i - U(1) else (line, F(0))
        left, from_left = (line - size_k, half) if j > 0 else (line, F(0))
        right, from_right = (line + size_k, half) if j < size_j - U(1) else (line, F(0))
        for k in range(size_k):
            here = divergence[line + k]
            total += here * here
            gradient[to + k] += from_up * divergence[up + k] - from_down * divergence[down + k]
            gradient[to + plane + k] += from_left * divergence[left + k] - from_right * divergence[right + k]
        to += plane + plane
        # The divergence is 0 at both ends of a line, which therefore only see their inner neighbour.
        for k in range(U(1), size_k - U(1)):
            gradient[to + k] += half * (divergence[line + k - U(1)] - divergence[line + k + U(1)])
        gradient[to] -= half * divergence[line + U(1)]
        gradient[to + size_k - U(1)] += half * divergence[line + size_k - U(2)]
    return total
