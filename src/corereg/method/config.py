"""Settings of a registration, and how single ones are put in their places."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from corereg.errors import InputError
from corereg.method.features.convolution.inference import PRECISIONS
from corereg.method.models import DEFAULT_MODEL
from corereg.method.pipeline import StagesConfig
from corereg.method.refine.energy import RefineConfig
from corereg.preprocessing.intensity import MODALITIES

__all__ = ["PAPER_REFINE", "REFINEMENTS", "RegisterConfig", "find_device", "with_settings"]

DEVICES = ("auto", "cpu", "cuda", "mps")

PAPER_REFINE = RefineConfig(steps=50, learning_rate=1.0, regularisation=1.0, volume_preservation=0.0, channels=32)
PAPER_PASSES = (8, 8)

REFINEMENTS = ("default", "paper")
"""paper: passes and instance optimisation as published, one way and on the 1/2 grid alone."""

BYTES_PER_GB = 10**9

LARGEST_SEED = 2**32 - 2
"""SimpleITK's are of 32 bits, and 0 means the clock to it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RegisterConfig:
    """Settings of `register`, from the scans to the transform."""

    model: str = DEFAULT_MODEL
    """Name of a model on board, or path of a safetensors file."""
    modality: str = "auto"
    """auto, ct, ct-abdomen or mr: how intensities are scaled; auto decides for each image."""
    affine: str = "auto"
    """auto pre-aligns pairs that need it; none trusts the headers."""
    spacing_mm: float | None = None
    """Of the working grid; None chooses it from the scans and the memory."""
    device: str = "auto"
    """auto takes CUDA where there is one."""
    precision: str = "auto"
    """Of the network's convolutions: auto, fp32, bf16 or fp16; auto takes what the device is fastest with."""
    memory_gb: float | None = None
    """Largest memory to plan for, 10^9 bytes; a working grid that would take more is coarsened. None: what is free."""
    stages: StagesConfig = field(default_factory=StagesConfig)

    def __post_init__(self) -> None:
        for name, value, allowed in (
            ("modality", self.modality, MODALITIES),
            ("affine", self.affine, ("auto", "none")),
            ("device", self.device, DEVICES),
            ("precision", self.precision, PRECISIONS),
        ):
            if value not in allowed:
                raise InputError(f"got {name} {value!r}, expected one of {', '.join(allowed)}; choose one")
        if self.memory_gb is not None and not self.memory_gb > 0:
            raise InputError(f"got {self.memory_gb:g} GB of memory, expected a positive number; correct it")

    @property
    def memory_bytes(self) -> int | None:
        """The bound of `memory_gb` in bytes."""
        return None if self.memory_gb is None else int(self.memory_gb * BYTES_PER_GB)


def with_settings(config: RegisterConfig, settings: Mapping[str, Any]) -> RegisterConfig:
    """Settings by the command line's names put in their places; None leaves what is there.

    Raises:
        InputError: a value that cannot be used.
        TypeError: a name that there is not.
    """
    given = {name: value for name, value in settings.items() if value is not None}
    places: dict[str, tuple[str, str]] = {
        "refine_steps": ("refine", "steps"),
        "regularisation": ("refine", "regularisation"),
        "passes": ("stages", "passes"),
        "target_sdlogj": ("stages", "target_sdlogj"),
        "symmetric": ("stages", "symmetric"),
        "fine": ("stages", "fine"),
        "parametrisation": ("refine", "parametrisation"),
        "volume_preservation": ("refine", "volume_preservation"),
        "seed": ("stages", "seed"),
        "spacing": ("top", "spacing_mm"),
        "memory": ("top", "memory_gb"),
        **{name: ("top", name) for name in ("model", "modality", "affine", "device", "precision")},
    }
    config = _with_refinement(config, given.pop("refine", "default"))
    unknown = set(given) - set(places)
    if unknown:
        known = sorted([*places, "refine"])
        raise TypeError(f"register() got unknown settings {sorted(unknown)}, expected some of {known}")
    for name, value in given.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise InputError(f"got {name} {value}, expected a finite number; correct it")
    if not 0 <= given.get("seed", 0) <= LARGEST_SEED:
        raise InputError(f"got seed {given['seed']}, expected 0 to {LARGEST_SEED}; choose another")
    sorted_out: dict[str, dict[str, Any]] = {"refine": {}, "stages": {}, "top": {}}
    for name, value in given.items():
        part, key = places[name]
        sorted_out[part][key] = tuple(value) if name == "passes" else str(value) if name == "model" else value
    try:
        refine: RefineConfig = replace(config.stages.refine, **sorted_out["refine"])
        stages = replace(config.stages, refine=refine, **sorted_out["stages"])
        return replace(config, stages=stages, **sorted_out["top"])
    except ValueError as error:
        raise InputError(str(error)) from None


def _with_refinement(config: RegisterConfig, name: str) -> RegisterConfig:
    if name not in REFINEMENTS:
        raise InputError(f"got refine {name!r}, expected one of {', '.join(REFINEMENTS)}; choose one")
    if name == "default":
        return config
    stages = replace(config.stages, passes=PAPER_PASSES, refine=PAPER_REFINE, symmetric=False, fine=False)
    return replace(config, stages=stages)


def find_device(name: str) -> torch.device:
    """The device called auto, cpu, cuda or mps.

    Raises:
        InputError: PyTorch does not find it.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not available[name]:
        raise InputError(f"got device {name!r}, expected one that PyTorch finds on this machine; use --device cpu")
    return torch.device(name)
