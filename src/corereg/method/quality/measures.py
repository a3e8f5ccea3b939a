"""What the images and the displacement say about a registration, without labels: cheap, on a coarse copy of the grid.

Upstream: `judged`. Downstream: `verdict`.
"""

import math
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import avg_pool3d

from corereg.geometry.displacement import LOG_JACOBIAN_MARGIN, jacobian_determinant, sdlogj
from corereg.geometry.grid import transform_points
from corereg.geometry.warp import warp
from corereg.method.affine.coarse_copies import CoarseCopy
from corereg.method.affine.orientation import orientation_ratios
from corereg.method.quality.judged import Judged
from corereg.method.quality.similarity import similarity_above_chance
from corereg.preprocessing.body import body_threshold

__all__ = ["ORIENTATIONS", "UNKNOWN", "measure"]

VOXELS = 60_000
"""Volumes are averaged down to about this size, so that judging costs little and does not depend on the spacing."""

HALF = 0.5
"""Weight above which a voxel counts."""

VOLUME_PERCENTS = (1.0, 99.0)
ORIENTATIONS = {
    (-1, 1, 1): "mirrored_left_right",
    (1, -1, 1): "mirrored_front_back",
    (1, 1, -1): "mirrored_head_feet",
    (-1, -1, 1): "turned_about_head_feet",
    (-1, 1, -1): "turned_about_front_back",
    (1, -1, -1): "turned_about_left_right",
    (-1, -1, -1): "mirrored_in_all_axes",
}
"""The flips of a scan in words."""

UNKNOWN = math.nan
"""Where a measure does not apply. Comparisons with it are false."""


def measure(judged: Judged) -> dict[str, float]:
    """All measures; NaN where one does not apply."""
    coarse = _reduced(judged)
    compared = _likeness(coarse) | _motion(coarse) | _regularity(judged, coarse)
    return compared | _coverage(judged) | _orientation(judged) | _affine(judged)


class _Reduced(NamedTuple):
    """What is measured: (1, C, I, J, K) on one coarse grid over the fixed image's field of view."""

    fixed: Tensor
    moving: Tensor
    fixed_weight: Tensor
    moving_weight: Tensor
    disp_vox: Tensor
    coarse_vox: Tensor
    disagreement_mm: Tensor | None
    spacing_mm: float
    width_mm: float
    """Edge of a cube that has the volume of the fixed image's field of view."""


def _reduced(judged: Judged) -> _Reduced:
    i, j, k = judged.shown
    factor = max(1, round((i * j * k / VOXELS) ** (1 / 3)))
    steps = [min(factor, n) for n in judged.shown]

    def shrunk(volume: Tensor) -> Tensor:
        return avg_pool3d(volume[..., :i, :j, :k].float().cpu(), steps)

    everything = torch.ones_like(judged.fixed)
    scale = torch.tensor(steps, dtype=torch.float32).view(1, 3, 1, 1, 1)
    spacing = max(judged.working.spacing)
    disagreement = None
    if judged.disagreement_vox is not None:
        full = judged.disagreement_vox[:, None].float().repeat_interleave(2, 2)
        full = full.repeat_interleave(2, 3).repeat_interleave(2, 4)
        disagreement = spacing * shrunk(full)
    return _Reduced(
        shrunk(judged.fixed),
        shrunk(judged.moving),
        shrunk(everything if judged.fixed_weight is None else judged.fixed_weight),
        shrunk(everything if judged.moving_weight is None else judged.moving_weight),
        shrunk(judged.refined) / scale,
        shrunk(judged.coarse) / scale,
        disagreement,
        spacing * factor,
        spacing * (i * j * k) ** (1 / 3),
    )


def _body(volume: Tensor, weight: Tensor) -> Tensor:
    """Where an image shows a body rather than what surrounds it."""
    counted = weight > HALF
    values = volume[counted] if bool(counted.any()) else volume.flatten()
    body: Tensor = (volume > body_threshold(values.numpy())) & counted
    return body


def _likeness(pair: _Reduced) -> dict[str, float]:
    warped, seen = warp(pair.moving, pair.disp_vox), warp(pair.moving_weight, pair.disp_vox, outside=0.0)
    fixed_body, warped_body = _body(pair.fixed, pair.fixed_weight), _body(warped, seen)
    both = (fixed_body.sum() + warped_body.sum()).clamp(min=1)
    return {
        "similarity_before": _similarity(pair.fixed, pair.moving, pair.fixed_weight, pair.moving_weight),
        "similarity_above_chance": _similarity(pair.fixed, warped, pair.fixed_weight, seen),
        "body_overlap": float(2 * (fixed_body & warped_body).sum() / both),
    }


def _similarity(first: Tensor, second: Tensor, first_weight: Tensor, second_weight: Tensor) -> float:
    """Similarity within the bodies, since any two would share the air around them."""
    bodies = (_body(first, first_weight) | _body(second, second_weight)).float()
    return similarity_above_chance(first, second, first_weight * bodies, second_weight * bodies)


def _motion(pair: _Reduced) -> dict[str, float]:
    inside = _body(pair.fixed, pair.fixed_weight)[0, 0]
    if not bool(inside.any()):
        inside = torch.ones_like(inside)
    length = pair.spacing_mm * pair.disp_vox[0].square().sum(0).sqrt()[inside].double().numpy()
    apart = pair.spacing_mm * (pair.disp_vox - pair.coarse_vox)[0].square().sum(0).sqrt()[inside].double()
    measures = {
        "displacement_mean_mm": float(length.mean()),
        "displacement_p95_mm": float(np.percentile(length, 95)),
        "displacement_max_mm": float(length.max()),
        "displacement_share": float(length.mean()) / pair.width_mm,
        "refinement_mean_mm": float(apart.mean()),
        "disagreement_mean_mm": UNKNOWN,
        "disagreement_p95_mm": UNKNOWN,
    }
    if pair.disagreement_mm is not None:
        missed = pair.disagreement_mm[0, 0][inside].double().numpy()
        measures |= {
            "disagreement_mean_mm": float(missed.mean()),
            "disagreement_p95_mm": float(np.percentile(missed, 95)),
        }
    return measures


def _regularity(judged: Judged, pair: _Reduced) -> dict[str, float]:
    inside = _body(pair.fixed, pair.fixed_weight)[0]
    det = jacobian_determinant(pair.disp_vox)
    volumes = det[inside] if bool(inside.any()) else det.flatten()
    least, most = np.percentile(volumes.double().numpy(), VOLUME_PERCENTS)
    return {
        "volume_change_p1": float(least),
        "volume_change_p99": float(most),
        "sdlogj_body": sdlogj(pair.disp_vox) if min(pair.disp_vox.shape[2:]) > 2 * LOG_JACOBIAN_MARGIN else UNKNOWN,
    }


def _coverage(judged: Judged) -> dict[str, float]:
    """Which share of the fixed body the moving scan covers, and which share a body of its own size could cover.

    The coarse copies show the whole body; the working volumes end where the common view does.
    """
    fixed, moving = judged.copies
    fixed_body, moving_body = _body_of(fixed), _body_of(moving)
    if not (fixed_body.any() and moving_body.any()):
        return {"covered": UNKNOWN, "coverable": UNKNOWN}
    to_moving = moving.grid.inverse_affine @ fixed.map_in_units(judged.affine) @ fixed.grid.affine
    there = np.rint(transform_points(to_moving, np.argwhere(fixed_body))).astype(int)
    there = there[((there >= 0) & (there < moving.grid.shape)).all(1)]
    size = float(fixed_body.sum())
    covered = float(len(there) if moving.mask is None else moving.mask[tuple(there.T)].sum()) / size
    own = float(moving_body.sum() / abs(np.linalg.det(to_moving[:3, :3]))) / size
    # The moving scan also covers the body with its air, so that its own body may be the smaller of the two.
    return {"covered": covered, "coverable": min(1.0, max(own, covered, 1 / size))}


def _body_of(copy: CoarseCopy) -> NDArray[np.bool_]:
    counted = np.ones(copy.array.shape, bool) if copy.mask is None else copy.mask
    body: NDArray[np.bool_] = counted & (copy.array > body_threshold(copy.array[counted]))
    return body


def _orientation(judged: Judged) -> dict[str, float]:
    """How well the images would match in each other orientation, relative to their own."""
    ratios = orientation_ratios(*judged.copies, judged.affine)
    return {f"orientation_{ORIENTATIONS[flips]}": float(ratio) for flips, ratio in ratios.items()}


def _affine(judged: Judged) -> dict[str, float]:
    alignment, linear = judged.alignment, judged.affine[:3, :3]
    left, stretches, right = np.linalg.svd(linear)
    cosine = (np.trace(left @ right) - 1) / 2
    return {
        "affine_stretch_min": float(stretches.min()),
        "affine_stretch_max": float(stretches.max()),
        "affine_volume": float(np.linalg.det(linear)),
        "mutual_information": UNKNOWN if alignment is None else alignment.metric_after,
        "affine_stretch_excess": UNKNOWN if alignment is None else alignment.stretch_excess,
        "affine_rotation_degrees": float(np.degrees(np.arccos(np.clip(cosine, -1, 1)))),
    }
