"""Settings of a training run, saved with the weights. `--set key=value` and `--config` change them."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Interval, Lt, MinLen, MultipleOf

from corereg.errors import InputError
from corereg.method.config import AUTO, CoupledConvexConfig, RefineConfig
from corereg.method.features.network import NetworkConfig
from corereg.preprocessing.modality import Modality
from corereg.settings import check
from corereg.training.objective.views import Appearance

__all__ = ["AugmentConfig", "ContrastConfig", "LabelsConfig", "PseudoLabelConfig", "TrainConfig", "training_refine"]

Deviation = Annotated[float, Ge(0)]


@dataclass(frozen=True, kw_only=True, slots=True)
class AugmentConfig:
    """Random affine maps, as standard deviations of their twelve entries in coordinates from -1 to 1."""

    fixed: Deviation = 0.075
    """Strength of A1, which resamples the fixed image."""
    moving: Deviation = 0.05
    """Strength of the difference in A2 = (identity + N(0, moving)) A1, which resamples the moving image."""
    contrast: tuple[Deviation, Deviation] = (0.03, 0.02)
    """Strengths of the view that the contrast compares with: (identity + N(0, second)) (identity + N(0, first))."""
    appearance: tuple[Appearance, ...] = ("bezier",)
    """What an intensity view changes; bias-field, noise and contrast need MONAI."""

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class ContrastConfig:
    """The equivariance loss, equation 3 of CoRe."""

    points: Annotated[int, Ge(1)] = 1000
    """Locations drawn in each image."""
    margin: Annotated[int, Ge(0)] = 5
    """Voxels of the 1/4 grid kept clear at its border."""
    temperature: Annotated[float, Gt(0)] = 0.1
    """Temperature of the loss."""
    negatives: Literal["both", "opposite"] = "both"
    """Views that negatives come from."""
    negatives_from: Literal["batch", "image", "elsewhere"] = "batch"
    """Where negatives come from: all images of the batch; only the two views of the same image, as in the paper; or all
    images except, in other images, around the point's own place, where the same anatomy is likely to be."""
    positives: Literal["views", "patients"] = "views"
    """What else is drawn together: the same point in two views of one image, as in the paper; or also the two scans'
    points that a pseudo-label matches, where both of its directions agree."""
    agreement: Annotated[float, Gt(0)] = 1.0
    """For patients: voxels of the 1/2 grid by which the directions may miss each other."""
    same_place: Annotated[float, Ge(0)] = 3.0
    """For elsewhere: radius of the same place in voxels of the 1/4 grid."""
    weight: Annotated[float, Ge(0)] = 10.0
    """lambda at the start."""
    decay: Literal["run", "cycle", "none"] = "run"
    """lambda falls linearly to zero over the run, falls over each cycle, or stays."""

    def __post_init__(self) -> None:
        check(self)


def training_refine(regularisation: float) -> RefineConfig:
    """The instance optimisation that makes labels and validates: the weights on board were trained with it, and wider
    means have not been tried there."""
    return RefineConfig(steps=25, regularisation=regularisation, volume_preservation=0.0, smoothing=3, reach=0)


@dataclass(frozen=True, kw_only=True, slots=True)
class PseudoLabelConfig:
    """The sweep at the start of each cycle."""

    pairs: Annotated[int | None, Ge(1)] = 300
    """Pairs drawn for each cycle; null takes all, whose number grows with the square of the scans."""
    refine: RefineConfig = field(default_factory=lambda: training_refine(10.0))
    """Instance optimisation that makes the label. R = 1 is the paper's; with it labels fold."""
    batch: Annotated[int, Ge(1)] = 1
    """Pairs refined together: more fill a GPU."""
    encoded_scans: Annotated[int, Ge(0)] = 100
    """Scans whose features are kept in memory during the sweep."""

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelsConfig:
    """Training on label maps."""

    source: str = "listed"
    """Where they are: listed by the data set, or the folder that holds them."""
    channels: Annotated[tuple[Annotated[int, Ge(1)], ...], MinLen(1)] = (16, 48, 64, 96)
    """Channels of the U-Net on the 1/2 grid, the 1/4 grid, and so on."""
    crop: Annotated[int, Ge(16), MultipleOf(16)] = 64
    """Edge in voxels of the part of a scan that a step sees: small parts train faster, and large ones show more."""
    affine: Deviation = 0.08
    """Strength of the random affine map that resamples a scan and its map."""
    gain: Deviation = 0.1
    """Standard deviation of the factor on a scan's intensities around 1."""
    offset: Deviation = 0.05
    """Standard deviation of what is added to a scan's scaled intensities."""
    noise: Deviation = 0.05
    """Standard deviation of the noise's own standard deviation."""
    painted: Annotated[float, Interval(ge=0, le=1)] = 0.0
    """Share of the views that are painted anew, each structure in a random grey: such networks read any contrast. With
    1, label maps without scans are enough."""
    bend: Deviation = 0.0
    """Largest standard deviation in voxels of the smooth random displacement that bends a view."""
    zoom: Annotated[float, Ge(1)] = 1.0
    """Largest factor by which a view is enlarged or reduced."""
    mirrored: bool = False
    """Mirror half of the views left to right; the two sides of an organ must then have one label."""
    slices: Annotated[float, Ge(1)] = 1.0
    """Half of the views show slices up to this many voxels thick."""
    peeled: tuple[Annotated[int, Ge(1)], ...] = ()
    """Labels that half of the views lack, from the outside in: the first, or the first few. Networks trained so also
    read scans without a skull."""
    sure: Annotated[float, Interval(ge=0, le=1)] = 0.9
    """Probability from which a voxel's prediction trains, on scans without a label map."""

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig:
    """A training run."""

    objective: Literal["joint", "registration", "contrastive", "labels"] = "joint"
    """Both losses; pseudo-labels alone (RegCyc); contrast first, then the head alone on a frozen extractor; or label
    maps (`--labels`)."""
    views: Literal["geometric", "intensity", "both"] = "geometric"
    """What the contrast makes features equivariant or invariant to."""
    cycles: Annotated[int, Ge(1)] = 8
    """Rounds of pseudo-labels and training: the paper's stages."""
    steps_per_cycle: Annotated[int, Ge(1)] = 1000
    """Training steps in each cycle."""
    batch_size: Annotated[int, Ge(1)] = 2
    """Pairs per step and device."""
    learning_rate: Annotated[float, Gt(0)] = 1e-3
    """Learning rate at the start of every cycle."""
    final_learning_rate: Annotated[float, Gt(0)] = 1e-5
    """Learning rate at the end of every cycle, reached along a cosine."""
    registration_loss: Literal["mse", "epe"] = "mse"
    """Mean squared error, or mean end-point error, between displacement and pseudo-label."""
    margin: Annotated[int, Ge(0)] = 8
    """Voxels of the 1/2 grid that the registration loss leaves out at each face."""
    head_scale: Annotated[float, Gt(0)] = 0.1
    """Factor on the heads' first weights: large costs saturate the soft-argmin, which then has no gradient."""
    network: NetworkConfig = field(default_factory=lambda: NetworkConfig(strides=(8, 4)))
    passes: Annotated[tuple[Literal[4, 8], ...], MinLen(1)] = (8, 4)
    """Strides of the passes, each trained on the displacement that the passes before it leave."""
    coupled_convex: CoupledConvexConfig = field(default_factory=CoupledConvexConfig)
    """The optimiser that both losses' gradients pass through, and that makes pseudo-labels."""
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    contrast: ContrastConfig = field(default_factory=ContrastConfig)
    pseudo_labels: PseudoLabelConfig = field(default_factory=PseudoLabelConfig)
    labels: LabelsConfig = field(default_factory=LabelsConfig)
    seed: Annotated[int, Ge(0)] = 0
    """Seed of weights, draws and views: same seed, same run on the CPU."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Number type of the convolutions; auto takes bf16 if the processor has it."""
    checkpoint_every: Annotated[int, Ge(1)] = 200
    """Steps between checkpoints; one more is written at each cycle's end."""
    checkpoint_activations: bool = False
    """Compute the 1/2 grid's activations twice instead of keeping them: less memory, more time. No effect on the
    compiled kernels that train in float32 on the CPU, which keep almost none of them anyway."""
    pairing: Literal["auto", "inter", "intra"] = "auto"
    """Pairs between patients, or of the same patient; auto takes what the data set says."""
    modality: Modality = "auto"
    """How intensities are scaled; auto decides for each scan."""
    spacing_mm: Annotated[float | None, Gt(0)] = None
    """Voxel size of the cohort's working grid in mm; by default chosen from the scans, and half of that for the label
    maps of small scans."""
    affine: Literal["auto", "none"] = "auto"
    """How scans are brought to the cohort's working grid: aligned, or as their headers say."""
    clamp_abdomen: bool = True
    """Clamp the intensities of `ct-abdomen` to -200 to 300 HU in training too. The paper clamps only at inference."""
    validation_pairs: Annotated[int, Ge(0)] = 15
    """Most pairs registered for validation after each cycle; 0 for none."""
    val_fraction: Annotated[float, Ge(0), Lt(1)] = 0.0
    """Share of the training scans held out to validate on, for data sets without validation pairs."""
    validation_refine: RefineConfig = field(default_factory=lambda: training_refine(40.0))
    """Instance optimisation of the validation: one way and on the 1/2 grid, where it takes more regularisation than
    both ways."""
    licence: str = ""
    """Licence of the weights, written on the model's card."""

    def __post_init__(self) -> None:
        check(self)
        for name, refine in (
            ("pseudo_labels.refine", self.pseudo_labels.refine),
            ("validation_refine", self.validation_refine),
        ):
            if refine.regularisation == AUTO:
                raise InputError(f"got {name}.regularisation = auto, expected a number; only `register` chooses it")
        if self.final_learning_rate > self.learning_rate:
            raise InputError(
                f"got learning rates from {self.learning_rate:g} to {self.final_learning_rate:g}, which must fall"
            )
        if self.contrast.positives == "patients" and self.objective != "joint":
            raise InputError(
                f"got contrast.positives=patients with objective={self.objective}, expected objective=joint, whose "
                "pseudo-labels match the patients; set objective or contrast.positives"
            )
        if self.objective == "contrastive" and self.cycles < 2:
            raise InputError(
                f"got objective=contrastive with cycles = {self.cycles}, expected 2 or more, one for the extractor and "
                "one for the head; raise cycles"
            )
        if not set(self.passes) <= set(self.network.strides):
            raise InputError(
                f"got passes = {list(self.passes)}, expected some of network.strides {list(self.network.strides)}; set "
                "network.strides too"
            )
