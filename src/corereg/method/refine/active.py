"""The box of the grid outside which no data pull at the displacement: padding, masked parts, and air around the body.

Steps take time for every voxel, and half of a small scan's grid may be padding. Inside the box, refinement minimises
the same energy. Outside, the displacement continues the change found at the box's faces. Downstream: optimise.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from corereg.geometry.displacement import Disp
from corereg.geometry.warp import warp
from corereg.method.features.model import Image5D
from corereg.method.refine.correlation import RADIUS
from corereg.method.refine.energy import Compared

__all__ = ["active_box", "continued"]

Box = tuple[slice, slice, slice]

FLAT = 0.01
"""Largest step between neighbours, as a share of the intensity range, where an image counts as flat. The noise floor of
local correlation is 64 times its square."""

DRIFT_VOX = 8
"""How far what stands out in the moving image may come from where the start puts it."""

MARGIN = RADIUS + 5
"""Voxels around what pulls: the windows of the local correlation, and room for the displacement to level off."""

WORTHWHILE = 0.9
"""Boxes of more than this share of the grid are not worth a copy."""

NOWHERE = (1 << 30, -(1 << 30))
"""Ends that leave those of another range as they are."""


def active_box(compared: Compared, start_vox: Disp) -> Box | None:
    """The box that holds every voxel whose match counts and, by images alone, is not flat; None for the whole grid."""
    shape = start_vox.shape[2:]
    ends = [(0, size) for size in shape]
    if compared.weight is not None:
        ends = _within(ends, _ends(compared.weight[0, 0] > 0), 0)
    if compared.images is not None:
        fixed, moving = compared.images
        standing_out = [_ends(_steps_up(image)) for image in (fixed, warp(moving, start_vox.detach()))]
        joined = [(min(a, c - DRIFT_VOX), max(b, d + DRIFT_VOX)) for (a, b), (c, d) in zip(*standing_out, strict=True)]
        ends = _within(ends, joined, 0)
    ends = _within([(0, size) for size in shape], ends, MARGIN)
    kept = math.prod(max(stop - start, 0) for start, stop in ends)
    if not 0 < kept <= WORTHWHILE * shape.numel():
        return None
    i, j, k = (slice(start, stop) for start, stop in ends)
    return i, j, k


def continued(found: Float[Tensor, "B 3 X Y Z"], start: Disp, box: Box) -> Disp:
    """The displacement `found` in a box, with outside it `start` and the change found at the nearest voxel inside."""
    sides = [(side.start, size - side.stop) for side, size in zip(box, start.shape[2:], strict=True)]
    widths = [width for side in reversed(sides) for width in side]  # pad takes the last axis first
    whole = start + functional.pad(found - start[(..., *box)], widths, mode="replicate")
    whole[(..., *box)] = found
    return whole


def _steps_up(image: Image5D) -> Tensor:
    """Where an image (1, 1, I, J, K) differs from a neighbour's value."""
    values = image[0, 0]
    found = torch.zeros_like(values, dtype=torch.bool)
    for axis in range(3):
        step = values.diff(dim=axis).abs() > FLAT
        found.narrow(axis, 0, step.shape[axis]).logical_or_(step)
        found.narrow(axis, 1, step.shape[axis]).logical_or_(step)
    return found


def _ends(marked: Tensor) -> list[tuple[int, int]]:
    """First marked voxel and the one behind the last along each axis."""
    ends = []
    for axis in range(3):
        others = [other for other in range(3) if other != axis]
        places = marked.any(others[1]).any(others[0]).nonzero()
        ends.append((int(places[0]), int(places[-1]) + 1) if len(places) else NOWHERE)
    return ends


def _within(bounds: list[tuple[int, int]], ends: list[tuple[int, int]], margin: int) -> list[tuple[int, int]]:
    return [(max(a, c - margin), min(b, d + margin)) for (a, b), (c, d) in zip(bounds, ends, strict=True)]
