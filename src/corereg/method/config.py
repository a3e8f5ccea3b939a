"""All settings of `register`, stage by stage. Imports nothing heavy: the command line's help is made from this file.

A field marked `Option` is an option of `corereg register` and a keyword argument of `corereg.register`.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Final, Literal, TypeVar

from annotated_types import Ge, Gt, Interval, MinLen

from corereg.errors import InputError
from corereg.preprocessing.modality import Modality
from corereg.settings import Option, Setting, allowed, check, settings_of, with_options, with_settings

__all__ = [
    "AUTO",
    "CORRELATION",
    "DEFAULT_MODEL",
    "DIFFEOMORPHIC",
    "FEATURES",
    "MODELS",
    "PAPER_PASSES",
    "CoupledConvexConfig",
    "Device",
    "GuidanceConfig",
    "PipelineConfig",
    "Precision",
    "RefineConfig",
    "RegisterConfig",
    "Similarity",
    "documented",
    "paper_refine",
    "register_options",
    "with_keywords",
    "with_register_options",
]

Function = TypeVar("Function", bound=Callable[..., Any])

DEFAULT_MODEL = "mind"

MODELS = {
    "mind": "MIND-SSC descriptors, for two CTs together with the intensity: no training, also between CT and MR",
    "head-neck-ct": "the network trained on 74 unlabelled head-and-neck CTs, with MIND-SSC added in the refinement",
    "head-neck-ct-labels": "a U-Net trained on label maps of 74 head-and-neck CTs, with MIND-SSC added in every stage",
    "random": "the network with seeded random weights and statistics filled from the pair, as at the start of training",
}
"""The models on board, with a description of each."""

DIFFEOMORPHIC: Final = "diffeomorphic"
FEATURES: Final = "features"
CORRELATION: Final = "correlation"
AUTO: Final = "auto"

Affine = Literal["auto", "none", "rigid", "rigid-only", "affine-only"]
Similarity = Literal["auto", "features", "correlation"]
Device = Literal["auto", "cpu", "cuda", "mps"]
Precision = Literal["auto", "fp32", "bf16", "fp16"]

BYTES_PER_GB = 10**9
LARGEST_MEMORY_GB = 10**6

LARGEST_SEED = 2**32 - 2
"""What every generator takes, plus one for those to which 0 means the clock."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CoupledConvexConfig:
    """Settings of the discrete optimiser; the defaults are the paper's."""

    radius: Annotated[int, Ge(1)] = 2
    """Half-width of the search window in voxels of the pass's grid."""
    feature_scale: Annotated[float, Gt(0)] = 5.0
    """Factor on both images' features before they are compared."""
    sharpness: Annotated[float, Gt(0)] = 20.0
    """Factor on the costs in the soft-argmin."""
    couplings: tuple[Annotated[float, Ge(0)], ...] = (0.003, 0.03, 0.3)
    """Weights of |d - u|^2, one for each round of coupling."""
    inverse_consistency_steps: Annotated[int, Ge(0)] = 15
    """Fixed-point steps that make the two directions inverse to each other; 0 registers one direction only."""

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class RefineConfig:
    """Settings of the instance optimisation."""

    steps: Annotated[int, Ge(0), Option("refine_steps")] = 18
    """Adam steps of the instance optimisation; 0 skips it."""
    learning_rate: Annotated[float, Gt(0)] = 0.5
    """Learning rate in voxels of the 1/2 grid. The paper uses 1, at which more voxels fold for the same overlap."""
    momentum: Annotated[float, Interval(ge=0, lt=1)] = 0.7
    """Decay rate of Adam's mean of the gradient; 0.9 in the paper."""
    settling: Annotated[float, Interval(ge=0, le=1)] = 0.4
    """Share of the steps, at the end, over which the learning rate falls to 0; 0 in the paper."""
    regularisation: Annotated[Annotated[float, Ge(0)] | Literal["auto"], Option()] = 3.5
    """R, weight of the smoothness: larger is smoother; full grids above 3 million voxels take 0.7 of it. The paper
    trains with 1 and tests with the value that reaches a target SDlogJ; auto tries several on a copy of the pair whose
    motion is known, and takes the most accurate."""
    volume_preservation: Annotated[float, Ge(0), Option()] = 1.0
    """Weight of volume change relative to the other smoothness; tissue bends and slides more easily than it changes
    volume. 0 in the paper."""
    smoothing: Annotated[int, Ge(0)] = 8
    """Number of 3x3x3 means between the parameters and the displacement, on the full grid 3 at most. 3 in the paper."""
    reach: Annotated[int, Ge(0)] = 5
    """Radius in voxels of two wider means that are mixed into the others, so that what lies far apart moves together.
    0 in the paper, which has none."""
    channels: Annotated[int, Ge(1)] = 32
    """Features with more channels than this are projected to this many."""
    parametrisation: Annotated[Literal["displacement", "diffeomorphic"], Option()] = "displacement"
    """What is optimised: a displacement, or for diffeomorphic a velocity, whose flow cannot fold."""
    similarity: Annotated[Similarity, Option()] = "auto"
    """What the refinement compares: features alone, or correlation: the images' local correlation joins the features on
    the 1/2 grid and replaces them on the full grid. It tolerates bias fields but needs scans of similar contrast; auto
    measures whether they are."""

    def __post_init__(self) -> None:
        check(self)

    @property
    def smoothness(self) -> float:
        """R as a number, where it is one: `auto` is resolved before anything is refined."""
        assert self.regularisation != AUTO
        return float(self.regularisation)


def paper_refine() -> RefineConfig:
    """The instance optimisation as published."""
    return RefineConfig(
        steps=50,
        learning_rate=1.0,
        momentum=0.9,
        settling=0.0,
        smoothing=3,
        reach=0,
        regularisation=1.0,
        volume_preservation=0.0,
        similarity=FEATURES,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class PipelineConfig:
    """Settings of the stages from features to displacement."""

    passes: Annotated[tuple[Literal[4, 8, 16], ...] | None, MinLen(1), Option()] = None
    """Strides of the coarse passes in working voxels, such as 8,4; by default the model's own, the last of them twice
    above 3 million voxels. The paper's are 8,8."""
    coupled_convex: CoupledConvexConfig = field(default_factory=CoupledConvexConfig)
    refine: RefineConfig = field(default_factory=RefineConfig)
    target_sdlogj: Annotated[float | None, Interval(gt=0, lt=1), Option()] = None
    """Search R until the displacement has this SDlogJ."""
    symmetric: Annotated[bool, Option(off="one-way")] = True
    """Register both directions and make the displacements inverse to each other: next to no folds at the same overlap,
    for about twice the time."""
    fine: Annotated[bool | None, Option()] = None
    """Refine on the full grid as well; by default on grids of up to 24 million voxels, or 9 million where features
    alone are compared."""
    seed: Annotated[int, Interval(ge=0, le=LARGEST_SEED), Option()] = 0
    """Same seed, same result."""

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class GuidanceConfig:
    """What the user knows, and how much it counts."""

    labels: Annotated[bool, Option("guide_labels")] = False
    """Let the label maps of both scans guide the registration; labels that only one scan has do not."""
    only: Annotated[tuple[int | str, ...] | None, MinLen(1), Option("guide_only")] = None
    """Numbers or names of the labels that guide, such as 5,1 or liver,spleen; by default all that both scans have."""
    label_weight: Annotated[float, Gt(0), Option("guide_weight")] = 3.0
    """Weight of the labels that guide, relative to the images."""
    points: Annotated[bool, Option("guide_points")] = True
    """Let the landmarks of both scans guide the registration; otherwise they only measure it."""
    point_tolerance_mm: Annotated[float, Gt(0), Option("point_tolerance")] = 2.0
    """Distance in mm by which guiding landmarks may miss their partners."""
    unmatched_points: Annotated[bool, Option()] = False
    """The landmarks are clouds in any order and number: find out which belong together."""
    points_only: Annotated[bool, Option()] = False
    """Register by landmarks alone, and by the surfaces of FIXED and MOVING where these are masks; intensities do not
    count."""

    def __post_init__(self) -> None:
        check(self)

    @property
    def by_labels(self) -> bool:
        """Whether labels guide."""
        return self.labels or self.only is not None


PAPER_PASSES: tuple[Literal[8], ...] = (8, 8)


@dataclass(frozen=True, kw_only=True, slots=True)
class RegisterConfig:
    """Settings of `register`, from the scans to the transform."""

    model: Annotated[str, Option()] = DEFAULT_MODEL
    """Model: mind, head-neck-ct, head-neck-ct-labels, random, or a .safetensors file written by `corereg train`."""
    modality: Annotated[Modality, Option()] = "auto"
    """How intensities are scaled: ct, ct-abdomen (the abdominal window) or mr; auto decides for each image."""
    affine: Annotated[Affine, Option()] = "auto"
    """Pre-alignment: auto finds an affine map for pairs without an initial transform, or a rigid one where stretching
    gains little; rigid a rigid one; none trusts the headers. rigid-only and affine-only stop there: nothing deforms."""
    spacing_mm: Annotated[float | None, Gt(0), Option("spacing")] = None
    """Voxel size of the working grid in mm; by default chosen from the scans and the memory."""
    device: Annotated[Device, Option()] = "auto"
    """Where to compute; auto takes CUDA where it is available."""
    precision: Annotated[Precision, Option()] = "auto"
    """Number type of the network's convolutions; auto takes the fastest on the device."""
    memory_gb: Annotated[float | None, Interval(gt=0, le=LARGEST_MEMORY_GB), Option("memory")] = None
    """Memory to plan for in GB (10^9 bytes), by default what is free; a working grid that would take more is made
    coarser."""
    uncertainty: Annotated[bool, Option()] = False
    """Also map by how many mm the result may be off, a bound that 95 % of the voxels keep, into uncertainty.nii.gz."""
    thresholds: Annotated[str | None, Option()] = None
    """Thresholds of the verdict, a file written by `corereg calibrate`; by default those on board."""
    guidance: GuidanceConfig = field(default_factory=GuidanceConfig)
    stages: PipelineConfig = field(default_factory=PipelineConfig)

    def __post_init__(self) -> None:
        check(self)

    @property
    def deforms(self) -> bool:
        """Whether anything follows the pre-alignment."""
        return not self.affine.endswith("-only")

    @property
    def memory_bytes(self) -> int | None:
        """The bound of `memory_gb` in bytes."""
        return None if self.memory_gb is None else int(self.memory_gb * BYTES_PER_GB)


@dataclass(frozen=True, kw_only=True, slots=True)
class Preset:
    """Several settings of `register` under one name."""

    refine: Annotated[Literal["default", "paper"], Option()] = "default"
    """default, or paper: passes 8,8 and instance optimisation as published, one way and on the 1/2 grid alone. Other
    settings override it."""

    def __post_init__(self) -> None:
        check(self)


def documented(function: Function) -> Function:
    """Show the options of `register` in the signature and docstring of a function that takes them as `**settings`."""
    options = register_options()
    lines = (f"    {option.name}: {option.meaning} ({allowed(option.hint)})" for option in options)
    function.__doc__ = "\n".join([inspect.getdoc(function) or "", "", "Settings:", *lines])
    return with_keywords(function, {option.name: (option.hint, option.default) for option in options})


def with_keywords(function: Function, keywords: Mapping[str, tuple[Any, Any]]) -> Function:
    """Give a function that ends in `**settings` a signature with single keywords: name -> annotation and default."""
    *named, _ = inspect.signature(function).parameters.values()
    for name, (annotation, default) in keywords.items():
        named.append(inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation))
    function.__signature__ = inspect.signature(function).replace(parameters=named)  # type: ignore[attr-defined]
    return function


def register_options() -> list[Setting]:
    """The settings that `corereg register` and `corereg.register` take, with their defaults."""
    return [setting for config in (RegisterConfig(), Preset()) for setting in settings_of(config) if setting.name]


def with_register_options(config: RegisterConfig, options: Mapping[str, Any]) -> RegisterConfig:
    """The configuration with settings by the names of their options on top; None leaves a setting as it is.

    Raises:
        UnknownSettingError: a name that is not an option.
        InputError: a value outside its type or bounds, or two options that exclude each other.
    """
    if options.get("regularisation") is not None and options.get("target_sdlogj") is not None:
        raise InputError("got --regularisation and --target-sdlogj, expected one of them; the target searches R itself")
    if with_options(Preset(), {"refine": options.get("refine")}).refine == "paper":
        stages = {"passes": PAPER_PASSES, "refine": paper_refine(), "symmetric": False, "fine": False}
        config = with_settings(config, {"stages": stages})
    config = with_options(config, {name: value for name, value in options.items() if name != "refine"})
    if config.stages.target_sdlogj is not None and (not config.deforms or config.stages.refine.steps == 0):
        other = f"--affine {config.affine}" if not config.deforms else "--refine-steps 0"
        raise InputError(f"got --target-sdlogj and {other}, expected a refinement whose R is searched; drop one")
    if config.uncertainty and (config.guidance.points_only or not config.deforms):
        other = "--points-only" if config.guidance.points_only else f"--affine {config.affine}"
        raise InputError(f"got --uncertainty and {other}, expected images to be deformed onto each other; drop one")
    return config
