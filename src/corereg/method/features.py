"""Stage 1 of 4: image -> features. The trained network of CoRe. Downstream: cost_volume, refine.

Legend: B batch, C channels, I J K voxel axes; a grid "1/s" holds every s-th voxel, offset 0.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from corereg.errors import InputError
from corereg.method.inference import computing_type, convolve, extract, fold

__all__ = [
    "ConvNetModel",
    "Encoded",
    "FeatureExtractor",
    "FeatureModel",
    "NetworkConfig",
    "Projection",
    "ProjectionHead",
    "fill_statistics",
    "load_model",
    "random_model",
    "save_model",
]

Image5D = Float[Tensor, "B 1 I J K"]

Projection = Callable[[Tensor], Tensor]
"""From features to fewer, voxel by voxel."""

WEIGHT_AXES = 5
"""Of a convolution's weights."""

METADATA_KEY = "corereg"
"""Entry of a safetensors header that holds the network's configuration as JSON."""


class Encoded(NamedTuple):
    """What the later stages need of one image."""

    shallow: Float[Tensor, "B C I J K"] | None
    """1/2 grid, matched by the instance optimisation; None where it was not asked for."""
    cost: Mapping[int, Float[Tensor, "B C X Y Z"]]
    """For each stride of a pass, what its cost volume compares."""


@runtime_checkable
class FeatureModel(Protocol):
    """Anything that describes an image well enough to be registered by."""

    name: str
    passes: tuple[int, ...]
    """Strides of the passes that it is made for."""

    def encode(
        self, image: Image5D, strides: Iterable[int], *, shallow: bool = True, project: Projection | None = None
    ) -> Encoded:
        """Features of an image whose sizes are multiples of 16, for passes on grids of these strides.

        Args:
            shallow: whether those of the refinement are wanted.
            project: what is kept of these, voxel by voxel; None keeps them as they are.
        """
        ...

    def fine(self, image: Image5D) -> Float[Tensor, "B C I J K"] | None:
        """Features on the full grid, for a last refinement there; None where the model has none."""
        ...

    def prepare(self, images: Iterable[Image5D]) -> None:
        """Adapt to the images at hand before they are encoded; most models have nothing to do."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class NetworkConfig:
    """Sizes of the network, stored with its weights."""

    shallow_channels: tuple[int, int] = (32, 64)
    """Channels of blocks 1 and 2, on the 1/2 grid."""
    deep_channels: int = 128
    """Channels of blocks 3 and 4, on the 1/4 grid."""
    head_channels: int = 16
    """Channels that a cost volume compares."""
    strides: tuple[int, ...] = (8,)
    """Grids for which there is a head: 8 (the paper), 4 (1x1x1 on block 4)."""
    descriptors: bool = False
    """Whether the refinement matches MIND-SSC descriptors beside the learned features (see `hybrid`)."""

    def __post_init__(self) -> None:
        if not self.strides or not set(self.strides) <= {4, 8}:
            raise ValueError(f"strides must be among 4 and 8, got {self.strides}")


class Stages(NamedTuple):
    """Outputs of the extractor by name."""

    shallow: Tensor
    """Block 2, 1/2 grid."""
    deep_conv: Tensor
    """Block 4's convolution before its normalisation, 1/4 grid: what the contrastive loss looks at."""
    deep: Tensor
    """Block 4, 1/4 grid."""


def _block(channels_in: int, channels_out: int, stride: int) -> nn.Sequential:
    conv = nn.Conv3d(channels_in, channels_out, 3, stride=stride, padding=1)
    return nn.Sequential(conv, nn.BatchNorm3d(channels_out), nn.ReLU(inplace=True))


class FeatureExtractor(nn.Module):
    """g of the paper: four convolution blocks, (B, 1, I, J, K) -> Stages. Source: method section of CoRe."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        first, second = config.shallow_channels
        self.block1 = _block(1, first, 2)
        self.block2 = _block(first, second, 1)
        self.block3 = _block(second, config.deep_channels, 2)
        self.block4 = _block(config.deep_channels, config.deep_channels, 1)

    @property
    def blocks(self) -> tuple[nn.Sequential, ...]:
        """The four in order."""
        return self.block1, self.block2, self.block3, self.block4

    def forward(self, image: Tensor) -> Stages:
        shallow = self.block2(self.block1(image))
        deep_conv = self.block4[0](self.block3(shallow))
        return Stages(shallow, deep_conv, self.block4[2](self.block4[1](deep_conv)))


class ProjectionHead(nn.Module):
    """p of the paper: block 4's features on the 1/4 grid -> head features by stride of the pass."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        deep, head = config.deep_channels, config.head_channels
        self.strides = config.strides
        if 8 in config.strides:
            self.block = _block(deep, deep, 2)
            self.out = nn.Conv3d(deep, head, 1)
        if 4 in config.strides:
            self.out4 = nn.Conv3d(deep, head, 1)

    def forward(self, deep: Tensor, stride: int) -> Tensor:
        return self.out(self.block(deep)) if stride == 8 else self.out4(deep)  # type: ignore[no-any-return]

    def infer(self, deep: Tensor, stride: int) -> Tensor:
        """The same without gradients, from features of any number type: the 1x1x1 convolution is always in float32."""
        if stride == 8:
            return self.out(convolve(fold(self.block, deep.dtype), deep).float())  # type: ignore[no-any-return]
        return self.out4(deep.float())  # type: ignore[no-any-return]


class ConvNetModel(nn.Module):
    """FeatureExtractor and ProjectionHead together: the model that training makes and files hold."""

    def __init__(self, config: NetworkConfig, name: str) -> None:
        super().__init__()
        self.config, self.name = config, name
        self.extractor = FeatureExtractor(config)
        self.head = ProjectionHead(config)
        coarsest, finest = max(config.strides), min(config.strides)
        self.passes: tuple[int, ...] = (coarsest, finest)
        self.statistics_filled = True
        self.precision = "auto"
        """Of the convolutions where nothing is recorded for a gradient: auto, fp32, bf16 or fp16."""

    def encode(
        self, image: Image5D, strides: Iterable[int], *, shallow: bool = True, project: Projection | None = None
    ) -> Encoded:
        """See `FeatureModel`. Without gradients it runs folded, in the number type of `precision`."""
        wanted = sorted(set(strides))
        missing = set(wanted) - set(self.config.strides)
        if missing:
            raise InputError(
                f"got passes with stride {sorted(missing)}, expected some of {self.config.strides}, for which model "
                f"{self.name} has heads; choose --passes among these"
            )
        if self.training or torch.is_grad_enabled():
            stages = self.extractor(image)
            kept = stages.shallow if project is None else project(stages.shallow)
            return Encoded(kept, {s: self.head(stages.deep, s) for s in wanted})
        dtype = computing_type(self.precision, image.device)
        kept, deep = extract(self.extractor.blocks, image, dtype, shallow=shallow, project=project)
        return Encoded(kept, {s: self.head.infer(deep, s) for s in wanted})

    def fine(self, image: Image5D) -> None:
        """The network describes no grid finer than the 1/2 grid."""

    def prepare(self, images: Iterable[Image5D]) -> None:
        """Fill empty normalisation statistics (a model that was never trained) from the images at hand."""
        if not self.statistics_filled:
            fill_statistics(self, images)


def fill_statistics(model: ConvNetModel, images: Iterable[Image5D]) -> None:
    """One pass over the images that sets every BatchNorm's mean and variance to their average over the images.

    A fresh network has the statistics of no data, and its features are too weak to register by.
    """
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm3d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
    model.train()
    with torch.no_grad():
        for image in images:
            model.encode(image, model.config.strides)
    model.eval()
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def random_model(seed: int = 0, config: NetworkConfig | None = None) -> ConvNetModel:
    """Seeded random weights, what stage 0 of training starts from. Call `prepare` before `encode`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = ConvNetModel(config or NetworkConfig(strides=(8, 4)), "random").eval()
    model.statistics_filled = False
    return model


def save_model(
    path: Path, model: ConvNetModel, card: Mapping[str, object] | None = None, *, half: bool = False
) -> None:
    """Weights and configuration as one safetensors file.

    Args:
        card: what to know about the training, JSON-able.
        half: convolutions in half precision, for half the size.
    """
    from safetensors.torch import save

    header = {"network": asdict(model.config), "passes": list(model.passes), "card": dict(card or {})}
    tensors = {key: value.detach().cpu().contiguous() for key, value in model.state_dict().items()}
    if half:
        tensors = {key: value.half() if value.ndim == WEIGHT_AXES else value for key, value in tensors.items()}
    # safetensors' own writer to files makes them readable by their owner alone.
    Path(path).write_bytes(save(tensors, metadata={METADATA_KEY: json.dumps(header, sort_keys=True)}))


def load_model(path: Path) -> ConvNetModel:
    """A model from a safetensors file. Files that can run code (pickles) are refused, never opened as such.

    Raises:
        InputError: no such file, not a safetensors file, not one of ours, or weights that do not fit its configuration.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="pt") as file:
            header = (file.metadata() or {}).get(METADATA_KEY)
            state = {key: file.get_tensor(key).float() for key in file.keys()}  # noqa: SIM118 - no mapping
    except FileNotFoundError:
        raise InputError(f"got no model file at {path}, expected a .safetensors file; check the path") from None
    except (SafetensorError, OSError):
        raise InputError(_not_safetensors(path)) from None
    if header is None:
        raise InputError(
            f"got {path} without corereg's configuration in its header, expected a file of `corereg train`; "
            "choose another"
        )
    try:
        content = json.loads(header)
        network = {key: tuple(v) if isinstance(v, list) else v for key, v in content["network"].items()}
        model = ConvNetModel(NetworkConfig(**network), path.stem)  # type: ignore[arg-type]
        model.passes = tuple(content.get("passes", model.passes))
        counters = {k: v.long() for k, v in state.items() if k.endswith("num_batches_tracked")}
        model.load_state_dict(state | counters)
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"got {path}, expected weights that fit their configuration ({reason}); train or fetch it again"
        ) from None
    return model.eval()


def _not_safetensors(path: Path) -> str:
    with path.open("rb") as file:
        start = file.read(4)
    pickled = start[:2] in (b"PK", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
    kind = "a pickled PyTorch file, which could run code and is never opened" if pickled else "no safetensors file"
    return f"got {path}, {kind}, expected weights written by `corereg train`; choose another file"


def file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes, hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
