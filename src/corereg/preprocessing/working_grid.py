"""The working grid of a pair: isotropic, close to RAS+, padded to a multiple of 16; and images brought to it."""

import math
import warnings

import numpy as np
import psutil
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from corereg.errors import InputError
from corereg.geometry.grid import Grid, Matrix
from corereg.geometry.kernels.dispatch import use_kernels
from corereg.geometry.warp import affine_coords, inside, sample, sample_labels

__all__ = ["choose_working_grid", "field_of_view", "resample_image", "resample_mask", "shrink"]

DEFAULT_SPACING_MM = 2.0
MULTIPLE = 16
SMALLEST_SIZE = 32
"""Voxels: a 1/8 grid needs a few points to have neighbours."""
WANTED_SIZE = 96
"""Voxels along the longest axis: a small field of view gets a finer grid than 2 mm if the scans have it."""
BYTES_PER_VOXEL, BYTES_PER_VOXEL_PLAIN = 110, 440
"""Peak memory of a registration per working voxel, with compiled kernels and without: benchmarks/memory.md."""
KEPT_BYTES_PER_VOXEL, OUTPUT_BYTES_PER_VOXEL = 50, 65
"""While its outputs are written: per working voxel, and per voxel of the fixed image."""
SHARE_OF_MEMORY = 0.8
"""Of what is available may be planned for."""


def choose_working_grid(
    fixed: Grid, moving: Grid, *, spacing_mm: float | None = None, memory_bytes: int | None = None
) -> Grid:
    """Isotropic grid over the fixed image's field of view, voxel 0 on voxel 0 of its canonical orientation.

    The spacing is 2 mm; coarser where a scan is, or, with a warning, where memory asks for it; finer, if the scans are,
    where the field of view is small. A warning also tells where memory may not reach for the outputs, which lie on the
    fixed image's own grid.

    Args:
        spacing_mm: use this spacing.
        memory_bytes: plan for this much memory instead of the machine's available one.

    Raises:
        InputError: a spacing that is not positive, or for which the memory does not reach, or no memory for any.
    """
    budget = memory_bytes if memory_bytes is not None else int(SHARE_OF_MEMORY * psutil.virtual_memory().available)
    if spacing_mm is not None and not (math.isfinite(spacing_mm) and spacing_mm > 0):
        raise InputError(f"got a working spacing of {spacing_mm} mm, expected a positive number; correct it")
    wanted = spacing_mm or _spacing_of_scans(fixed, moving)
    least = _bytes(fixed, max(fixed.extent_mm))
    if least > budget:
        raise InputError(
            f"got {budget / 2**20:.0f} MiB of available memory, expected at least {least / 2**20:.0f}; "
            "close other programs"
        )
    fitting = wanted
    while _bytes(fixed, fitting) > budget:
        fitting *= 1.05
    if fitting > wanted:
        need, have = _bytes(fixed, wanted) / 2**30, budget / 2**30
        too_large = f"a working spacing of {wanted:g} mm, which needs about {need:.1f} GiB"
        if spacing_mm is not None:
            raise InputError(
                f"got {too_large}, expected one for the {have:.1f} GiB available; "
                f"use --spacing {math.ceil(fitting * 100) / 100:g} or more"
            )
        warnings.warn(
            f"got scans for {too_large}, more than the {have:.1f} GiB available; they are registered at "
            f"{fitting:.2f} mm; give --memory to use more, or --spacing to choose",
            stacklevel=2,
        )
    working = _grid_at(fixed, fitting)
    outputs = KEPT_BYTES_PER_VOXEL * math.prod(working.shape) + OUTPUT_BYTES_PER_VOXEL * math.prod(fixed.shape)
    if outputs > budget:
        warnings.warn(
            f"got a fixed image of {fixed}, whose outputs take about {outputs / 2**30:.1f} GiB while they are written, "
            f"more than the {budget / 2**30:.1f} GiB available; close other programs, or leave the report out",
            stacklevel=2,
        )
    return working


def _spacing_of_scans(fixed: Grid, moving: Grid) -> float:
    finest = max(min(fixed.spacing), min(moving.spacing))
    if finest >= DEFAULT_SPACING_MM:
        return finest
    return min(DEFAULT_SPACING_MM, max(finest, max(fixed.extent_mm) / WANTED_SIZE))


def _grid_at(fixed: Grid, spacing_mm: float) -> Grid:
    canonical = fixed.canonical()
    affine = canonical.affine.copy()
    affine[:3, :3] *= spacing_mm / np.array(canonical.spacing)
    i, j, k = (_padded(n, s, spacing_mm) for n, s in zip(canonical.shape, canonical.spacing, strict=True))
    return Grid((i, j, k), affine)


def _padded(size: int, spacing: float, working_spacing: float) -> int:
    # The tolerance keeps a header's rounding from adding a voxel, and with it sixteen.
    covering = math.ceil((size - 1) * spacing / working_spacing - 1e-3) + 1
    return max(SMALLEST_SIZE, -(-covering // MULTIPLE) * MULTIPLE)


def _bytes(fixed: Grid, spacing_mm: float) -> int:
    per_voxel = BYTES_PER_VOXEL if use_kernels() else BYTES_PER_VOXEL_PLAIN
    return per_voxel * math.prod(_grid_at(fixed, spacing_mm).shape)


def resample_image(
    array: NDArray[np.generic], grid: Grid, working: Grid, *, affine: Matrix | None = None, device: torch.device
) -> tuple[Tensor, Tensor]:
    """An image seen on the working grid, linearly interpolated, averaged first where its voxels are much finer.

    Args:
        array: (I, J, K) on `grid`.
        affine: (4, 4) world matrix from the working grid's world to the image's.

    Returns: (1, 1, *working.shape) float32, held constant beyond the field of view; and, of the same shape, 1 inside
        the field of view, 0 outside.
    """
    volume, shrunk = shrink(array, grid, min(working.spacing), device=device)
    coords = _coords(working, shrunk, affine, volume)
    return sample(volume, coords), inside(coords, shrunk.shape).to(volume)


def resample_mask(
    mask: NDArray[np.bool_], grid: Grid, working: Grid, *, affine: Matrix | None = None, device: torch.device
) -> Tensor:
    """A mask seen on the working grid by nearest neighbour: (1, 1, *working.shape) of 0 and 1, 0 beyond its extent."""
    coords = _coords(working, grid, affine, torch.empty(0, device=device))
    return sample_labels(torch.as_tensor(mask, device=device).float(), coords)[None, None]


def _coords(working: Grid, grid: Grid, affine: Matrix | None, like: Tensor) -> Tensor:
    world = working.affine if affine is None else affine @ working.affine
    return affine_coords(working.shape, grid.inverse_affine @ world, like=like)


def shrink(array: NDArray[np.generic], grid: Grid, spacing_mm: float, *, device: torch.device) -> tuple[Tensor, Grid]:
    """Block means along the axes whose voxels are at most 2/3 of a spacing, where sampling alone would alias noise.

    Returns: (1, 1, I, J, K) float32 and its grid, whose spacing is near `spacing_mm` where the scan is finer.
    """
    volume = torch.as_tensor(np.array(array, dtype=np.float32), device=device)[None, None]
    factors = [min(max(1, round(spacing_mm / s)), n) for s, n in zip(grid.spacing, grid.shape, strict=True)]
    if max(factors) == 1:
        return volume, grid
    volume = functional.avg_pool3d(volume, factors, ceil_mode=True, count_include_pad=False)
    affine = grid.affine.copy()
    affine[:3, 3] = grid.to_world([(f - 1) / 2 for f in factors])
    affine[:3, :3] *= factors
    return volume, Grid((volume.shape[2], volume.shape[3], volume.shape[4]), affine)


def field_of_view(fixed: Grid, working: Grid) -> tuple[int, int, int]:
    """Working voxels along each axis that cover the fixed image; the others are padding."""
    canonical = fixed.canonical()
    sizes = zip(canonical.shape, canonical.spacing, working.spacing, working.shape, strict=True)
    i, j, k = (min(math.ceil((n - 1) * s / w) + 1, most) for n, s, w, most in sizes)
    return i, j, k
