"""Choice of R by the pair itself, without labels: by a rehearsal whose motion is known.

The moving image, warped by a first displacement, is made to look like the fixed one: what the pair's images do not
share is added to it at the mirrored place, where it means nothing. It is then registered to the moving image, whose
noise is made independent, with several R, and the R that comes closest to the known displacement is taken. Too small an
R follows noise and what has no partner; too large an R misses motion. Downstream: pipeline.
"""

import math
from dataclasses import replace

import torch
from torch import Tensor

from corereg.geometry.displacement import Disp
from corereg.geometry.warp import warp
from corereg.method.config import RefineConfig
from corereg.method.features.model import Image5D
from corereg.method.refine.energy import Compared
from corereg.method.refine.optimise import refine

__all__ = ["CANDIDATES", "FIRST", "choose_regularisation", "noise_level", "rehearsed"]

FIRST = 3.0
"""R of the displacement that serves as the truth, and the one that is tried first."""

CANDIDATES = (1.0, 1.5, 2.0, FIRST, 4.5, 6.0, 9.0)
"""The values that may be chosen."""

NORMAL_MEDIAN = 0.6745
"""Median of |x| for a standard normal x."""

MIRRORED = 2
"""The axis, left to right, along which bodies are most alike."""


def choose_regularisation(
    compared: Compared, start_vox: Disp, truth_vox: Disp, counts: Tensor, config: RefineConfig
) -> float:
    """The R among `CANDIDATES` whose displacement lies closest to the truth; among equals, the one nearest `FIRST`.

    Args:
        compared: what the 1/2 grid compares of the rehearsed pair.
        start_vox, truth_vox: where the refinement starts and should end, on that grid.
        counts: how much each voxel's error counts, (1, 1, I, J, K).
    """

    def missed(at: int) -> float:
        disp_vox, _ = refine(compared, start_vox, replace(config, regularisation=CANDIDATES[at]))
        return float((counts[:, 0] * (disp_vox - truth_vox).norm(dim=1)).sum(dtype=torch.float64))

    best, last = CANDIDATES.index(FIRST), len(CANDIDATES) - 1
    least = missed(best)
    for step in (-1, 1):
        at, moved = best + step, False
        while 0 <= at <= last and (error := missed(at)) < least:
            best, least, at, moved = at, error, at + step, True
        if moved:
            break
    return CANDIDATES[best]


def rehearsed(
    fixed: Image5D, moving: Image5D, disp_vox: Disp, *, one_contrast: bool, generator: torch.Generator
) -> tuple[Image5D, Image5D]:
    """A pair like this one, whose motion is `disp_vox`: a fixed and a moving image.

    Args:
        one_contrast: whether the two images' difference means anything.
    """
    noise = noise_level(moving) * torch.randn(moving.shape, generator=generator).to(moving)
    warped = warp(moving, disp_vox)
    unlike = (fixed - warped).flip(MIRRORED) if one_contrast else torch.zeros_like(fixed)
    return warp(moving + noise, disp_vox) + unlike, moving - noise


def noise_level(image: Image5D) -> float:
    """Standard deviation of white noise, from the median second difference, which edges hardly change.

    Voxels without any second difference, such as padding or air cut to one value, do not count.
    """
    axes = [axis for axis in (2, 3, 4) if image.shape[axis] > 2]
    inner = tuple(slice(1, -1) if axis in axes else slice(None) for axis in range(5))
    curved = torch.zeros_like(image[inner])
    for axis in axes:
        curved += (torch.roll(image, 1, axis) + torch.roll(image, -1, axis) - 2 * image)[inner]
    sizes = curved.abs()[curved != 0]
    if not len(sizes):
        return 0.0
    gain = math.sqrt(2 * len(axes) + (2 * len(axes)) ** 2)
    return float(sizes.median()) / NORMAL_MEDIAN / gain
