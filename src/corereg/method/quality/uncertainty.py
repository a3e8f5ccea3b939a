"""How far a registration may be off, voxel by voxel: a bound in millimetres that the error of 95 % of voxels respects.

Three signs of error need no labels: the spread of the matches that fit a voxel nearly as well, the disagreement of the
two directions, and the strain of the displacement. A product of their powers bounds the error. The powers were fitted
to known motion: benchmarks/uncertainty.py. Upstream: `judged`. Downstream: `register`.

Legend: signs and bounds are (1, S, X, Y, Z) and (1, 1, X, Y, Z) on the 1/2 grid, in voxels of the full grid.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from corereg.geometry.displacement import Disp
from corereg.geometry.grid import Grid
from corereg.geometry.resample import resample
from corereg.geometry.strided import box_mean, subsample
from corereg.geometry.warp import warp
from corereg.method.coarse.cost_volume import candidates_vox, cost_volume, weighted_cost_volume
from corereg.method.features.mind import MindModel
from corereg.method.quality.judged import Judged
from corereg.method.quality.quality import Quality
from corereg.preprocessing.body import body_threshold

__all__ = ["DISAGREEMENT", "Law", "bound_vox", "signs_of", "uncertainty_mm", "with_uncertainty"]

STRIDE = 2
"""Stride of the grid that the map is made on."""
RADIUS, SHARPNESS = 1, 7.5
"""Candidates that are compared around the match, in voxels of the 1/2 grid, and the factor on their costs. The costs
are weighed softly: a sharp weight finds every match certain."""
SMOOTHING = (3, 9, 3)
"""Number of 3x3x3 means of each sign: a voxel's match also rests on those around it."""

DISAGREEMENT = 1
"""Index of the sign that is missing if only one direction was refined, or one flow for both."""


class Law(NamedTuple):
    """bound = factor * product over signs of (sign + least)^power - offset."""

    factor: float
    powers: tuple[float, ...]
    least: tuple[float, ...]


OFFSET = 0.1
"""Voxels added to the error in the fit, so that its logarithm is finite."""

LEAST = (0.01, 0.05, 0.02)
LAW = Law(2.24, (0.360, 0.204, 0.310), LEAST)
LAW_ONE_WAY = Law(2.33, (0.428, 0.412), (LEAST[0], LEAST[2]))
"""The law for registrations without a disagreement."""


def uncertainty_mm(judged: Judged, fixed: Grid) -> NDArray[np.float32]:
    """The error that 95 % of the voxels stay below: (I, J, K) on the fixed image's grid, rounded to half precision."""
    bound = max(judged.working.spacing) * bound_vox(signs_of(judged))[0, 0].cpu()
    half = judged.working.strided(STRIDE)
    found = resample(bound.numpy(), half, fixed, (), interpolation="linear", outside=float(bound.max()))
    return found.astype(np.float16).astype(np.float32)


def with_uncertainty(quality: Quality, bound_mm: NDArray[np.float32], fixed: NDArray[Any]) -> Quality:
    """The same quality with the mean and the 95th percentile of the bound inside the fixed image's body."""
    inside = bound_mm[fixed > body_threshold(fixed)]
    inside = inside if inside.size else bound_mm.reshape(-1)
    found = {
        "uncertainty_mean_mm": float(inside.mean(dtype=np.float64)),
        "uncertainty_p95_mm": float(np.percentile(inside, 95)),
    }
    return replace(quality, measures={**quality.measures, **found})


@torch.no_grad()
def signs_of(judged: Judged) -> Float[Tensor, "1 S X Y Z"]:
    """Spread, disagreement if there is one, and strain; each smoothed."""
    signs = [_spread(judged), judged.disagreement_vox, _strain(judged.refined)]
    known = [
        box_mean(sign.reshape(1, 1, *sign.shape[-3:]).float(), times=times)
        for sign, times in zip(signs, SMOOTHING, strict=True)
        if sign is not None
    ]
    return torch.cat(known, 1)


def bound_vox(signs: Float[Tensor, "1 S X Y Z"], law: Law | None = None) -> Float[Tensor, "1 1 X Y Z"]:
    """The bound that the signs imply; it grows with each of them."""
    law = law or (LAW if signs.shape[1] == len(LAW.powers) else LAW_ONE_WAY)
    logarithm = math.log(law.factor) + sum(
        power * (signs[:, s : s + 1] + least).log()
        for s, (power, least) in enumerate(zip(law.powers, law.least, strict=True))
    )
    return (torch.as_tensor(logarithm).exp() - OFFSET).clamp(min=0)


def _spread(judged: Judged) -> Tensor:
    """Root mean square distance from the match over the candidates around it, weighed by how well they fit."""
    model = MindModel()  # alike in all modalities, so that one law serves them
    images = judged.fixed, warp(judged.moving, judged.refined)
    fixed, moving = (model.encode(image, ()).shallow for image in images)
    assert fixed is not None
    assert moving is not None
    if judged.fixed_weight is None and judged.moving_weight is None:
        cost = cost_volume(fixed, moving, radius=RADIUS)
    else:
        cost, _ = weighted_cost_volume(fixed, moving, *_weights(judged), radius=RADIUS)
    candidates = candidates_vox(RADIUS, like=fixed)
    shares = (-SHARPNESS * cost).softmax(1)
    return STRIDE * torch.einsum("l,blijk->bijk", (candidates**2).sum(1), shares).sqrt()


def _weights(judged: Judged) -> Sequence[Tensor]:
    """Which voxels of the fixed and of the warped image count."""
    everything = torch.ones_like(judged.fixed)
    fixed = everything if judged.fixed_weight is None else judged.fixed_weight
    moving = everything if judged.moving_weight is None else judged.moving_weight
    return [subsample(weight, STRIDE) for weight in (fixed, warp(moving, judged.refined, outside=0.0))]


def _strain(disp_vox: Disp) -> Tensor:
    """Norm of the displacement's gradient."""
    squares = sum(gradient.square().sum(1) for gradient in torch.gradient(disp_vox, dim=(2, 3, 4)))
    return subsample(torch.as_tensor(squares).sqrt()[:, None], STRIDE)
