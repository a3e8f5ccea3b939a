"""The four stages composed, on tensors: features -> cost volume -> coupled convex -> instance optimisation.

Legend: volumes are (1, 1, I, J, K) on one working grid whose sizes are multiples of 16.
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float
from torch import Tensor

from corereg.geometry.displacement import Disp, compose, sdlogj, upsample_displacement
from corereg.geometry.resample import subsample
from corereg.geometry.warp import identity_coords, sample, warp
from corereg.method.coupled_convex import CoupledConvexConfig, match
from corereg.method.features import FeatureModel, Image5D
from corereg.method.refine import RefineConfig, project_features, refine
from corereg.method.target import search_regularisation

__all__ = ["GRID_MULTIPLE", "Registration", "StagesConfig", "Stopwatch", "register_volumes"]

GRID_MULTIPLE = 16
"""The working grid's sizes are multiples of this, so that every strided grid ends on the same voxel."""

COARSE_SMOOTHING = 2
FINAL_SMOOTHING = 3
"""3x3x3 means after each doubling of a coarse displacement, and after the refined one is brought to the full grid."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StagesConfig:
    """The method's settings."""

    passes: tuple[int, ...] | None = None
    """Stride of the feature grid of each pass, in working voxels; (8, 8) is the paper's; None takes the model's own."""
    coupled_convex: CoupledConvexConfig = field(default_factory=CoupledConvexConfig)
    refine: RefineConfig = field(default_factory=RefineConfig)
    target_sdlogj: float | None = None
    """Search refine.regularisation until the displacement has this SDlogJ."""
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
    config = replace(config, passes=config.passes or model.passes)
    watch = Stopwatch(fixed.device)
    with torch.no_grad():
        model.prepare([fixed, moving])
        coarse_half, fixed_features, moving_features = _coarse(fixed, moving, model, config, watch)
        weight = _half_grid_weight(coarse_half, fixed_weight, moving_weight)
        with watch("upsample"):
            coarse = _to_full_grid(coarse_half, smoothing=COARSE_SMOOTHING)
    if config.refine.steps == 0:
        return Registration(coarse, coarse, (), config.refine.regularisation, watch.seconds)
    with watch("refine"):
        fixed_features, moving_features = (
            project_features(f, config.refine.channels, seed=config.seed) for f in (fixed_features, moving_features)
        )

    def refined_with(regularisation: float) -> tuple[float, tuple[Disp, tuple[float, ...]]]:
        with watch("refine"):
            settings = replace(config.refine, regularisation=regularisation)
            half, losses = refine(fixed_features, moving_features, coarse_half, settings, weight=weight)
        with watch("upsample"):
            full = _to_full_grid(half, smoothing=FINAL_SMOOTHING)
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


def _coarse(
    fixed: Image5D, moving: Image5D, model: FeatureModel, config: StagesConfig, watch: Stopwatch
) -> tuple[Float[Tensor, "B 3 X Y Z"], Tensor, Tensor]:
    """Displacement on the 1/2 grid after all passes, and both images' features for the refinement."""
    assert config.passes is not None
    with watch("features"):
        fixed_encoded = model.encode(fixed, config.passes)
        moving_encoded = model.encode(moving, config.passes[:1])
    shallow = moving_encoded.shallow
    half_shape = shallow.shape[2:]
    total: Disp | None = None
    for stride in config.passes:
        if total is not None:
            with watch("warp"):
                warped = warp(moving, _to_full_grid(total, smoothing=COARSE_SMOOTHING))
            with watch("features"):
                moving_encoded = model.encode(warped, [stride])
        with watch("coupled_convex"):
            found = match(fixed_encoded.cost[stride], moving_encoded.cost[stride], config.coupled_convex)
            step = upsample_displacement(found, stride // 2, half_shape, smoothing=COARSE_SMOOTHING)
            total = step if total is None else compose(total, step)
    assert total is not None
    return total, fixed_encoded.shallow, shallow


def _to_full_grid(half: Disp, *, smoothing: int) -> Float[Tensor, "B 3 X Y Z"]:
    return upsample_displacement(half, 2, [2 * n for n in half.shape[2:]], smoothing=smoothing)


def _half_grid_weight(coarse_half: Disp, fixed_weight: Tensor | None, moving_weight: Tensor | None) -> Tensor | None:
    """Voxels of the 1/2 grid that count: those of the fixed image whose match so far lies in the moving one's data."""
    weight = None if fixed_weight is None else subsample(fixed_weight, 2)
    if moving_weight is not None:
        coords = 2 * (identity_coords(coarse_half.shape[2:], like=coarse_half) + coarse_half)
        reached = sample(moving_weight, coords)
        weight = reached if weight is None else weight * reached
    return weight
