"""Settings of a training run: frozen dataclasses, read from YAML and `key=value`, written beside the weights."""

import difflib
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal

import yaml

from corereg.errors import InputError
from corereg.method.coarse.coupled_convex import CoupledConvexConfig
from corereg.method.features.network import NetworkConfig
from corereg.method.refine.energy import RefineConfig
from corereg.training.objective.views import APPEARANCES

__all__ = [
    "AugmentConfig",
    "ContrastConfig",
    "PseudoLabelConfig",
    "TrainConfig",
    "as_settings",
    "changed_keys",
    "from_settings",
    "parse_assignments",
    "read_settings",
    "with_settings",
]


@dataclass(frozen=True, kw_only=True, slots=True)
class AugmentConfig:
    """Random affine maps, as standard deviations of their twelve entries in coordinates from -1 to 1."""

    fixed: float = 0.075
    """A1, which resamples the fixed image."""
    moving: float = 0.05
    """A2 = (identity + N(0, moving)) A1, which resamples the moving image."""
    contrast: tuple[float, float] = (0.03, 0.02)
    """The view that the contrast compares with: (identity + N(0, second)) (identity + N(0, first))."""
    appearance: tuple[str, ...] = ("bezier",)
    """What an intensity view changes, of bezier, bias-field, noise and contrast (the last three need MONAI)."""

    def __post_init__(self) -> None:
        if not set(self.appearance) <= set(APPEARANCES):
            raise ValueError(f"augment.appearance must be among {', '.join(APPEARANCES)}, got {self.appearance}")


@dataclass(frozen=True, kw_only=True, slots=True)
class ContrastConfig:
    """The equivariance loss, equation 3 of CoRe."""

    points: int = 1000
    """Locations drawn in each image."""
    margin: int = 5
    """Voxels of the 1/4 grid kept clear at its border."""
    temperature: float = 0.1
    negatives: Literal["both", "opposite"] = "both"
    """Views that negatives come from."""
    weight: float = 10.0
    """lambda at its start."""
    decay: Literal["run", "cycle", "none"] = "run"
    """lambda falls linearly to zero over the run, over each cycle, or stays."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PseudoLabelConfig:
    """The sweep at the start of each cycle."""

    pairs: int | None = 300
    """Pairs drawn anew for each cycle; None takes all, which grows with the square of the scans."""
    refine: RefineConfig = field(default_factory=lambda: RefineConfig(regularisation=10.0, volume_preservation=0.0))
    """Instance optimisation that makes the label. R = 1 is the paper's; with it labels fold."""
    batch: int = 1
    """Pairs refined together: more fill a GPU."""
    encoded_scans: int = 100
    """Scans whose features are kept in memory during the sweep."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig:
    """A training run."""

    objective: Literal["joint", "registration", "contrastive"] = "joint"
    """Both losses; pseudo-labels alone (RegCyc); contrast first, then the head alone on a frozen extractor."""
    views: Literal["geometric", "intensity", "both"] = "geometric"
    """What the contrast is made equivariant or invariant to."""
    cycles: int = 8
    """Rounds of pseudo-labels and training: the paper's stages."""
    steps_per_cycle: int = 1000
    batch_size: int = 2
    """Pairs per step and device."""
    learning_rate: float = 1e-3
    final_learning_rate: float = 1e-5
    """Cosine from one to the other in every cycle."""
    registration_loss: Literal["mse", "epe"] = "mse"
    margin: int = 8
    """Voxels of the 1/2 grid that the registration loss leaves out at each face."""
    head_scale: float = 0.1
    """Factor on the heads' first weights: large costs saturate the soft-argmin, which then teaches nothing."""
    network: NetworkConfig = field(default_factory=lambda: NetworkConfig(strides=(8, 4)))
    passes: tuple[int, ...] = (8, 4)
    """Strides of the passes, each trained on what those before it leave."""
    coupled_convex: CoupledConvexConfig = field(default_factory=CoupledConvexConfig)
    """The optimiser that both losses' gradients pass through, and that makes pseudo-labels."""
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    contrast: ContrastConfig = field(default_factory=ContrastConfig)
    pseudo_labels: PseudoLabelConfig = field(default_factory=PseudoLabelConfig)
    seed: int = 0
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Of the convolutions; auto takes bf16 where the processor has it."""
    checkpoint_every: int = 200
    """Steps between checkpoints; one more at each cycle's end."""
    checkpoint_activations: bool = False
    """Compute the 1/2 grid's activations twice instead of keeping them: less memory, more time. The compiled kernels
    that train in float32 on the CPU keep next to none of them as it is, and take no notice."""
    pairing: Literal["auto", "inter", "intra"] = "auto"
    modality: str = "auto"
    spacing_mm: float | None = None
    affine: Literal["auto", "none"] = "auto"
    """How scans are brought to the cohort's working grid."""
    validation_pairs: int = 15
    """At most so many after each cycle; 0 for none."""
    validation_refine: RefineConfig = field(
        default_factory=lambda: RefineConfig(regularisation=40.0, volume_preservation=0.0)
    )
    """One way and on the 1/2 grid, where it takes more regularisation than both ways."""
    licence: str = ""
    """Of the weights, written on the model's card."""

    def __post_init__(self) -> None:
        for name in ("cycles", "steps_per_cycle", "batch_size", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be >= 1, got {getattr(self, name)}")
        if not 0 < self.final_learning_rate <= self.learning_rate:
            raise ValueError(
                f"learning rates must fall and be positive, got {self.learning_rate} to {self.final_learning_rate}"
            )
        missing = set(self.passes) - set(self.network.strides)
        if missing or not self.passes:
            raise ValueError(
                f"passes must be among the network's strides {self.network.strides}, got {self.passes}; "
                "set network.strides too"
            )


def with_settings(config: TrainConfig, settings: Mapping[str, Any]) -> TrainConfig:
    """The configuration with settings of dotted or nested keys in their places.

    Raises:
        InputError: a key that there is not (the nearest right one is named), or a value that cannot be used.
    """
    nested = _nest(settings)
    return _replaced(config, nested, "")  # type: ignore[no-any-return]


def from_settings(settings: Mapping[str, Any]) -> TrainConfig:
    """The configuration that `as_settings` described."""
    return with_settings(TrainConfig(), settings)


def as_settings(config: TrainConfig) -> dict[str, Any]:
    """Nested plain values, for YAML and JSON."""
    plain: dict[str, Any] = _plain(asdict(config))
    return plain


def changed_keys(old: TrainConfig, new: TrainConfig) -> list[str]:
    """Dotted keys whose values differ, as `key: old -> new`."""
    before, after = _flatten(as_settings(old)), _flatten(as_settings(new))
    return [f"{key}: {before[key]} -> {after[key]}" for key in before if before[key] != after.get(key)]


def parse_assignments(assignments: Iterable[str]) -> dict[str, Any]:
    """`key=value` texts, values read as YAML.

    Raises:
        InputError: a text without "=".
    """
    settings = {}
    for text in assignments:
        key, sign, value = text.partition("=")
        if not sign:
            raise InputError(f"got --set {text!r}, expected key=value; write e.g. --set objective=registration")
        settings[key.strip()] = _yaml(value, f"--set {text}")
    return settings


def read_settings(path: Path) -> dict[str, Any]:
    """Settings from a YAML file.

    Raises:
        InputError: no such file, or no mapping of keys to values in it.
    """
    try:
        settings = _yaml(path.read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"got the configuration {path}, expected a readable YAML file ({error}); check it") from None
    if not isinstance(settings, dict):
        raise InputError(f"got the configuration {path}, expected keys with values in it; see `corereg train --help`")
    return settings


def _yaml(text: str, name: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        raise InputError(f"got {name}, expected YAML ({reason}); correct it") from None


def _nest(settings: Mapping[str, Any]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for key, value in settings.items():
        *parents, last = str(key).split(".")
        place = nested
        for parent in parents:
            place = place.setdefault(parent, {})
        if isinstance(value, Mapping):
            place.setdefault(last, {}).update(_nest(value))
        else:
            place[last] = value
    return nested


def _replaced(config: Any, settings: Mapping[str, Any], prefix: str) -> Any:
    known = {f.name: f for f in fields(config)}
    hints = typing.get_type_hints(type(config))
    changes = {}
    for key, value in settings.items():
        if key not in known:
            raise InputError(_unknown(prefix + key))
        current = getattr(config, key)
        if is_dataclass(current):
            if not isinstance(value, Mapping):
                raise InputError(
                    f"got {prefix + key} = {value!r}, expected keys below it like "
                    f"{prefix + key}.{fields(current)[0].name}; set one of them"
                )
            changes[key] = _replaced(current, value, f"{prefix}{key}.")
        else:
            changes[key] = _converted(value, hints[key], prefix + key)
    try:
        return replace(config, **changes)
    except ValueError as error:
        raise InputError(f"{error}; correct the setting") from None


def _converted(value: Any, hint: Any, name: str) -> Any:
    """The value as the field's type; YAML knows no tuples, and 1e-3 is a text to it."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return _chosen(value, arguments, name)
    if origin in (typing.Union, types.UnionType):
        return None if value is None else _converted(value, next(a for a in arguments if a is not type(None)), name)
    if origin is tuple:
        items = value if isinstance(value, list | tuple) else [value]
        kinds = arguments[:1] * len(items) if arguments[1:] == (Ellipsis,) else arguments
        if len(kinds) != len(items):
            raise InputError(f"got {name} = {value!r}, expected {len(kinds)} values; correct it")
        return tuple(_converted(item, kind, name) for item, kind in zip(items, kinds, strict=True))
    try:
        if isinstance(value, bool) is not (hint is bool) or (hint is int and float(value) != int(value)):
            raise ValueError
        return hint(value)
    except (ValueError, TypeError, OverflowError):
        raise InputError(f"got {name} = {value!r}, expected a value of type {hint.__name__}; correct it") from None


def _chosen(value: Any, allowed: tuple[Any, ...], name: str) -> Any:
    if value in allowed:
        return value
    nearest = difflib.get_close_matches(str(value), [str(a) for a in allowed], 1)
    cure = f"did you mean {nearest[0]}?" if nearest else "choose one"
    raise InputError(f"got {name} = {value!r}, expected one of {', '.join(map(str, allowed))}; {cure}")


def _unknown(name: str) -> str:
    keys = list(_flatten(as_settings(TrainConfig())))
    nearest = difflib.get_close_matches(name, keys, 1, cutoff=0.4)
    by_last = [key for key in keys if key.rsplit(".", 1)[-1] == name.rsplit(".", 1)[-1]]
    cure = f"did you mean {(by_last or nearest)[0]}?" if by_last or nearest else "`--show-config` lists them"
    return f"got the setting {name!r}, which there is not, expected a known key; {cure}"


def _flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        flat |= _flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {prefix + key: value}
    return flat


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, tuple | list) else value
