"""Pseudo-labels: the displacements that the network, the optimiser and instance optimisation find for a cycle's pairs.

They are kept in files on the 1/2 grid in half precision: they take no memory and survive an interruption.

Legend: P pairs, X Y Z axes of the 1/2 grid.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Float16, Float32, Int64
from torch import Tensor

from corereg.geometry.displacement import Disp, compose
from corereg.method.coarse.passes import coarse_displacement
from corereg.method.features.model import Encoded, FeatureModel, project_features
from corereg.method.refine.energy import Compared
from corereg.method.refine.optimise import refine
from corereg.training.config import TrainConfig
from corereg.training.scans.volumes import Volumes

__all__ = [
    "EncodedScans",
    "PseudoLabels",
    "Sweep",
    "create_files",
    "draw_pairs",
    "draws_matches",
    "label",
    "labels_bytes",
    "open_labels",
    "sampling_weights",
    "sweep",
]

HALF = 2
EASIEST, HARDEST = 5.0, -5.0
"""Sampling weight of rank r among N is sigmoid(linspace(5, -5, N)[r]). Source: CoRe, method section."""

SIZED_PAIRS = 20
"""Pairs whose labels the mean label size is taken from."""

Pairs = Int64[np.ndarray, "P 2"]


@dataclass(frozen=True)
class PseudoLabels:
    """The labels of one cycle."""

    pairs: Pairs
    """Rows of the cohort: fixed, moving."""
    disp_vox: Float16[np.ndarray, "P 3 X Y Z"]
    """Displacements in voxels of the 1/2 grid, as a memory map."""
    difficulty_mm: Float32[np.ndarray, "P"]
    """Mean distance between the displacement with and without instance optimisation."""
    trusted: Bool[np.ndarray, "P X Y Z"] | None = None
    """Where both directions agree, as a memory map; None unless the contrast draws positives there."""

    def figures(self) -> dict[str, float | int]:
        """Number of pairs, mean difficulty and mean size of a label's components, for the run's log."""
        some = self.disp_vox[:: max(1, len(self.pairs) // SIZED_PAIRS)].astype(np.float32)
        figures = {
            "pairs": len(self.pairs),
            "difficulty_mm": float(self.difficulty_mm.mean()),
            "label_vox": float(np.abs(some).mean()),
        }
        return figures if self.trusted is None else figures | {"trusted_share": float(self.trusted.mean())}


@dataclass(frozen=True, slots=True)
class Sweep:
    """This process's share of the pairs to label, and its device."""

    device: torch.device
    rank: int = 0
    ranks: int = 1
    seed: int = 0
    progress: Callable[[int, int], None] | None = None
    """Called with the number of pairs done and of all pairs."""


def draw_pairs(pairs: Sequence[tuple[int, int]], count: int | None, *, either_way: bool, seed: int) -> Pairs:
    """Draw a cycle's pairs without repetition, sorted so that neighbours share their fixed scan.

    Args:
        count: number of pairs; None takes all.
        either_way: also draw which scan of a pair is fixed.
    """
    rng = np.random.default_rng(seed)
    chosen = np.asarray(pairs, dtype=np.int64)[rng.permutation(len(pairs))[:count]]
    if either_way:
        swapped = rng.random(len(chosen)) < 0.5
        chosen[swapped] = chosen[swapped][:, ::-1]
    return np.asarray(chosen[np.lexsort(chosen.T[::-1])])


def sampling_weights(difficulty_mm: Float32[np.ndarray, "P"]) -> Float[Tensor, "P"]:
    """How likely each pair is drawn: more likely the less instance optimisation moved its label."""
    ranks = np.empty(len(difficulty_mm), dtype=np.int64)
    ranks[np.argsort(difficulty_mm, kind="stable")] = np.arange(len(difficulty_mm))
    return torch.linspace(EASIEST, HARDEST, len(difficulty_mm), dtype=torch.float64).sigmoid()[torch.from_numpy(ranks)]


def _file(folder: Path, name: str) -> Path:
    return folder / f"{name}.npy"


def _shapes(pairs: int, half_shape: Sequence[int], config: TrainConfig) -> dict[str, tuple[tuple[int, ...], Any]]:
    """Shape and type of each file of a cycle's labels."""
    shapes: dict[str, tuple[tuple[int, ...], Any]] = {
        "disp_vox": ((pairs, 3, *half_shape), np.float16),
        "difficulty_mm": ((pairs,), np.float32),
    }
    return shapes | ({"trusted": ((pairs, *half_shape), np.bool_)} if draws_matches(config) else {})


def draws_matches(config: TrainConfig) -> bool:
    """Whether the contrast draws positives at the labels' matches."""
    return config.contrast.positives == "patients"


def create_files(folder: Path, pairs: Pairs, half_shape: Sequence[int], config: TrainConfig) -> None:
    """Create files of the right size for a cycle's labels, to be filled by the sweeps of all processes."""
    folder.mkdir(parents=True, exist_ok=True)
    np.save(_file(folder, "pairs"), pairs)
    create: Any = np.lib.format.open_memmap
    for name, (shape, dtype) in _shapes(len(pairs), half_shape, config).items():
        create(_file(folder, name), mode="w+", dtype=dtype, shape=shape).flush()


def labels_bytes(pairs: int, half_shape: Sequence[int], config: TrainConfig) -> int:
    """Size on disk of the labels of a cycle."""
    shapes = _shapes(pairs, half_shape, config).values()
    return sum(int(np.prod(shape)) * np.dtype(dtype).itemsize for shape, dtype in shapes)


def open_labels(folder: Path) -> PseudoLabels:
    """Open the labels in a folder; what is as large as a volume stays on disk."""
    trusted = _file(folder, "trusted")
    return PseudoLabels(
        np.load(_file(folder, "pairs")),
        np.load(_file(folder, "disp_vox"), mmap_mode="r"),
        np.load(_file(folder, "difficulty_mm")),
        np.load(trusted, mmap_mode="r") if trusted.is_file() else None,
    )


@torch.no_grad()
def sweep(model: FeatureModel, volumes: Volumes, config: TrainConfig, folder: Path, share: Sweep) -> None:
    """Label this process's share of the pairs in `folder` (made by `create_files`): coarse, refined, difficulty.

    Both directions are made consistent. The first pass encodes each scan once; later passes encode the image as warped
    so far, which differs from pair to pair.
    """
    pairs = np.load(_file(folder, "pairs"))
    files = {name: np.load(_file(folder, name), mmap_mode="r+") for name in _shapes(0, (), config)}
    own = np.array_split(np.arange(len(pairs)), share.ranks)[share.rank]
    scans = EncodedScans(model, volumes, config, share)
    for start in range(0, len(own), config.pseudo_labels.batch):
        rows = own[start : start + config.pseudo_labels.batch]
        found = label(scans, pairs[rows])
        files["disp_vox"][rows] = found.disp_vox.cpu().numpy().astype(np.float16)
        files["difficulty_mm"][rows] = found.difficulty_mm.numpy()
        if found.trusted is not None:
            files["trusted"][rows] = found.trusted.cpu().numpy()
        if share.progress:
            share.progress(min(start + len(rows), len(own)), len(own))
    for file in files.values():
        file.flush()


class Labelled(NamedTuple):
    """Labels of some pairs; see `PseudoLabels`."""

    disp_vox: Float[Tensor, "P 3 X Y Z"]
    difficulty_mm: Float[Tensor, "P"]
    trusted: Bool[Tensor, "P X Y Z"] | None


@torch.no_grad()
def label(scans: "EncodedScans", pairs: Pairs) -> Labelled:
    """Label some pairs."""
    config = scans.config
    mm_per_vox = HALF * torch.tensor(scans.volumes.grid.spacing, dtype=torch.float32).view(1, 3, 1, 1, 1)
    coarse, refined = _registered(scans, pairs)
    difficulty_mm = ((refined - coarse).cpu() * mm_per_vox).norm(dim=1).mean((1, 2, 3))
    if not draws_matches(config):
        return Labelled(refined, difficulty_mm, None)
    _, back = _registered(scans, pairs[:, ::-1])
    return Labelled(refined, difficulty_mm, compose(back, refined).norm(dim=1) <= config.contrast.agreement)


def _registered(scans: "EncodedScans", pairs: Pairs) -> tuple[Disp, Disp]:
    """Coarse and refined displacements, on the 1/2 grid."""
    config = scans.config
    fixed, moving = (scans.stacked(pairs[:, side]) for side in (0, 1))
    images = torch.cat([scans.volumes.image(int(row)) for row in pairs[:, 1]]).to(scans.share.device)
    coarse = coarse_displacement(fixed, images, moving, scans.model, passes=config.passes, config=config.coupled_convex)
    assert fixed.shallow is not None
    assert moving.shallow is not None
    refined, _ = refine(Compared((fixed.shallow, moving.shallow)), coarse, config.pseudo_labels.refine)
    return coarse, refined


class EncodedScans:
    """Features of the most recently used scans, shallow ones projected, so that a sweep does not encode each pair."""

    def __init__(self, model: FeatureModel, volumes: Volumes, config: TrainConfig, share: Sweep) -> None:
        self.model, self.volumes, self.config, self.share = model, volumes, config, share
        self.kept: OrderedDict[int, Encoded] = OrderedDict()

    @property
    def bytes_per_scan(self) -> float:
        """Mean size of what is kept of a scan."""
        sizes = [t.nbytes for e in self.kept.values() for t in (e.shallow, *e.cost.values()) if t is not None]
        return sum(sizes) / max(len(self.kept), 1)

    def stacked(self, rows: Int64[np.ndarray, "B"]) -> Encoded:
        encoded = [self._encoded(int(row)) for row in rows]
        cost = {stride: torch.cat([e.cost[stride] for e in encoded]) for stride in encoded[0].cost}
        shallow = torch.cat([e.shallow for e in encoded if e.shallow is not None]).float()
        return Encoded(shallow, cost)

    def _encoded(self, row: int) -> Encoded:
        if row not in self.kept:
            channels = self.config.pseudo_labels.refine.channels
            project = partial(project_features, channels=channels, seed=self.share.seed)
            image = self.volumes.image(row).to(self.share.device)
            full = self.model.encode(image, self.config.passes, project=project)
            assert full.shallow is not None
            self.kept[row] = Encoded(full.shallow.half(), dict(full.cost))
        self.kept.move_to_end(row)
        while len(self.kept) > max(self.config.pseudo_labels.encoded_scans, 1):
            self.kept.popitem(last=False)
        return self.kept[row]
