"""Trains VoxelMorph's network on pairs of scans. Run as a script by the tool's own Python, without this package.

    python train_voxelmorph.py TASK.json MODEL.pt

TASK.json holds `pairs` (paths of fixed and moving scans), `spacing_mm`, `window` (intensities that become 0 and 1),
`steps`, `batch_size`, `seed`, `threads` and `device`. The loop is this file's; the network is the package's, trained as
its published script trains by default: mean squared error plus 0.01 times the squared gradient of the displacement,
Adam at 1e-4, 7 integration steps. Repeated calls resume from MODEL.pt, which is replaced as a whole.

Legend: disp_vox (B, 3, I, J, K), u(x): index x of the fixed scan's grid shows index x + u(x) of the moving scan, which
is resampled to that grid from where it lies in the world.
"""

import json
import os
import random
import sys
from collections.abc import Sequence
from functools import cache, lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any

SMOOTHNESS, LEARNING_RATE, INTEGRATION_STEPS = 0.01, 1e-4, 7
FEATURES = (16, 32, 32, 32, 32)
"""Channels of each level of the network, which halves the grid at each but the last."""
MULTIPLE = 2 ** (len(FEATURES) - 1)
SAVE_EVERY = 100
KEPT_SCANS = 64


def make_network(device: str) -> Any:
    """The package's network for a pair of scans, untrained."""
    package = import_module("voxelmorph")
    network = package.nn.models.VxmPairwise(
        3, 1, 1, nb_features=FEATURES, integration_steps=INTEGRATION_STEPS, device=device
    )
    return network.to(device)


@cache
def working_grid(path: str, spacing_mm: float) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """Shape and voxel-to-world matrix, row by row, of the grid with this voxel size that covers a scan."""
    np, nibabel = (import_module(name) for name in ("numpy", "nibabel"))
    scan = nibabel.load(path)
    steps = np.sqrt((scan.affine[:3, :3] ** 2).sum(0)) / spacing_mm
    matrix = scan.affine.copy()
    matrix[:3, :3] /= steps
    size = np.ceil(np.round(np.array(scan.shape[:3]) * steps, 3))
    shape = tuple(int(n) for n in np.ceil(size / MULTIPLE) * MULTIPLE)
    return shape, tuple(map(float, matrix.ravel()))


@lru_cache(maxsize=KEPT_SCANS)
def read_on(path: str, grid: tuple[tuple[int, ...], tuple[float, ...]], window: tuple[float, float]) -> Any:
    """Intensities of a scan between 0 and 1 on a working grid, (I, J, K), float16; 0 beyond the scan."""
    np, nibabel, ndimage = (import_module(name) for name in ("numpy", "nibabel", "scipy.ndimage"))
    scan = nibabel.load(path)
    low, high = window
    values = (np.clip(np.asarray(scan.dataobj, np.float32), low, high) - low) / (high - low)
    shape, matrix = grid
    to_voxels = np.linalg.inv(scan.affine) @ np.reshape(matrix, (4, 4))
    return ndimage.affine_transform(
        values, to_voxels[:3, :3], to_voxels[:3, 3], output_shape=shape, order=1, mode="constant"
    ).astype(np.float16)


def as_batch(volumes: Sequence[Any], device: str) -> Any:
    """(B, 1, I, J, K), float32; volumes of other shapes are cut or filled up to the first one's."""
    np, torch = import_module("numpy"), import_module("torch")
    batch = np.zeros((len(volumes), 1, *volumes[0].shape), np.float32)
    for row, volume in zip(batch, volumes, strict=True):
        common = tuple(slice(min(sizes)) for sizes in zip(volume.shape, volumes[0].shape, strict=True))
        row[(0, *common)] = volume[common]
    return torch.from_numpy(batch).to(device)


def train(task: dict[str, Any], model: Path) -> None:
    """Train until `steps`, from where an earlier call stopped."""
    torch = import_module("torch")
    torch.set_num_threads(task["threads"])
    torch.manual_seed(task["seed"])
    device, window, spacing_mm = task["device"], tuple(task["window"]), task["spacing_mm"]
    network = make_network(device).train()
    optimiser = torch.optim.Adam(network.parameters(), lr=LEARNING_RATE)
    first = 0
    if model.is_file():
        state = torch.load(model, map_location=device, weights_only=True)
        network.load_state_dict(state["weights"])
        optimiser.load_state_dict(state["optimiser"])
        first = state["step"]
    for step in range(first, task["steps"]):
        # Draws depend on the step alone, so that a resumed run sees the same pairs.
        rng = random.Random(task["seed"] * 1_000_003 + step)
        pairs = [rng.choice(task["pairs"]) for _ in range(task["batch_size"])]
        pairs = [pair[::-1] if rng.random() < 0.5 else pair for pair in pairs]
        grids = [working_grid(pair[0], spacing_mm) for pair in pairs]
        fixed, moving = (
            as_batch([read_on(pair[side], grid, window) for pair, grid in zip(pairs, grids, strict=True)], device)
            for side in (0, 1)
        )
        disp_vox, warped = network(moving, fixed, return_warped_source=True)
        smoothness = sum((disp_vox.diff(dim=axis) ** 2).mean() for axis in (2, 3, 4)) / 3
        loss = ((warped - fixed) ** 2).mean() + SMOOTHNESS * smoothness
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        done = step + 1
        if done % SAVE_EVERY == 0 or done == task["steps"]:
            state = {"weights": network.state_dict(), "optimiser": optimiser.state_dict(), "step": done}
            staged = model.with_name(f".{model.name}.part")
            torch.save(state | {"window": list(window), "spacing_mm": spacing_mm}, staged)
            os.replace(staged, model)
            print(f"step {done} of {task['steps']}: loss {float(loss):.4g}", flush=True)


def predict(fixed: str, moving: str, model: Path) -> Any:
    """Displacement in LPS millimetres on the fixed scan's own grid, (I, J, K, 3), by a trained network."""
    np, nibabel, ndimage, torch = (import_module(name) for name in ("numpy", "nibabel", "scipy.ndimage", "torch"))
    state = torch.load(model, map_location="cpu", weights_only=True)
    spacing_mm, window = state["spacing_mm"], tuple(state["window"])
    network = make_network("cpu").eval()
    network.load_state_dict(state["weights"])
    with torch.no_grad():
        grid = working_grid(fixed, spacing_mm)
        disp_vox = network(*(as_batch([read_on(path, grid, window)], "cpu") for path in (moving, fixed)))
    matrix = np.reshape(grid[1], (4, 4))
    offsets_mm = np.einsum("ac,cijk->aijk", matrix[:3, :3], disp_vox[0].numpy())
    scan = nibabel.load(fixed)
    to_working = np.linalg.inv(matrix) @ scan.affine
    shape = scan.shape[:3]
    own = [
        ndimage.affine_transform(
            component, to_working[:3, :3], to_working[:3, 3], output_shape=shape, order=1, mode="nearest"
        )
        for component in offsets_mm
    ]
    return np.stack(own, -1).astype(np.float32) * np.float32([-1, -1, 1])


if __name__ == "__main__":
    train(json.loads(Path(sys.argv[1]).read_text("utf-8")), Path(sys.argv[2]))
