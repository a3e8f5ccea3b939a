"""Compiled CPU kernels of stage 4, the instance optimisation: energy, its gradient, smoothing and Adam.

A step makes three sweeps over the volume: first the displacement, from the planes of the parameters smoothed along j
and k; then energy and gradient, with the adjoint smoothing along j and k of each plane; last the adjoint smoothing
along i, the update and the next smoothing along j and k. Local correlation takes two more, before the energy. No image
with C channels is ever stored.

Features are compared as 16-bit integers of one unit: half the memory to read, and reading bounds the speed.

Legend: C channels, I J K axes of the 1/2 grid; arrays are float32. Features are channels-last, (I, J, K, C).
Kernels take volumes as flat arrays.
"""
# mypy: disable-error-code="no-untyped-def, no-untyped-call, assignment"

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from corereg.geometry.kernels.filter import Band, box_band, filter_plane, filter_row
from corereg.geometry.kernels.simd_loops import compare
from corereg.geometry.kernels.threads import kernel, run_slabs
from corereg.method.refine.inputs import Factors, Inputs, Sampled
from corereg.method.refine.integers import Integers, as_integers, padded_channels
from corereg.method.refine.kernels_cpu_correlation import Correlation, add_force_pull, correlation_planes
from corereg.method.refine.kernels_cpu_places import locate
from corereg.method.refine.kernels_cpu_smoothness import add_diffusion_pull, add_divergence_pull, divergence_planes
from corereg.method.refine.schedule import EPSILON, Schedule, Smoothing
from corereg.progress import counted

__all__ = ["energy_gradient", "minimise"]

Array = NDArray[np.float32]
NONE = np.empty(0, np.float32)
U, F = np.uint64, np.float32
"""Types of offsets and values. Unsigned offsets into flat arrays spare every inner loop a test for negative ones."""

AHEAD = U(8)
"""How many voxels ahead of the comparison features are fetched from memory."""


def minimise(inputs: Inputs, start: Array, schedule: Schedule, *, smoothing: Smoothing) -> tuple[Array, list[float]]:
    """Run Adam on the parameters v of s(v), where s is the smoothing.

    Args:
        start: (3, I, J, K), v before the first step.

    Returns: s(v) after the last step, and the energy before each step.
    """
    problem = _prepare(inputs, start.shape[1:], smoothing)
    shape = problem.shape
    parameters = start.flatten()
    state = parameters, np.zeros_like(parameters), np.zeros_like(parameters)
    planes, disp = np.empty_like(parameters), np.empty_like(parameters)
    losses = []
    run_slabs(_smooth_planes, shape[0], parameters, planes, shape, problem.forward)
    for size, correction in counted(schedule.rates, "refining"):
        losses.append(_evaluate(problem, planes, disp))
        pulled, planes, disp = planes, disp, planes
        adam = _adam_factors(schedule.betas, size, correction)
        run_slabs(_adam_planes, shape[0], pulled, state, adam, planes, shape, problem.adjoint, problem.forward)
    run_slabs(_smooth_along_i, shape[0], planes, disp, shape, problem.forward)
    return disp.reshape(start.shape), losses


def energy_gradient(inputs: Inputs, parameters: Array, *, smoothing: Smoothing) -> tuple[float, Array]:
    """The energy of s(parameters) and its gradient with respect to the parameters, computed once as in `minimise`."""
    problem = _prepare(inputs, parameters.shape[1:], smoothing)
    disp, planes = (np.empty(parameters.size, np.float32) for _ in range(2))
    run_slabs(_smooth_planes, problem.shape[0], parameters.flatten(), planes, problem.shape, problem.forward)
    energy = _evaluate(problem, planes, disp)
    run_slabs(_smooth_along_i, problem.shape[0], planes, disp, problem.shape, problem.adjoint)
    return energy, disp.reshape(parameters.shape)


class _Problem(NamedTuple):
    """What stays the same from step to step, in the form the kernels take."""

    shape: tuple[int, ...]
    sampled: Sampled
    features: tuple[Integers, Integers]
    correlation: Correlation | None
    mask: Array
    factors: Factors
    channels: tuple[int, ...]
    forward: tuple[Band, ...]
    adjoint: tuple[Band, ...]
    divergence: Array
    """Work space, empty if there is no volume term."""


def _prepare(inputs: Inputs, shape: tuple[int, ...], smoothing: Smoothing) -> _Problem:
    given, images, weight, factors, origin = inputs
    mask = NONE if weight is None else weight.reshape(-1)
    forward = tuple(box_band(n, *smoothing) for n in shape)
    adjoint = tuple(box_band(n, *smoothing, adjoint=True) for n in shape)
    features, channels = (np.empty(0, np.int16),) * 2, padded_channels(1)
    whole = next((each[1].shape[:3] for each in (given, images) if each is not None), shape)
    if given is not None:
        features, unit = as_integers(*given)
        channels = padded_channels(given[0].shape[3])
        factors = factors._replace(data=factors.data * unit**2)
    correlation = None if images is None else Correlation.of(*images, origin)
    divergence = np.empty(shape[0] * shape[1] * shape[2] if factors.volume else 0, np.float32)
    sampled, terms = (whole, origin), (correlation, mask, factors)
    return _Problem(shape, sampled, features, *terms, channels, forward, adjoint, divergence)


def _evaluate(problem: _Problem, planes: Array, disp: Array) -> float:
    """The energy. Leaves the displacement in `disp`, and in `planes` its gradient, not yet smoothed along i.

    Args:
        planes: the parameters smoothed along j and k; after their use, work space of the correlation.
    """
    shape, sampled, features, correlation, mask, factors, channels, forward, adjoint, divergence = problem
    weights = np.array((factors.data, *factors.smooth, factors.volume, factors.correlation))
    slopes, energies = (2 * weights).astype(np.float32), np.zeros((shape[0], 6))
    slopes[5] = weights[5]  # the force is the whole derivative
    run_slabs(_smooth_along_i, shape[0], planes, disp, shape, forward)
    if factors.volume:
        run_slabs(divergence_planes, shape[0], disp, divergence, shape)
    force = np.empty((3, 0), np.float32), NONE, NONE, NONE
    if correlation is not None:
        energies[:, 5] = correlation_planes(correlation, disp, mask, planes.reshape(3, -1))
        force = correlation.spread, correlation.fixed, correlation.warped, correlation.slopes
    given = features, (disp, divergence), force, mask
    run_slabs(_energy_planes, shape[0], given, slopes, channels, (shape, sampled), adjoint, planes, energies)
    return float(weights @ energies.sum(0))


def _adam_factors(betas: tuple[float, float], size: float, correction: float) -> Array:
    """1 - beta1, beta2, 1 - beta2, step size, 1 / sqrt of the second bias correction, epsilon."""
    beta1, beta2 = betas
    return np.array([1 - beta1, beta2, 1 - beta2, size, correction, EPSILON], np.float32)


@kernel
def _smooth_planes(volume, planes, shape, bands, first, last):
    plane = U(shape[1]) * U(shape[2])
    lines = np.empty(plane, np.float32)
    for i in range(U(first), U(last)):
        for a in range(U(3)):
            at = (a * U(shape[0]) + i) * plane
            filter_plane(volume, at, planes, at, lines, shape[1:], bands[1], bands[2])


@kernel
def _smooth_along_i(planes, out, shape, bands, first, last):
    size_i, size_j, size_k = U(shape[0]), U(shape[1]), U(shape[2])
    start, weights = bands[0].start, bands[0].weights
    for i in range(U(first), U(last)):
        for a in range(U(3)):
            volume = a * size_i * size_j * size_k
            for j in range(size_j):
                line = volume + j * size_k
                to = line + i * size_j * size_k
                filter_row(planes, line, size_j * size_k, out, to, size_k, start, weights, i)


@kernel
def _adam_planes(pulled, state, factors, planes, shape, adjoint, forward, first, last):
    """The adjoint smoothing along i, which completes the gradient; torch.optim.Adam's update; and the next smoothing
    along j and k."""
    parameters, mean, square = state
    one_beta1, beta2, one_beta2, size, correction, epsilon = factors
    size_i, size_j, size_k = U(shape[0]), U(shape[1]), U(shape[2])
    start, weights = adjoint[0].start, adjoint[0].weights
    gradient = np.empty(size_k, np.float32)
    lines = np.empty(size_j * size_k, np.float32)
    for i in range(U(first), U(last)):
        for a in range(U(3)):
            volume = a * size_i * size_j * size_k
            plane = volume + i * size_j * size_k
            for j in range(size_j):
                line = j * size_k
                filter_row(pulled, volume + line, size_j * size_k, gradient, U(0), size_k, start, weights, i)
                for n in range(size_k):
                    at = plane + line + n
                    g = gradient[n]
                    m = mean[at] + one_beta1 * (g - mean[at])
                    v = beta2 * square[at] + one_beta2 * g * g
                    mean[at] = m
                    square[at] = v
                    parameters[at] -= size * m / (np.sqrt(v) * correction + epsilon)
            filter_plane(parameters, plane, planes, plane, lines, shape[1:], forward[1], forward[2])


@kernel
def _energy_planes(given, factors, channels, shapes, adjoint, out, energies, first, last):
    """Sums of the energy per plane, and its gradient's planes after the adjoint smoothing along j and k."""
    features, (disp, divergence), force, mask = given
    shape = shapes[0]
    size_i, size_j, size_k = U(shape[0]), U(shape[1]), U(shape[2])
    plane = size_j * size_k
    gradient = np.empty(U(3) * plane, np.float32)
    lines = np.empty(plane, np.float32)
    for i in range(U(first), U(last)):
        energy = energies[i]
        if features[0].size:
            energy[0] = _data_gradient(features, disp, mask, factors[0], gradient, shapes, channels, i)
        else:
            gradient[:] = F(0)
        if force[0].size:
            add_force_pull(force, factors[5], gradient, shape, i)
        if divergence.size:
            energy[4] = add_divergence_pull(divergence, gradient, shape, factors[4], i)
        for a in range(U(3)):
            at = (a * size_i + i) * plane
            to = a * plane
            for j in range(size_j):
                line = at + j * size_k
                up, down = line - plane if i > 0 else line, line + plane if i < size_i - U(1) else line
                left, right = line - size_k if j > 0 else line, line + size_k if j < size_j - U(1) else line
                sides = up, down, left, right
                add_diffusion_pull(disp, line, sides, gradient, to + j * size_k, size_k, factors, energy)
            filter_plane(gradient, to, out, at, lines, shape[1:], adjoint[1], adjoint[2])


@kernel
def _data_gradient(features, disp, mask, factor, gradient, shapes, channels, i):
    """Sum of the squared feature differences of plane i; writes its gradient into gradient (3, J, K).

    Args:
        channels: a tuple with one entry per channel, so that the compiler knows their number from its type.
    """
    (fixed, moving), (shape, sampled) = features, shapes
    C = U(len(channels))  # noqa: N806 - the legend's name
    size_j, size_k = U(shape[1]), U(shape[2])
    row, sheet = U(sampled[0][2]), U(sampled[0][1]) * U(sampled[0][2])
    steps = np.int64(sheet * C), np.int64(row * C), np.int64(C)
    plane = size_j * size_k
    cell = np.empty(size_k, np.int32)
    share = np.empty((3, size_k), np.float32)
    free = np.empty((3, size_k), np.float32)
    energy = 0.0
    for j in range(size_j):
        locate(disp, shape, sampled, i, j, cell, share, free)
        for k in range(size_k):
            to = j * size_k + k
            at = i * plane + to
            weight = mask[at] if mask.size else F(1)
            if weight == 0:
                gradient[to] = gradient[to + plane] = gradient[to + plane + plane] = F(0)
                continue
            corner, ahead = np.int64(U(cell[k]) * C), np.int64(U(cell[min(k + AHEAD, size_k - U(1))]) * C)
            total, gi, gj, gk = compare(
                moving, corner, *steps, share[0, k], share[1, k], share[2, k], fixed, np.int64(at * C), channels, ahead
            )
            energy += weight * total
            scale = factor * weight
            gradient[to] = scale * free[0, k] * gi
            gradient[to + plane] = scale * free[1, k] * gj
            gradient[to + plane + plane] = scale * free[2, k] * gk
    return energy
