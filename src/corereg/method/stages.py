"""The four stages composed, on tensors: features -> cost volume -> coupled convex -> instance optimisation.

Legend: volumes are (1, 1, I, J, K) on one working grid whose sizes are multiples of 16.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from corereg.geometry.displacement import Disp, compose, sdlogj, upsample_displacement
from corereg.geometry.resample import subsample
from corereg.geometry.warp import identity_coords, sample, warp
from corereg.method.coupled_convex import CoupledConvexConfig, inverse_consistent, match
from corereg.method.features import Encoded, FeatureModel, Image5D
from corereg.method.refine import RefineConfig, project_features, refine
from corereg.method.target import search_regularisation

__all__ = [
    "GRID_MULTIPLE",
    "Registration",
    "StagesConfig",
    "Stopwatch",
    "coarse_displacement",
    "full_grid_displacement",
    "half_grid_displacement",
    "register_volumes",
]

GRID_MULTIPLE = 16
"""The working grid's sizes are multiples of this, so that every strided grid ends on the same voxel."""

COARSE_SMOOTHING = 2
FINAL_SMOOTHING = 3
"""3x3x3 means after each doubling of a coarse displacement, and after the refined one is brought to the full grid."""


SYMMETRY_STEPS = 15
"""Fixed-point steps between the two directions, as many as in the coarse stage."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StagesConfig:
    """The method's settings."""

    passes: tuple[int, ...] | None = None
    """Stride of the feature grid of each pass, in working voxels; (8, 8) is the paper's; None takes the model's own."""
    coupled_convex: CoupledConvexConfig = field(default_factory=CoupledConvexConfig)
    refine: RefineConfig = field(default_factory=RefineConfig)
    target_sdlogj: float | None = None
    """Search refine.regularisation until the displacement has this SDlogJ."""
    symmetric: bool = False
    """Register both ways and make the two refined displacements inverse to each other: next to no folds at the same
    overlap, for about half as much time again."""
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
    """Energy before each step of the instance optimisation."""
    regularisation: float
    """R that was used: the given one, or the one that reaches the target."""
    seconds: Mapping[str, float]


class Stopwatch:
    """Seconds per named stage; waits for the device so that a stage pays for its own work."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        self._wait()
        start = time.perf_counter()
        yield
        self._wait()
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


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
    watch = Stopwatch(fixed.device)
    with torch.no_grad():
        model.prepare([fixed, moving])
        with watch("features"):
            fixed_encoded = _encode(model, fixed, passes, config)
            moving_encoded = _encode(model, moving, passes if config.symmetric else passes[:1], config)

        def match_from(
            one: Encoded, image: Image5D, other: Encoded, weight: Tensor | None, other_weight: Tensor | None
        ) -> _Matched:
            half = coarse_displacement(
                one, image, other, model, passes=passes, config=config.coupled_convex, watch=watch
            )
            return _Matched(half, one.shallow, other.shallow, _half_grid_weight(half, weight, other_weight))

        ways = [match_from(fixed_encoded, moving, moving_encoded, fixed_weight, moving_weight)]
        if config.symmetric:
            ways.append(match_from(moving_encoded, fixed, fixed_encoded, moving_weight, fixed_weight))
        with watch("upsample"):
            coarse = full_grid_displacement(ways[0].coarse)
    if config.refine.steps == 0:
        return Registration(coarse, coarse, (), config.refine.regularisation, watch.seconds)

    def refined_with(regularisation: float) -> tuple[float, tuple[Disp, tuple[float, ...]]]:
        with watch("refine"):
            settings = replace(config.refine, regularisation=regularisation)
            found = [refine(*way.features, way.coarse, settings, weight=way.weight) for way in ways]
            half, losses = found[0]
            if config.symmetric:
                half, _ = inverse_consistent(half, found[1][0], steps=SYMMETRY_STEPS)
        with watch("upsample"):
            full = full_grid_displacement(half, smoothing=FINAL_SMOOTHING)
        i, j, k = field_of_view or full.shape[2:]
        return (sdlogj(full[:, :, :i, :j, :k]) if config.target_sdlogj else 0.0), (full, losses)

    regularisation = config.refine.regularisation
    if config.target_sdlogj is None:
        _, (refined, losses) = refined_with(regularisation)
    else:
        regularisation, (refined, losses) = search_regularisation(
            refined_with, target=config.target_sdlogj, start=regularisation
        )
    return Registration(coarse, refined, losses, regularisation, watch.seconds)


class _Matched(NamedTuple):
    """One direction before its refinement, on the 1/2 grid."""

    coarse: Disp
    fixed: Tensor | None
    moving: Tensor | None
    weight: Tensor | None

    @property
    def features(self) -> tuple[Tensor, Tensor]:
        assert self.fixed is not None
        assert self.moving is not None
        return self.fixed, self.moving


def _encode(model: FeatureModel, image: Image5D, strides: Sequence[int], config: StagesConfig) -> Encoded:
    """An image's features, those of the refinement projected at once: before that they take the most memory of all."""
    encoded = model.encode(image, strides, shallow=config.refine.steps > 0)
    if encoded.shallow is None:
        return encoded
    return encoded._replace(shallow=project_features(encoded.shallow, config.refine.channels, seed=config.seed))


def coarse_displacement(
    fixed_encoded: Encoded,
    moving: Image5D,
    moving_encoded: Encoded,
    model: FeatureModel,
    *,
    passes: Sequence[int],
    config: CoupledConvexConfig,
    watch: Stopwatch | None = None,
) -> Float[Tensor, "B 3 X Y Z"]:
    """Stages 2 and 3, pass after pass: each registers the moving image as warped by those before it.

    Args:
        fixed_encoded: features for every pass.
        moving: (B, 1, I, J, K), warped and encoded again after the first pass.
        moving_encoded: its features for the first pass.

    Returns: (B, 3, I/2, J/2, K/2), voxels of the 1/2 grid.
    """
    watch = watch or Stopwatch(moving.device)
    half_shape = [n // 2 for n in moving.shape[2:]]
    total: Disp | None = None
    for stride in passes:
        if total is not None:
            with watch("warp"):
                warped = warp(moving, full_grid_displacement(total))
            with watch("features"):
                moving_encoded = model.encode(warped, [stride], shallow=False)
        with watch("coupled_convex"):
            found = match(fixed_encoded.cost[stride], moving_encoded.cost[stride], config)
            step = half_grid_displacement(found, stride, half_shape)
            total = step if total is None else compose(total, step)
    assert total is not None
    return total


def half_grid_displacement(disp_vox: Disp, stride: int, shape: Sequence[int]) -> Float[Tensor, "B 3 X Y Z"]:
    """A displacement found on the grid of a pass, on the 1/2 grid of `shape`, smoothed on the way."""
    return upsample_displacement(disp_vox, stride // 2, shape, smoothing=COARSE_SMOOTHING)


def full_grid_displacement(half: Disp, *, smoothing: int = COARSE_SMOOTHING) -> Float[Tensor, "B 3 X Y Z"]:
    """A displacement of the 1/2 grid on the full grid."""
    return upsample_displacement(half, 2, [2 * n for n in half.shape[2:]], smoothing=smoothing)


def _half_grid_weight(coarse_half: Disp, fixed_weight: Tensor | None, moving_weight: Tensor | None) -> Tensor | None:
    """Voxels of the 1/2 grid that count: those of the fixed image whose match so far lies in the moving one's data."""
    weight = None if fixed_weight is None else subsample(fixed_weight, 2)
    if moving_weight is not None:
        coords = 2 * (identity_coords(coarse_half.shape[2:], like=coarse_half) + coarse_half)
        reached = sample(moving_weight, coords)
        weight = reached if weight is None else weight * reached
    return weight
