"""Triton kernels of stage 4, the instance optimisation, for a batch of pairs: energy, its gradient, smoothing and Adam.

A step is seven launches: three smooth the parameters into the displacement, axis by axis; one computes energy and
gradient; three apply the adjoint smoothing, the last of which also updates the parameters. The volume term adds an
eighth, the divergence, and local correlation nine of its own. No image with C channels is ever stored, and nothing is
sent to the host: a step is captured as a CUDA graph and replayed.

Legend: B pairs, C channels, I J K axes of the 1/2 grid; tensors are contiguous float32. Features are channels-last,
(B, I, J, K, C).
"""
# mypy: disable-error-code="import-not-found, import-untyped, no-untyped-def, no-untyped-call"

from collections.abc import Callable
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from corereg.geometry.kernels.cuda import BLOCK, Band, band_row, box_band, filter_axis, kernel, locate
from corereg.method.config import RefineConfig
from corereg.method.refine.energy import Compared, correlation_factor, energy_factors
from corereg.method.refine.kernels_cuda_correlation import Correlation, add_correlation, correlation_blocks
from corereg.method.refine.kernels_cuda_smoothness import launch_divergence, smoothness
from corereg.method.refine.schedule import EPSILON, Schedule, Smoothing

__all__ = ["Problem", "energy_gradient", "minimise"]

TILE = (1, 4, 8)
"""Voxels along I, J and K for which one program computes the energy; powers of 2."""
TILE_WARPS = 2
"""Warps per program. With 2, a thread holds 16 values of each of the eight corners; its registers cannot hold 32."""
CHUNK = 32
"""Channels per iteration, a power of 2."""


class Problem(NamedTuple):
    """The energy to minimise: data[b] x weighted sum of squared differences + smooth[a] x sum of squared steps along
    axis a + volume x sum of squared divergences + that of the correlation."""

    fixed: Tensor
    """(B, I, J, K, C), where C may be 0."""
    moving: Tensor
    weight: Tensor | None
    """(B, I, J, K), or None for 1 everywhere."""
    data: Tensor
    """(B,)."""
    smooth: tuple[float, ...]
    volume: float

    correlation: Correlation | None

    @staticmethod
    def of(compared: Compared, disp_vox: Tensor, config: RefineConfig) -> "Problem":
        """The energy of displacements like this, without a copy of features that are channels-last in memory."""
        features, images, weight = compared
        features = features or (disp_vox[:, :0], disp_vox[:, :0])
        data, smooth, volume = energy_factors(max(features[0].shape[1], 1), disp_vox, config, weight)
        fixed, moving = (f.detach().permute(0, 2, 3, 4, 1).contiguous() for f in features)
        weight = None if weight is None else weight.detach().contiguous()
        if images is None:
            return Problem(fixed, moving, weight, data.float(), smooth, volume, None)
        correlation = Correlation.of(*images, correlation_factor(disp_vox, weight))
        return Problem(fixed, moving, weight, data.float(), smooth, volume, correlation)


def minimise(problem: Problem, start: Tensor, schedule: Schedule, *, smoothing: Smoothing) -> tuple[Tensor, Tensor]:
    """Run Adam on the parameters v of s(v), where s is the smoothing. A pair's result does not depend on the
    rest of its batch.

    Args:
        start: (B, 3, I, J, K), v before the first step.

    Returns: s(v) after the last step, and the energies before each step, (steps, B) in float64.
    """
    forward, adjoint = _bands(start, smoothing, adjoint=False), _bands(start, smoothing, adjoint=True)
    parameters, mean, square = start.clone(), torch.zeros_like(start), torch.zeros_like(start)
    disp, gradient, scratch = (torch.empty_like(start) for _ in range(3))
    steps = len(schedule.rates)
    energies = _new_energies(problem, steps, start)
    done = torch.zeros(1, dtype=torch.int32, device=start.device)
    rates = start.new_tensor(schedule.rates)

    def step() -> None:
        _smooth(parameters, forward, disp, scratch)
        _launch_energy(problem, disp, scratch, done, gradient, energies)
        filter_axis(gradient, adjoint[2], 4, scratch)
        filter_axis(scratch, adjoint[1], 3, gradient)
        _launch_adam(gradient, adjoint[0], (parameters, mean, square), done, rates, schedule.betas)
        done.add_(1)

    with torch.cuda.device_of(start):
        _repeat(step, steps, start.device)
        _smooth(parameters, forward, disp, scratch)
    return disp, _totals(energies)


def energy_gradient(problem: Problem, parameters: Tensor, *, smoothing: Smoothing) -> tuple[Tensor, Tensor]:
    """Energies (B,) of s(parameters) and their gradient with respect to the parameters, computed once as in
    `minimise`."""
    disp, gradient, scratch = (torch.empty_like(parameters) for _ in range(3))
    energies = _new_energies(problem, 1, parameters)
    first = torch.zeros(1, dtype=torch.int32, device=parameters.device)
    with torch.cuda.device_of(parameters):
        _smooth(parameters, _bands(parameters, smoothing, adjoint=False), disp, scratch)
        _launch_energy(problem, disp, scratch, first, gradient, energies)
        _smooth(gradient, _bands(parameters, smoothing, adjoint=True), disp, scratch)
    return _totals(energies)[0], disp


def _repeat(step: Callable[[], None], times: int, device: torch.device) -> None:
    """Call `step` once, which compiles its kernels, then replay its launches from a CUDA graph."""
    if times == 0:
        return
    step()
    if device.type != "cuda":  # Triton's interpreter
        for _ in range(times - 1):
            step()
        return
    graph, stream = torch.cuda.CUDAGraph(), torch.cuda.Stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    # Not `torch.cuda.graph`, which first waits for the device and empties the memory cache.
    with torch.cuda.stream(stream):
        graph.capture_begin(capture_error_mode="thread_local")
        step()
        graph.capture_end()
    for _ in range(times - 1):
        graph.replay()


def _bands(volume: Tensor, smoothing: Smoothing, *, adjoint: bool) -> tuple[Band, ...]:
    return tuple(box_band(n, *smoothing, volume.device, adjoint=adjoint) for n in volume.shape[2:])


def _smooth(volume: Tensor, bands: tuple[Band, ...], out: Tensor, scratch: Tensor) -> None:
    filter_axis(volume, bands[2], 4, out)
    filter_axis(out, bands[1], 3, scratch)
    filter_axis(scratch, bands[0], 2, out)


def _launch_adam(
    pulled: Tensor,
    band: Band,
    state: tuple[Tensor, Tensor, Tensor],
    done: Tensor,
    rates: Tensor,
    betas: tuple[float, float],
) -> None:
    shape, count = pulled.shape, pulled.numel()
    sizes = count, shape[2], pulled.stride(2)
    _adam[(triton.cdiv(count, BLOCK),)](
        pulled, *band, *state, done, rates, *sizes, *betas, EPSILON, len(band.weights), BLOCK
    )


@kernel
def _adam(
    pulled, start, weights, parameters, mean, square, done, rates, count, size, inner, beta1, beta2, epsilon,
    TAPS: tl.constexpr, BLOCK: tl.constexpr,  # noqa: N803
):  # fmt: skip
    """The adjoint smoothing along the first axis, which completes the gradient, and torch.optim.Adam's update."""
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = at < count
    g = band_row(pulled, start, weights, at, mask, size, inner, TAPS)
    step = tl.load(done)
    m = tl.load(mean + at, mask)
    m += (1 - beta1) * (g - m)
    v = beta2 * tl.load(square + at, mask) + (1 - beta2) * g * g
    tl.store(mean + at, m, mask)
    tl.store(square + at, v, mask)
    size_of_step, correction = tl.load(rates + 2 * step), tl.load(rates + 2 * step + 1)
    change = size_of_step * m / (tl.sqrt(v) * correction + epsilon)
    tl.store(parameters + at, tl.load(parameters + at, mask) - change, mask)


def _tiles(volume: Tensor) -> int:
    i, j, k = (triton.cdiv(n, t) for n, t in zip(volume.shape[2:], TILE, strict=True))
    return int(i * j * k)


def _new_energies(problem: Problem, steps: int, disp: Tensor) -> tuple[Tensor, ...]:
    """Room for the energies of each step's and pair's tiles, and of the parts of its correlation if there is one."""
    parts = [_tiles(disp)] if problem.correlation is None else [_tiles(disp), correlation_blocks(disp)]
    return tuple(disp.new_empty(steps, len(disp), count) for count in parts)


def _totals(energies: tuple[Tensor, ...]) -> Tensor:
    """(steps, B) in float64."""
    return torch.stack([part.double().sum(2) for part in energies]).sum(0)


def _launch_energy(
    problem: Problem, disp: Tensor, scratch: Tensor, done: Tensor, gradient: Tensor, energies: tuple[Tensor, ...]
) -> None:
    """Compute the energies, and the gradient; `scratch` holds the divergence meanwhile."""
    fixed, moving, weight, data, smooth, volume, correlation = problem
    channels = fixed.shape[4]
    chunk = min(CHUNK, triton.next_power_of_2(max(channels, 1)))
    weighted, preserved = weight is not None, volume != 0
    if preserved:
        launch_divergence(disp, scratch)
    _energy[energies[0].shape[2], len(disp)](
        fixed, moving, disp, scratch, weight if weighted else disp, data, done, gradient, energies[0], *disp.shape[2:],
        *smooth, volume, channels, chunk, *TILE, weighted, preserved, num_warps=TILE_WARPS,
    )  # fmt: skip
    if correlation is not None:
        add_correlation(correlation, weight, disp, done, gradient, energies[1])


@kernel
def _energy(
    fixed, moving, disp, divergence, weight, data, done, gradient, energies, I, J, K,  # noqa: E741, N803
    smooth_i, smooth_j, smooth_k, volume, C: tl.constexpr, CHUNK: tl.constexpr,  # noqa: N803
    TI: tl.constexpr, TJ: tl.constexpr, TK: tl.constexpr, WEIGHTED: tl.constexpr, PRESERVED: tl.constexpr,  # noqa: N803
):  # fmt: skip
    """A tile's part of the energy of a displacement, and the gradient with respect to the displacement."""
    tile, pair = tl.program_id(0), tl.program_id(1).to(tl.int64)
    tiles_j, tiles_k = tl.cdiv(J, TJ), tl.cdiv(K, TK)
    lane = tl.arange(0, TI * TJ * TK)
    i = tile // (tiles_j * tiles_k) * TI + lane // (TJ * TK)
    j = tile // tiles_k % tiles_j * TJ + lane // TK % TJ
    k = tile % tiles_k * TK + lane % TK
    here = (i < I) & (j < J) & (k < K)
    voxels = I * J * K
    at = (i * J + j) * K + k
    fixed += pair * voxels * C
    moving += pair * voxels * C
    disp += pair * 3 * voxels
    gradient += pair * 3 * voxels

    cell_i, wi, free_i = locate(i + tl.load(disp + at, here, 0.0), I)
    cell_j, wj, free_j = locate(j + tl.load(disp + voxels + at, here, 0.0), J)
    cell_k, wk, free_k = locate(k + tl.load(disp + 2 * voxels + at, here, 0.0), K)
    counts = tl.load(weight + pair * voxels + at, here, 0.0) if WEIGHTED else here.to(tl.float32)
    total, gi, gj, gk = _match(
        fixed + at * C, moving + ((cell_i * J + cell_j) * K + cell_k) * C, wi, wj, wk, counts != 0, J, K, C, CHUNK
    )
    scale = tl.load(data + pair)
    energy = scale * counts * total
    scale = 2 * scale * counts
    smooth, pull_i, pull_j, pull_k = smoothness(
        disp + at, divergence + pair * voxels + at, i, j, k, here, I, J, K,
        smooth_i, smooth_j, smooth_k, volume, PRESERVED,
    )  # fmt: skip
    energy += smooth
    tl.store(gradient + at, scale * free_i * gi + pull_i, here)
    tl.store(gradient + voxels + at, scale * free_j * gj + pull_j, here)
    tl.store(gradient + 2 * voxels + at, scale * free_k * gk + pull_k, here)
    slot = (tl.load(done) * tl.num_programs(1) + pair) * tl.num_programs(0) + tile
    tl.store(energies + slot, tl.sum(energy, 0))


@kernel
def _match(fixed, corner, wi, wj, wk, counts, J, K, C: tl.constexpr, CHUNK: tl.constexpr):  # noqa: N803
    """Sums over the channels of the squared feature difference d, and of d times the moving image's slopes."""
    wi, wj, wk = wi[:, None], wj[:, None], wk[:, None]
    total = tl.zeros_like(counts.to(tl.float32))
    gi, gj, gk = total, total, total
    for first in range(0, C, CHUNK):
        channel = (first + tl.arange(0, CHUNK))[None, :]
        mask = counts[:, None] & (channel < C)
        near = corner[:, None] + channel
        far = near + J * K * C
        m000, m001 = tl.load(near, mask, 0.0), tl.load(near + C, mask, 0.0)
        m010, m011 = tl.load(near + K * C, mask, 0.0), tl.load(near + K * C + C, mask, 0.0)
        m100, m101 = tl.load(far, mask, 0.0), tl.load(far + C, mask, 0.0)
        m110, m111 = tl.load(far + K * C, mask, 0.0), tl.load(far + K * C + C, mask, 0.0)
        k00, k01, k10, k11 = m001 - m000, m011 - m010, m101 - m100, m111 - m110
        v00, v10 = m000 + wk * k00, m100 + wk * k10
        j0, j1 = m010 + wk * k01 - v00, m110 + wk * k11 - v10
        v0 = v00 + wj * j0
        slope_i = v10 + wj * j1 - v0
        k0, k1 = k00 + wj * (k01 - k00), k10 + wj * (k11 - k10)
        difference = v0 + wi * slope_i - tl.load(fixed[:, None] + channel, mask, 0.0)
        total += tl.sum(difference * difference, 1)
        gi += tl.sum(difference * slope_i, 1)
        gj += tl.sum(difference * (j0 + wi * (j1 - j0)), 1)
        gk += tl.sum(difference * (k0 + wi * (k1 - k0)), 1)
    return total, gi, gj, gk
