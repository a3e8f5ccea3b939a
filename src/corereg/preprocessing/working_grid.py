"""The working grid of a pair (isotropic, close to RAS+, padded to multiples of 16) and resampling onto it."""

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

__all__ = [
    "FINE_VOXELS",
    "FINE_VOXELS_CORRELATED",
    "GRID_MULTIPLE",
    "choose_working_grid",
    "field_of_view",
    "resample_image",
    "resample_labels",
    "resample_mask",
    "shrink",
]

DEFAULT_SPACING_MM = 2.0
GRID_MULTIPLE = 16
"""The working grid's sizes are multiples of this, so that every strided grid ends on the same voxel."""
SMALLEST_SIZE = 32
"""Smallest size of an axis in voxels: on the 1/8 grid a point needs neighbours."""
WANTED_SIZE = 96
"""Voxels wanted along the longest axis: a small field of view gets a spacing below 2 mm if the scans are that fine."""
FINE_VOXELS, FINE_VOXELS_CORRELATED = 9_000_000, 24_000_000
"""Working grids of up to these sizes are refined on the full grid too, by features and by local correlation, which has
one channel to read where features have 12 or more. Without it, heads of two people lose 6 points of overlap."""
MOST_VOXELS = 9_000_000
"""Size up to which the spacing follows the scans below 2 mm: each million voxels takes seconds."""
BYTES_PER_VOXEL, BYTES_PER_VOXEL_PLAIN = 110, 440
"""Peak memory of a registration per working voxel, with and without compiled kernels: benchmarks/memory.md."""
FINE_BYTES_PER_VOXEL, FINE_BYTES_PER_VOXEL_CORRELATED = 330, 220
"""The same per voxel refined on the full grid."""
KEPT_BYTES_PER_VOXEL, OUTPUT_BYTES_PER_VOXEL = 50, 65
"""Memory while the outputs are written, per working voxel and per voxel of the fixed image."""
FINEST, FEWEST_VOXELS = 1000, 4
"""Bounds of a chosen spacing: this part of the fixed image's finest, and this many voxels along its longest axis."""
SHARE_OF_MEMORY = 0.8
"""Share of the available memory that may be planned for."""


def choose_working_grid(
    fixed: Grid,
    moving: Grid,
    *,
    spacing_mm: float | None = None,
    memory_bytes: int | None = None,
    most_voxels: int = MOST_VOXELS,
    written: Grid | None = None,
) -> Grid:
    """Isotropic grid over the fixed image's field of view; its voxel 0 is that of the image in canonical orientation.

    The spacing follows the coarser scan, as the edge of a cube of its voxels' volume. Only scans that are coarser along
    every axis get more than 2 mm. Below that, it grows until the grid has few enough voxels. With a warning, it grows
    further where the memory requires it. Another warning is given if the memory may not suffice for the outputs, which
    lie on the fixed image's own grid.

    Args:
        spacing_mm: use this spacing.
        memory_bytes: plan for this much memory instead of what the machine has available.
        most_voxels: how many voxels a grid finer than 2 mm may have.
        written: grid of the outputs, if it is not the fixed image's.

    Raises:
        InputError: the spacing is not positive or needs more memory than there is, or no spacing would fit.
    """
    budget = memory_bytes if memory_bytes is not None else int(SHARE_OF_MEMORY * psutil.virtual_memory().available)
    finest, coarsest = min(fixed.spacing) / FINEST, max(fixed.extent_mm) / FEWEST_VOXELS
    if spacing_mm is not None and not finest <= spacing_mm <= coarsest:
        raise InputError(
            f"got a working spacing of {spacing_mm:g} mm, expected {finest:.2g} to {coarsest:.2g} mm for a fixed image "
            f"of {fixed}; correct --spacing"
        )
    wanted = spacing_mm or _spacing_of_scans(fixed, moving, most_voxels)
    least = _bytes(fixed, max(fixed.extent_mm))
    if least > budget:
        enough = math.ceil(least / 10**6) / 1000
        cure = "close other programs" if memory_bytes is None else f"use --memory {enough} or more"
        raise InputError(
            f"got {budget / 2**20:.3g} MiB of memory, but the coarsest working grid takes {least / 2**20:.3g}; {cure}"
        )
    fitting = wanted
    while _bytes(fixed, fitting) > budget:
        fitting *= 1.05
    if fitting > wanted:
        need, have = _bytes(fixed, wanted) / 2**30, budget / 2**30
        if spacing_mm is not None:
            raise InputError(
                f"got a working spacing of {wanted:g} mm, which needs about {need:.1f} GiB, expected one that fits "
                f"into the {have:.1f} GiB available; use --spacing {math.ceil(fitting * 100) / 100:g} or more"
            )
        warnings.warn(
            f"a working spacing of {wanted:g} mm needs about {need:.1f} GiB, more than the {have:.1f} GiB available, "
            f"so the scans are registered at {fitting:.2f} mm; allow more with --memory, or choose with --spacing",
            stacklevel=2,
        )
    working = _grid_at(fixed, fitting)
    written = written or fixed
    outputs = KEPT_BYTES_PER_VOXEL * math.prod(working.shape) + OUTPUT_BYTES_PER_VOXEL * math.prod(written.shape)
    if outputs > budget:
        warnings.warn(
            f"writing the outputs for a fixed image of {written} takes about {outputs / 2**30:.1f} GiB, more than the "
            f"{budget / 2**30:.1f} GiB available; close other programs, or leave out the report",
            stacklevel=2,
        )
    return working


def _spacing_of_scans(fixed: Grid, moving: Grid, most_voxels: int) -> float:
    finest = max(min(fixed.spacing), min(moving.spacing))
    if finest >= DEFAULT_SPACING_MM:
        return finest
    cubes = max(math.prod(grid.spacing) ** (1 / 3) for grid in (fixed, moving))
    spacing = min(DEFAULT_SPACING_MM, max(finest, min(cubes, max(fixed.extent_mm) / WANTED_SIZE)))
    while spacing < DEFAULT_SPACING_MM and math.prod(_sizes(fixed.canonical(), spacing)) > most_voxels:
        spacing = min(round(spacing + 0.05, 2), DEFAULT_SPACING_MM)
    return spacing


def _grid_at(fixed: Grid, spacing_mm: float) -> Grid:
    canonical = fixed.canonical()
    affine = canonical.affine.copy()
    affine[:3, :3] *= spacing_mm / np.array(canonical.spacing)
    i, j, k = _sizes(canonical, spacing_mm)
    return Grid((i, j, k), affine)


def _sizes(canonical: Grid, spacing_mm: float) -> list[int]:
    return [_padded(n, s, spacing_mm) for n, s in zip(canonical.shape, canonical.spacing, strict=True)]


def _padded(size: int, spacing: float, working_spacing: float) -> int:
    # The tolerance keeps rounding in a header from adding one voxel, and with it sixteen.
    covering = math.ceil((size - 1) * spacing / working_spacing - 1e-3) + 1
    return max(SMALLEST_SIZE, -(-covering // GRID_MULTIPLE) * GRID_MULTIPLE)


def _bytes(fixed: Grid, spacing_mm: float) -> int:
    """Peak memory of a registration; a finer grid never takes less."""
    voxels = math.prod(_sizes(fixed.canonical(), spacing_mm))
    return max(
        voxels * (BYTES_PER_VOXEL if use_kernels() else BYTES_PER_VOXEL_PLAIN),
        min(voxels, FINE_VOXELS) * FINE_BYTES_PER_VOXEL,
        min(voxels, FINE_VOXELS_CORRELATED) * FINE_BYTES_PER_VOXEL_CORRELATED,
    )


def resample_image(
    array: NDArray[np.generic], grid: Grid, working: Grid, *, affine: Matrix | None = None, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Resample an image onto the working grid by linear interpolation, after averaging if its voxels are much finer.

    Args:
        array: (I, J, K) on `grid`.
        affine: (4, 4), from the working grid's world to the image's.

    Returns: (1, 1, *working.shape) float32, held constant beyond the field of view; and, in the same shape, 1 inside
        the field of view and 0 outside.
    """
    volume, shrunk = shrink(array, grid, min(working.spacing), device=device)
    coords = _coords(working, shrunk, affine, volume)
    return sample(volume, coords), inside(coords, shrunk.shape).to(volume)


def resample_mask(
    mask: NDArray[np.bool_], grid: Grid, working: Grid, *, affine: Matrix | None = None, device: torch.device
) -> Tensor:
    """Resample a mask onto the working grid: (1, 1, *working.shape) of 0 and 1, 0 beyond its extent."""
    return resample_labels(torch.as_tensor(mask, device=device).float(), grid, working, affine=affine)[None, None]


def resample_labels(labels: Tensor, grid: Grid, working: Grid, *, affine: Matrix | None = None) -> Tensor:
    """Resample labels (I, J, K) onto the working grid by nearest neighbour, 0 beyond their extent."""
    coords = _coords(working, grid, affine, torch.empty(0, device=labels.device))
    return sample_labels(labels, coords)


def _coords(working: Grid, grid: Grid, affine: Matrix | None, like: Tensor) -> Tensor:
    world = working.affine if affine is None else affine @ working.affine
    return affine_coords(working.shape, grid.inverse_affine @ world, like=like)


def shrink(array: NDArray[np.generic], grid: Grid, spacing_mm: float, *, device: torch.device) -> tuple[Tensor, Grid]:
    """Average blocks of voxels along axes finer than 2/3 of a spacing, where sampling alone would alias noise.

    Returns: (1, 1, I, J, K) float32 and its grid, whose spacing is near `spacing_mm` along those axes.
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
    """How many working voxels along each axis cover the fixed image; the rest is padding."""
    canonical = fixed.canonical()
    sizes = zip(canonical.shape, canonical.spacing, working.spacing, working.shape, strict=True)
    i, j, k = (min(math.ceil((n - 1) * s / w) + 1, most) for n, s, w, most in sizes)
    return i, j, k
