"""The paper's inference in plain torch, without the package's kernels: the baseline of `pair.py`.

Float32, channels first, two passes at stride 8, fields at full resolution between the passes, and an instance
optimisation by autograd. The network's modules and weights are the package's; everything else is written out here, with
the same geometry: strided grids that begin on voxel 0, means over the voxels that exist, positions in voxels, the
composition u1 + u0 o (id + u1).

Legend: B batch, C channels, I J K axes of a grid; displacements (1, 3, I, J, K) are in voxels of their own grid.
"""

from itertools import product

import torch
from torch import Tensor
from torch.nn import functional

from corereg.method.features.network import ConvNetModel

STRIDE, RADIUS, SHARPNESS, COUPLINGS, CONSISTENCY_STEPS = 8, 2, 20.0, (0.003, 0.03, 0.3), 15
FEATURE_SCALE, DATA_WEIGHT, DIFFUSION_WEIGHT = 5.0, 12.0, 0.65


def mean(volume: Tensor, times: int) -> Tensor:
    for _ in range(times):
        volume = functional.avg_pool3d(volume, 3, stride=1, padding=1, count_include_pad=False)
    return volume


def positions(shape: tuple[int, ...]) -> Tensor:
    return torch.stack(torch.meshgrid(*(torch.arange(n, dtype=torch.float32) for n in shape), indexing="ij"))[None]


def sample(volume: Tensor, coords_vox: Tensor) -> Tensor:
    last = torch.tensor(volume.shape[2:], dtype=torch.float32).view(1, 3, 1, 1, 1) - 1
    grid = (2 * coords_vox / last - 1).flip(1).permute(0, 2, 3, 4, 1)
    return functional.grid_sample(volume, grid, padding_mode="border", align_corners=True)


def pull(volume: Tensor, disp_vox: Tensor) -> Tensor:
    return sample(volume, positions(disp_vox.shape[2:]) + disp_vox)


def upsampled(disp_vox: Tensor, doublings: int, smoothing: int) -> Tensor:
    for _ in range(doublings):
        shape = tuple(2 * n for n in disp_vox.shape[2:])
        disp_vox = mean(2 * sample(disp_vox, positions(shape) / 2), smoothing)
    return disp_vox


def coupled_convex(fixed: Tensor, moving: Tensor) -> Tensor:
    i, j, k = fixed.shape[2:]
    padded = functional.pad(FEATURE_SCALE * moving, (RADIUS,) * 6, mode="replicate")
    window = range(2 * RADIUS + 1)
    shifts = [padded[:, :, a : a + i, b : b + j, c : c + k] for a, b, c in product(window, repeat=3)]
    cost = mean(torch.cat([(FEATURE_SCALE * fixed - s).abs().sum(1, keepdim=True) for s in shifts], 1), 1)
    candidates = torch.tensor(list(product(range(-RADIUS, RADIUS + 1), repeat=3)), dtype=torch.float32)
    disp_vox = torch.einsum("lc,blijk->bcijk", candidates, torch.softmax(-SHARPNESS * cost, 1))
    for coupling in COUPLINGS:
        distance = (candidates.view(1, -1, 3, 1, 1, 1) - disp_vox[:, None]).square().sum(2)
        shares = torch.softmax(-SHARPNESS * (cost + coupling * distance), 1)
        disp_vox = mean(torch.einsum("lc,blijk->bcijk", candidates, shares), 1)
    return disp_vox


def match(fixed: Tensor, moving: Tensor) -> Tensor:
    forward, backward = coupled_convex(fixed, moving), coupled_convex(moving, fixed)
    for _ in range(CONSISTENCY_STEPS):
        forward, backward = (forward - pull(backward, forward)) / 2, (backward - pull(forward, backward)) / 2
    return forward


def energy(disp_vox: Tensor, fixed: Tensor, moving: Tensor, regularisation: float) -> Tensor:
    data = (FEATURE_SCALE * (pull(moving, disp_vox) - fixed)).square().mean()
    diffusion = sum(disp_vox.diff(dim=axis).square().mean() for axis in (2, 3, 4))
    return DATA_WEIGHT * data + regularisation * DIFFUSION_WEIGHT * diffusion


def refine(
    fixed: Tensor, moving: Tensor, start_vox: Tensor, *, steps: int, learning_rate: float, regularisation: float
) -> tuple[Tensor, list[float]]:
    """Displacement on the 1/2 grid, and the energy before each step."""
    parameters = start_vox.clone().requires_grad_(True)
    optimiser = torch.optim.Adam([parameters], lr=learning_rate)
    losses = []
    for _ in range(steps):
        optimiser.zero_grad()
        loss = energy(mean(parameters, 3), fixed, moving, regularisation)
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return mean(parameters.detach(), 3), losses


def register(
    fixed: Tensor,
    moving: Tensor,
    model: ConvNetModel,
    projection: Tensor,
    *,
    steps: int,
    learning_rate: float,
    regularisation: float,
) -> Tensor:
    """Displacement on the full grid.

    Args:
        fixed, moving: (1, 1, I, J, K).
        projection: (P, C) matrix from the shallow features to those of the refinement.
    """
    with torch.no_grad():
        (fixed_shallow, fixed_head), (moving_shallow, moving_head) = (features(model, v) for v in (fixed, moving))
        first = upsampled(match(fixed_head, moving_head), 3, 2)
        second = upsampled(match(fixed_head, features(model, pull(moving, first))[1]), 3, 2)
        coarse = second + pull(first, second)
        kernel = projection[:, :, None, None, None]
        projected = [functional.conv3d(f, kernel) for f in (fixed_shallow, moving_shallow)]
    start = coarse[:, :, ::2, ::2, ::2] / 2
    half, _ = refine(*projected, start, steps=steps, learning_rate=learning_rate, regularisation=regularisation)
    with torch.no_grad():
        return upsampled(half, 1, 3)


def features(model: ConvNetModel, image: Tensor) -> tuple[Tensor, Tensor]:
    """Block 2 on the 1/2 grid, the head's output on the 1/8 grid."""
    stages = model.extractor(image)
    return stages.shallow, model.head(stages.deep, STRIDE)
