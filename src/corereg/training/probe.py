"""How good features are apart from the optimiser: is the nearest feature the right one? Without labels.

What is right comes from a registration by `mind` whose two directions agree: it does not change during a run, so that
the figures of its cycles can be compared. Features are compared as the passes do, by absolute differences averaged over
3x3x3 voxels.

Legend: X Y Z axes of the compared grid, N points, O candidates.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional

from corereg.geometry.strided import box_mean, subsample
from corereg.method.config import PipelineConfig
from corereg.method.features.model import FeatureModel
from corereg.method.models import get_model
from corereg.method.pipeline import register_volumes
from corereg.training.objective.losses import draw_points
from corereg.training.objective.matches import HALF, air_value
from corereg.training.scans.volumes import Volumes

__all__ = ["WINDOW_MM", "Matches", "area_under_curve", "candidates", "match_quality", "trusted_matches", "window_of"]

WINDOW_MM = 24.0
"""Candidates lie within this distance along each axis,"""

WINDOW_VOX = 6
"""and within this number of voxels: the 15,000 candidates of a 2 mm grid would take longer than all else."""

POINTS = 1000
HIT_VOX = 1
"""Largest distance along an axis at which a candidate counts as the right one."""

AGREEMENT_VOX = 1.0
"""Voxels of the full grid by which the two directions of a trusted match may miss each other."""

Volume = Float[Tensor, "X Y Z"]


def candidates(
    fixed: Float[Tensor, "1 C X Y Z"], moving: Float[Tensor, "1 C X Y Z"], window: Sequence[int]
) -> Iterator[tuple[tuple[int, int, int], Volume]]:
    """Each offset within the window, in voxels, and the distance of every voxel's feature to the moving one there;
    infinity beyond the moving scan's edge."""
    margin = [n for n in reversed(window) for _ in range(2)]
    padded, exists = functional.pad(moving, margin), functional.pad(torch.ones_like(moving[:, :1]), margin)
    for start in product(*(range(2 * n + 1) for n in window)):
        i, j, k = (slice(o, o + n) for o, n in zip(start, fixed.shape[2:], strict=True))
        there = exists[..., i, j, k]
        difference = there * (fixed - padded[..., i, j, k]).abs().sum(1, keepdim=True)
        mean = box_mean(difference) / box_mean(there)
        first, second, third = (o - n for o, n in zip(start, window, strict=True))
        yield (first, second, third), torch.where(there > 0, mean, torch.inf)[0, 0]


def window_of(stride: int, spacing_mm: Sequence[float]) -> list[int]:
    """Voxels of the grid of this stride within `WINDOW_MM` and `WINDOW_VOX`, along each axis."""
    return [min(max(1, round(WINDOW_MM / (stride * mm))), WINDOW_VOX) for mm in spacing_mm]


def area_under_curve(costs: Float[Tensor, "N O"], hits: Bool[Tensor, "N O"]) -> float:
    """How often a right candidate costs less than a wrong one: mean over the points that have both kinds."""
    ranks = costs.argsort(1).argsort(1).double()
    right, total = hits.sum(1).double(), costs.shape[1]
    wrong = total - right
    # The Mann-Whitney statistic, counted from the most expensive candidate.
    wins = (hits * (total - 1 - ranks)).sum(1) - right * (right - 1) / 2
    both = (right > 0) & (wrong > 0)
    return float((wins / (right * wrong).clamp(min=1))[both].mean())


@dataclass(frozen=True)
class Matches:
    """Points of one scan and their places in another, on the grid of one stride."""

    fixed: int
    """Row of the cohort, as is `moving`."""
    moving: int
    points_vox: Int[Tensor, "N 3"]
    partners_vox: Int[Tensor, "N 3"]


def trusted_matches(volumes: Volumes, fixed: int, moving: int, *, stride: int, device: torch.device) -> Matches:
    """Points of the fixed scan's body at which both directions of a registration by `mind` agree."""
    model = get_model("mind", both_ct=volumes.modality.startswith("ct")).model
    image, other = (volumes.image(row).to(device) for row in (fixed, moving))
    found = register_volumes(image, other, model, PipelineConfig(), field_of_view=volumes.field_of_view)
    assert found.disagreement_vox is not None
    body = subsample(image > air_value(image), stride)[0, 0]
    agrees = subsample(found.disagreement_vox[None], stride // HALF)[0, 0] <= AGREEMENT_VOX
    points = draw_points((body & agrees).cpu(), POINTS, margin=1, generator=torch.Generator().manual_seed(0))
    moved = subsample(found.refined, stride)[0].cpu()[:, points[:, 0], points[:, 1], points[:, 2]].T / stride
    partners = (points + moved).round().long()
    return Matches(fixed, moving, points, partners)


@torch.no_grad()
def match_quality(
    model: FeatureModel,
    volumes: Volumes,
    matches: Sequence[Matches],
    *,
    stride: int,
    device: torch.device,
    progress: Callable[[], None] = lambda: None,
) -> tuple[float, float]:
    """Share of the points whose nearest candidate is the right one, and the area under the curve, over all pairs; NaN
    if no match lies within the window.

    Args:
        progress: called before each pair.
    """
    window = window_of(stride, volumes.grid.spacing)
    reach = torch.tensor(window)
    costs, hits = [], []
    for pair in matches:
        progress()
        images = [volumes.image(row).to(device) for row in (pair.fixed, pair.moving)]
        model.prepare(images)
        fixed, moving = (model.encode(image, (stride,)).cost[stride].float() for image in images)
        wanted = pair.partners_vox - pair.points_vox
        near = (wanted.abs() <= reach).all(1)
        i, j, k = pair.points_vox[near].T
        found = [(torch.tensor(o), cost[i, j, k].cpu()) for o, cost in candidates(fixed, moving, window)]
        costs.append(torch.stack([cost for _, cost in found], 1))
        hits.append(torch.stack([(o - wanted[near]).abs().amax(1) <= HIT_VOX for o, _ in found], 1))
    cost, hit = torch.cat(costs), torch.cat(hits)
    if not len(cost):
        return math.nan, math.nan
    right = hit.gather(1, cost.argmin(1, keepdim=True))
    return float(right.double().mean()), area_under_curve(cost, hit)
