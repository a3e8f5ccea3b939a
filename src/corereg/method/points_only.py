"""Registration without intensities: by matched landmarks, and by the surfaces of two masks.

Upstream: guidance. The stages run on the guide alone. Downstream: `register`.
"""

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from corereg.errors import InputError
from corereg.geometry.chain import inverse_parts, through
from corereg.geometry.displacement import unfold
from corereg.geometry.grid import Grid, Matrix, transform_points
from corereg.geometry.positions import as_points, as_positions
from corereg.io.images.image import Image
from corereg.method.affine.align import Alignment
from corereg.method.config import FEATURES, RegisterConfig
from corereg.method.features.model import Encoded, Image5D, Projection
from corereg.method.guidance.known import Known
from corereg.method.guidance.labels import GuidingLabels
from corereg.method.guidance.rigid import rigid_fit
from corereg.method.guidance.start import check_overlap
from corereg.method.models import ModelChoice
from corereg.method.pipeline import Registration, no_deformation, register_volumes
from corereg.preprocessing.working_grid import field_of_view
from corereg.settings import with_settings

__all__ = ["POINTS_ONLY", "alignment_without_images", "register_without_images"]

FITTINGS = 20
"""Rounds in which landmarks that a fitted map misses come to weigh less."""
FLAT = 1e-3
"""Landmarks whose spread along one direction is below this share of the widest do not determine an affine map."""


class NoFeatures:
    """A model that sees nothing, so that only guides count. See `FeatureModel`."""

    name = "none"
    passes: tuple[int, ...] = (8, 4)

    def encode(
        self, image: Image5D, strides: Iterable[int], *, shallow: bool = True, project: Projection | None = None
    ) -> Encoded:
        """Features of no channels."""
        return Encoded(_nothing(image, 2) if shallow else None, {stride: _nothing(image, stride) for stride in strides})

    def fine(self, image: Image5D, *, correlated: bool = False) -> Tensor:
        """The same on the full grid."""
        return _nothing(image, 1)

    def prepare(self, images: Iterable[Image5D]) -> None:
        """Does nothing."""


POINTS_ONLY = ModelChoice(NoFeatures(), NoFeatures.name)


def alignment_without_images(
    known: Known, images: tuple[Image, Image], config: RegisterConfig, *, started: bool
) -> Alignment | None:
    """The pre-alignment: the map that fits the landmarks, or else brings masks that lie apart onto each other.

    Args:
        started: whether an initial transform has already placed the moving image.

    Returns: None where the settings exclude one or none is needed.

    Raises:
        InputError: a map alone is wanted and nothing determines it, or nothing overlaps.
    """
    guided = known.landmarks is not None and config.guidance.points
    if not config.deforms and not guided:
        raise InputError(
            f"got --affine {config.affine} with --points-only and no landmarks, expected some to fit the map to; add "
            "--fixed-points and --moving-points"
        )
    skipped = config.affine == "none" or (config.affine == "auto" and started)
    if known.landmarks is not None and guided:
        if skipped:
            return None
        there = as_points(through(inverse_parts(known.start.parts), as_positions(known.landmarks.moving_mm)))
        matrix = _fitted(known.landmarks.fixed_mm, there, config)
        return Alignment(matrix, "landmarks", np.nan, np.nan, True)
    masks = [_as_mask(image) for image in images]
    if masks[0] is None or masks[1] is None or known.labels is not None:
        return None
    inside = [mask.grid.to_world(np.argwhere(mask.array)) for mask in masks if mask is not None]
    back = as_points(through(inverse_parts(known.start.parts), as_positions(inside[1])))
    vox = np.floor(images[0].grid.to_voxel(back) + 0.5).astype(int)
    vox = vox[((vox >= 0) & (vox < images[0].grid.shape)).all(1)]
    if masks[0].array[tuple(vox.T)].any():
        return None
    if skipped:
        check_overlap(known.start, *images, "expected masks that meet; drop --affine none")
        return None
    matrix = np.eye(4)
    matrix[:3, 3] = back.mean(0) - inside[0].mean(0)
    return Alignment(matrix, "masks", np.nan, np.nan, True)


def _fitted(fixed_mm: NDArray[np.float64], moving_mm: NDArray[np.float64], config: RegisterConfig) -> Matrix:
    """The map, (4, 4), that brings most landmarks (N, 3) to their partners; few that contradict it hardly count."""
    affine = config.affine == "affine-only"
    spread = np.linalg.svd(fixed_mm - fixed_mm.mean(0), compute_uv=False)
    if affine and (len(spread) < 3 or spread[2] <= FLAT * spread[0] or len(fixed_mm) < 4):
        raise InputError(
            f"got {len(fixed_mm)} landmarks for --affine affine-only, expected at least 4 that do not lie in a plane; "
            "add some or use rigid-only"
        )
    weights = np.ones(len(fixed_mm))
    for _ in range(FITTINGS):
        matrix = (_affine_fit if affine else rigid_fit)(fixed_mm, moving_mm, weights)
        missed = np.linalg.norm(transform_points(matrix, fixed_mm) - moving_mm, axis=1)
        weights = 1 / missed.clip(config.guidance.point_tolerance_mm)
    return matrix


def _affine_fit(fixed_mm: NDArray[np.float64], moving_mm: NDArray[np.float64], weights: NDArray[np.float64]) -> Matrix:
    root = np.sqrt(weights)[:, None]
    rows = np.concatenate([fixed_mm, np.ones((len(fixed_mm), 1))], 1)
    solution, *_ = np.linalg.lstsq(root * rows, root * moving_mm, rcond=None)
    return np.concatenate([solution.T, [[0.0, 0.0, 0.0, 1.0]]])


def register_without_images(
    known: Known, images: tuple[Image, Image], working: Grid, affine: Matrix | None, config: RegisterConfig
) -> tuple[Registration, Known, RegisterConfig]:
    """Register by what is known alone, the surfaces of two masks included, after a pre-alignment.

    Returns: the registration, what it was guided by, and the settings as resolved.

    Raises:
        InputError: the images are no masks, and there are no landmarks.
    """
    resolved = {"stages.refine.similarity": FEATURES, "stages.passes": config.stages.passes or (8, 4)}
    config = with_settings(config, resolved)
    if not config.deforms:
        return no_deformation(torch.zeros(1, 1, *working.shape), config.stages), known, config
    masks = [_as_mask(image) for image in images]
    if known.labels is None and masks[0] is not None and masks[1] is not None:
        known = known._replace(labels=GuidingLabels(masks[0], masks[1], [1]))
    guide = known.guide(working, affine, config, torch.device("cpu"))
    blank = torch.zeros(1, 1, *working.shape)
    if guide.labels is not None:
        view = field_of_view(images[0].grid, working)
        return (
            register_volumes(blank, blank, NoFeatures(), config.stages, guide=guide, field_of_view=view),
            known,
            config,
        )
    if guide.points is None:
        raise InputError(
            f"got {images[0].name} and {images[1].name} to register without intensities, expected landmarks or two "
            "masks; add --fixed-points and --moving-points"
        )
    still = no_deformation(blank, config.stages)
    points = guide.points.judged(still.refined, 1)
    found = points.corrected(still.refined, 1)
    found = unfold(found if guide.rigid is None else guide.rigid.stiffener()(found))
    return replace(still, coarse=found, refined=found, points=points), known, config


def _as_mask(image: Image) -> Image | None:
    """The image as a label map of 0 and 1 if it has two values, one of them 0."""
    values = np.unique(image.array)
    if len(values) != 2 or values[0] != 0:
        return None
    return replace(image, array=(image.array > 0).astype(np.uint8))


def _nothing(image: Image5D, stride: int) -> Tensor:
    i, j, k = (n // stride for n in image.shape[2:])
    return image.new_zeros(len(image), 0, i, j, k)
