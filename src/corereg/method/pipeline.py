"""The four stages composed, on tensors: features -> cost volume -> coupled convex -> instance optimisation.

Legend: volumes are (1, 1, I, J, K) on one working grid whose sizes are multiples of 16.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from corereg.geometry.displacement import Disp, sdlogj
from corereg.method.coarse.coupled_convex import CoupledConvexConfig
from corereg.method.coarse.passes import coarse_displacement, full_grid_displacement
from corereg.method.features.model import Encoded, FeatureModel, Image5D, project_features
from corereg.method.refine.energy import DIFFEOMORPHIC, RefineConfig
from corereg.method.refine.pair import Way, refine_ways
from corereg.method.refine.regularisation_search import search_regularisation
from corereg.method.stopwatch import Stopwatch

__all__ = ["GRID_MULTIPLE", "Registration", "StagesConfig", "full_grid_displacement", "register_volumes"]

GRID_MULTIPLE = 16
"""The working grid's sizes are multiples of this, so that every strided grid ends on the same voxel."""

FINE_VOXELS = 2_000_000
"""Working grids up to this size are refined on the full grid as well: seconds here, minutes on large ones."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StagesConfig:
    """The method's settings."""

    passes: tuple[int, ...] | None = None
    """Stride of the feature grid of each pass, in working voxels; (8, 8) is the paper's; None takes the model's own."""
    coupled_convex: CoupledConvexConfig = field(default_factory=CoupledConvexConfig)
    refine: RefineConfig = field(default_factory=RefineConfig)
    target_sdlogj: float | None = None
    """Search refine.regularisation until the displacement has this SDlogJ."""
    symmetric: bool = True
    """Register both ways and make the two refined displacements inverse to each other: next to no folds at the same
    overlap, for about twice the time."""
    fine: bool | None = None
    """Whether a refinement on the full grid follows that on the 1/2 grid; None: on grids of up to 2 million voxels."""
    seed: int = 0
    """Of the feature projection."""

    def __post_init__(self) -> None:
        if self.passes is not None and (not self.passes or any(s not in (4, 8, 16) for s in self.passes)):
            raise ValueError(f"passes must be strides among 4, 8 and 16, got {self.passes}")
        if self.target_sdlogj is not None and not 0 < self.target_sdlogj < 1:
            raise ValueError(f"target_sdlogj must lie between 0 and 1, got {self.target_sdlogj}")


@dataclass(frozen=True, slots=True)
class Registration:
    """What the stages found, on the full working grid in its voxels."""

    coarse: Disp
    refined: Disp
    losses: tuple[float, ...]
    """Energy before each step of the instance optimisation, on the 1/2 grid and then on the full one."""
    regularisation: float
    """R that was used: the given one, or the one that reaches the target."""
    seconds: Mapping[str, float]


def register_volumes(
    fixed: Image5D,
    moving: Image5D,
    model: FeatureModel,
    config: StagesConfig,
    *,
    fixed_weight: Float[Tensor, "1 1 I J K"] | None = None,
    moving_weight: Float[Tensor, "1 1 I J K"] | None = None,
    field_of_view: tuple[int, int, int] | None = None,
) -> Registration:
    """Register two volumes of one working grid.

    Args:
        fixed, moving: intensities scaled as the model expects them.
        fixed_weight, moving_weight: 1 where the image has data that counts, 0 elsewhere; None counts all.
        field_of_view: sizes of the part, from voxel 0, where `target_sdlogj` is measured: padding would smooth the
            figure; None measures everywhere.

    Raises:
        ValueError: the shapes differ or are no multiples of 16.
    """
    if fixed.shape != moving.shape or any(n % GRID_MULTIPLE for n in fixed.shape[2:]):
        raise ValueError(
            f"got shapes {tuple(fixed.shape)} and {tuple(moving.shape)}, expected one shape with sizes that are "
            f"multiples of {GRID_MULTIPLE}; pad the volumes first"
        )
    passes = config.passes or model.passes
    both_ways = config.symmetric or config.refine.parametrisation == DIFFEOMORPHIC
    images, counts = (fixed, moving), (fixed_weight, moving_weight)
    orders = ((0, 1), (1, 0)) if both_ways else ((0, 1),)
    watch = Stopwatch(fixed.device)
    project = partial(project_features, channels=config.refine.channels, seed=config.seed)
    with torch.no_grad():
        model.prepare(images)
        with watch("features"):
            encoded = [
                model.encode(image, strides, shallow=config.refine.steps > 0, project=project)
                for image, strides in zip(images, (passes, passes if both_ways else passes[:1]), strict=True)
            ]
        coarse = [
            coarse_displacement(
                encoded[f], images[m], encoded[m], model, passes=passes, config=config.coupled_convex, watch=watch
            )
            for f, m in orders
        ]
        with watch("upsample"):
            coarse_full = full_grid_displacement(coarse[0])
        if config.refine.steps == 0:
            return Registration(coarse_full, coarse_full, (), config.refine.regularisation, watch.seconds)
        with watch("features"):
            fine = _fine_features(model, images, config)
        half = [_shallow(one) for one in encoded]
        ways = [
            Way(start, (half[f], half[m]), None if fine is None else (fine[f], fine[m]), (counts[f], counts[m]))
            for start, (f, m) in zip(coarse, orders, strict=True)
        ]

    def refined_with(regularisation: float) -> tuple[float, tuple[Disp, tuple[float, ...]]]:
        with watch("refine"), torch.no_grad():
            settings = replace(config.refine, regularisation=regularisation)
            full, losses = refine_ways(ways, settings)
        i, j, k = field_of_view or full.shape[2:]
        return (sdlogj(full[:, :, :i, :j, :k]) if config.target_sdlogj else 0.0), (full, losses)

    regularisation = config.refine.regularisation
    if config.target_sdlogj is None:
        _, (refined, losses) = refined_with(regularisation)
    else:
        regularisation, (refined, losses) = search_regularisation(
            refined_with, target=config.target_sdlogj, start=regularisation
        )
    return Registration(coarse_full, refined, losses, regularisation, watch.seconds)


def _fine_features(
    model: FeatureModel, images: Sequence[Image5D], config: StagesConfig
) -> list[Float[Tensor, "1 C I J K"]] | None:
    """What the refinement on the full grid compares, or None where there is none."""
    wanted = config.fine if config.fine is not None else images[0].numel() <= FINE_VOXELS
    found = [model.fine(image) for image in images] if wanted else []
    given = [features for features in found if features is not None]
    return given or None


def _shallow(encoded: Encoded) -> Tensor:
    assert encoded.shallow is not None
    return encoded.shallow
