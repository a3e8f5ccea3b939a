"""The four stages in order, on tensors: features -> cost volume -> coupled convex -> instance optimisation.

Legend: volumes are (1, 1, I, J, K) on one working grid whose sizes are multiples of 16.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from corereg.geometry.displacement import Disp, sdlogj, unfold
from corereg.geometry.strided import halve, subsample
from corereg.geometry.warp import warp
from corereg.lazy import torch_generator
from corereg.method.coarse.passes import coarse_displacement, default_passes, full_grid_displacement
from corereg.method.config import AUTO, CORRELATION, DIFFEOMORPHIC, FEATURES, PipelineConfig, RefineConfig, Similarity
from corereg.method.features.model import Encoded, FeatureModel, Image5D, project_features
from corereg.method.guidance.known import NO_GUIDE, Guide
from corereg.method.guidance.labels import joined
from corereg.method.guidance.point_guide import PointGuide
from corereg.method.refine.correlation import contrast_agreement, contrast_weight, linearity
from corereg.method.refine.energy import Compared
from corereg.method.refine.optimise import refine
from corereg.method.refine.pair import Direction, Refined, compared_at_start, refine_pair
from corereg.method.refine.regularisation_choice import FIRST, choose_regularisation, rehearsed
from corereg.method.refine.regularisation_search import search_regularisation
from corereg.method.stopwatch import Stopwatch
from corereg.preprocessing.body import body_threshold
from corereg.preprocessing.working_grid import FINE_VOXELS, FINE_VOXELS_CORRELATED, GRID_MULTIPLE

__all__ = ["Registration", "no_deformation", "register_volumes"]

GUIDED_VOXELS = 4_000_000
"""On larger working grids, labels and further channels guide the full grid no more: their features would not fit the
memory that is planned for a pair."""

ONE_CONTRAST, LINEAR = 0.15, 0.55
"""Agreement and linearity of the coarsely aligned images above which local correlation serves them better than
features: 0.2 to 0.9 and 0.8 to 1.0 for two scans of one contrast, 0.0 to 0.8 and -1.0 to 0.1 for T1 with T2 or FLAIR:
benchmarks/history/correlation.md."""


@dataclass(frozen=True, slots=True)
class Registration:
    """Result of the stages; displacements are on the full working grid, in its voxels."""

    coarse: Disp
    refined: Disp
    losses: tuple[float, ...]
    """Energy before each step of the instance optimisation, on the 1/2 grid and then on the full grid."""
    regularisation: float
    """The R that was used: the configured one, the one that reached the target SDlogJ, or the one that the pair chose;
    NaN where R was to be chosen and nothing was refined."""
    similarity: Similarity
    """What the refinement compared: features alone, or correlation with them."""
    seconds: Mapping[str, float]
    """Seconds per stage."""
    points: PointGuide | None = None
    """The landmarks, judged."""
    disagreement_vox: Tensor | None = None
    """(1, X, Y, Z) on the 1/2 grid, voxels of the full one: see `refine_pair`."""


def no_deformation(fixed: Image5D, config: PipelineConfig) -> Registration:
    """The result where nothing is to deform."""
    still = fixed.new_zeros(len(fixed), 3, *fixed.shape[2:])
    return Registration(still, still, (), _configured(config.refine), FEATURES, {})


def register_volumes(
    fixed: Image5D,
    moving: Image5D,
    model: FeatureModel,
    config: PipelineConfig,
    *,
    fixed_weight: Float[Tensor, "1 1 I J K"] | None = None,
    moving_weight: Float[Tensor, "1 1 I J K"] | None = None,
    guide: Guide = NO_GUIDE,
    field_of_view: tuple[int, int, int] | None = None,
) -> Registration:
    """Register two volumes on one working grid.

    Args:
        fixed, moving: intensities scaled as the model expects them.
        fixed_weight, moving_weight: 1 where the image has data that counts, 0 elsewhere; None counts all.
        guide: labels that both images are matched by as well, and landmarks that correct the coarse and the final
            displacement, and structures that the final one moves rigidly.
        field_of_view: sizes of the region, from voxel 0, in which SDlogJ is compared with `target_sdlogj`, because
            padding would lower it; None measures everywhere.

    Raises:
        ValueError: the shapes differ or are not multiples of 16.
    """
    if fixed.shape != moving.shape or any(n % GRID_MULTIPLE for n in fixed.shape[2:]):
        raise ValueError(
            f"got shapes {tuple(fixed.shape)} and {tuple(moving.shape)}, expected equal shapes whose sizes are "
            f"multiples of {GRID_MULTIPLE}; pad the volumes first"
        )
    passes = config.passes or default_passes(model.passes, fixed.numel())
    both_directions = config.symmetric or config.refine.parametrisation == DIFFEOMORPHIC
    images, counts = (fixed, moving), (fixed_weight, moving_weight)
    orders = ((0, 1), (1, 0)) if both_directions else ((0, 1),)
    points, stiff = guide.points, None if guide.rigid is None else guide.rigid.stiffener()
    watch = Stopwatch(fixed.device)
    project = partial(project_features, channels=config.refine.channels, seed=config.seed)
    with torch.no_grad():
        model.prepare(images)
        with watch("features"):
            encoded = [
                model.encode(image, strides, shallow=config.refine.steps > 0, project=project)
                for image, strides in zip(images, (passes, passes if both_directions else passes[:1]), strict=True)
            ]
        drawn = guide.features("coarse")
        coarse = [
            coarse_displacement(
                encoded[f],
                images[m],
                encoded[m],
                model,
                passes=passes,
                config=config.coupled_convex,
                weights=(counts[f], counts[m]),
                guides=None if drawn is None else (drawn[f], drawn[m]),
                watch=watch,
            )
            for f, m in orders
        ]
        if points is not None:
            with watch("guide"):
                points = points.judged(coarse[0], 2)
                coarse = [points.corrected(one, 2, back=f > m) for one, (f, m) in zip(coarse, orders, strict=True)]
        with watch("upsample"):
            coarse_full = full_grid_displacement(coarse[0])
        if config.refine.steps == 0:
            final = coarse_full if stiff is None else unfold(stiff(coarse_full))
            return Registration(coarse_full, final, (), _configured(config.refine), FEATURES, watch.seconds, points)
        with watch("features"):
            similarity = _similarity(images, counts[0], coarse_full, config)
            half, full = _compared(model, images, [_shallow(one) for one in encoded], similarity, config)
            half = half.guided(guide.features("half"))
            if full is not None and fixed.numel() <= GUIDED_VOXELS:
                full = full.guided(guide.features("full"))
        directions = [
            Direction(start, half.between(f, m), None if full is None else full.between(f, m), (counts[f], counts[m]))
            for start, (f, m) in zip(coarse, orders, strict=True)
        ]

    def rehearsal() -> float:
        """R by a pair like this one whose motion is known."""
        first, *_ = refine(compared_at_start(directions[0]), coarse[0], replace(config.refine, regularisation=FIRST))
        generator = torch_generator(config.seed)
        like = rehearsed(
            *images, full_grid_displacement(first), one_contrast=similarity == CORRELATION, generator=generator
        )
        shallow = [_shallow(model.encode(image, (), project=project)) for image in like]
        given, _ = _compared(model, like, shallow, similarity, replace(config, fine=False))
        compared = compared_at_start(directions[0]._replace(half=given.between(0, 1)))
        return choose_regularisation(compared, coarse[0], first, _body(fixed, fixed_weight), config.refine)

    def refined_with(regularisation: float) -> tuple[float, Refined]:
        with watch("refine"), torch.no_grad():
            settings = replace(config.refine, regularisation=regularisation)
            found = refine_pair(directions, settings)
        full = found.disp_vox
        if points is not None or stiff is not None:
            with watch("guide"), torch.no_grad():
                full = full if points is None else points.settled(coarse_full, full)
                full = full if stiff is None else unfold(stiff(full))
        i, j, k = field_of_view or full.shape[2:]
        reached = sdlogj(full[:, :, :i, :j, :k]) if config.target_sdlogj else 0.0
        return reached, found._replace(disp_vox=full)

    if config.target_sdlogj is not None:
        start = RefineConfig().smoothness if config.refine.regularisation == AUTO else config.refine.smoothness
        regularisation, found = search_regularisation(refined_with, target=config.target_sdlogj, start=start)
    else:
        if config.refine.regularisation == AUTO:
            with watch("regularisation"), torch.no_grad():
                regularisation = rehearsal()
        else:
            regularisation = config.refine.smoothness
        _, found = refined_with(regularisation)
    end = points, found.disagreement_vox
    return Registration(coarse_full, found.disp_vox, found.losses, regularisation, similarity, watch.seconds, *end)


def _body(image: Image5D, weight: Tensor | None) -> Tensor:
    """1 on the 1/2 grid where the image shows a body, by its weight."""
    body = (image > body_threshold(image.cpu().numpy())).to(image.dtype)
    return subsample(body if weight is None else weight * body, 2)


def _configured(config: RefineConfig) -> float:
    return math.nan if config.regularisation == AUTO else config.smoothness


def _similarity(
    images: Sequence[Image5D], fixed_weight: Tensor | None, coarse: Disp, config: PipelineConfig
) -> Similarity:
    """What the refinement is to compare: as configured, or local correlation if the images show one contrast."""
    if config.refine.similarity != "auto":
        return config.refine.similarity
    fixed, warped = images[0], warp(images[1], coarse)
    if contrast_agreement(fixed, warped, weight=fixed_weight) <= ONE_CONTRAST:
        return FEATURES
    body = _body(fixed, fixed_weight) * _body(warped, None)
    return CORRELATION if linearity(subsample(fixed, 2), subsample(warped, 2), body) > LINEAR else FEATURES


class _Given(NamedTuple):
    """What one grid compares of each image."""

    features: Sequence[Tensor] | None
    images: Sequence[Tensor] | None = None
    everywhere: bool = False
    """Whether voxels without contrast count as much as others."""

    def between(self, fixed: int, moving: int) -> Compared:
        """What is compared between two of the images."""
        features, images = (
            None if each is None else (each[fixed], each[moving]) for each in (self.features, self.images)
        )
        weight = None if images is None or self.everywhere else contrast_weight(images[0])
        return Compared(features, images, weight)

    def guided(self, channels: Sequence[Tensor] | None) -> "_Given":
        """The same with guiding channels of each image, if there are any."""
        if channels is None:
            return self
        features: Sequence[Tensor | None] = self.features or [None] * len(channels)
        guided = [joined(*each) for each in zip(features, channels, strict=True)]
        return self._replace(features=guided, everywhere=True)


def _compared(
    model: FeatureModel,
    images: Sequence[Image5D],
    shallow: Sequence[Tensor],
    similarity: Similarity,
    config: PipelineConfig,
) -> tuple[_Given, _Given | None]:
    """What the 1/2 grid and the full one compare; None if there is no refinement on the full grid."""
    correlated = similarity == CORRELATION
    half = _Given(shallow, [halve(image) for image in images] if correlated else None)
    most_voxels = FINE_VOXELS_CORRELATED if correlated else FINE_VOXELS
    if not (images[0].numel() <= most_voxels if config.fine is None else config.fine):
        return half, None
    found = [model.fine(image, correlated=correlated) for image in images]
    features = [each for each in found if each is not None] or None
    if features is None and not correlated:
        return half, None
    return half, _Given(features, images if correlated else None)


def _shallow(encoded: Encoded) -> Tensor:
    assert encoded.shallow is not None
    return encoded.shallow
