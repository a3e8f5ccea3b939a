"""How good features are apart from the optimiser: does the nearest feature within 24 mm lie in the same organ?

    python benchmarks/probe.py DATASET.json --model mind --model head-neck-ct --model runs/mine/model.safetensors

For each grid that the method matches on (1/2 by the refinement, 1/4 and 1/8 by the passes) and each validation pair,
without any displacement:

- accuracy: share of the fixed scan's organ voxels whose nearest feature, within +-24 mm, has the same label;
- AUC: how often a candidate of the same label is nearer than one of another label, averaged over organ voxels;
- Dice: overlap of the labels transferred from each voxel's nearest feature, averaged over labels;
- read-out: recall and Dice of a linear classifier of the features, fitted by ridge regression to training scans with
  every class weighing the same.

Distances are sums of absolute differences averaged over 3x3x3 voxels, as in the passes.
"""

import argparse
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from corereg.data.pairs import Dataset, read_dataset
from corereg.evaluation.metrics import dice, mean_over_labels
from corereg.geometry.strided import subsample
from corereg.method.features.model import FeatureModel
from corereg.method.models import get_model
from corereg.training.labels.maps import labels_on_grid
from corereg.training.probe import area_under_curve, candidates, window_of
from corereg.training.scans.volumes import Volumes, prepare_volumes

STRIDES = (2, 4, 8)
READOUT_SCANS = 8
RIDGE = 1e-3
"""Weight of the squared coefficients, relative to the mean of the features' squares."""


@dataclass(frozen=True)
class Cohort:
    """Scans on their grid, with labels on demand."""

    dataset: Dataset
    volumes: Volumes

    def image(self, scan: int) -> Tensor:
        return self.volumes.image(self.volumes.rows[scan])

    def labels(self, scan: int, stride: int) -> Tensor:
        """(X, Y, Z) on the grid of this stride."""
        found = torch.from_numpy(labels_on_grid(self.dataset.scans[scan], self.volumes, scan))
        return subsample(found[None, None], stride)[0, 0]


def features_of(model: FeatureModel, image: Tensor) -> dict[int, Tensor]:
    """What the stages compare, by stride."""
    with torch.no_grad():
        model.prepare([image])
        encoded = model.encode(image, (4, 8))
    assert encoded.shallow is not None
    return {2: encoded.shallow.contiguous(), **{s: f.contiguous() for s, f in encoded.cost.items()}}


def matched(
    fixed: Tensor, moving: Tensor, fixed_labels: Tensor, moving_labels: Tensor, window: list[int]
) -> tuple[float, float, float]:
    """Accuracy, AUC and Dice of one pair."""
    organs = fixed_labels > 0
    nearest = torch.full(fixed_labels.shape, torch.inf)
    transferred = torch.zeros_like(fixed_labels)
    costs, hits = [], []
    margin = [n for n in reversed(window) for _ in range(2)]
    padded = functional.pad(moving_labels, margin)
    for offset, cost in candidates(fixed, moving, window):
        labels = padded[
            tuple(slice(n + o, n + o + size) for n, o, size in zip(window, offset, cost.shape, strict=True))
        ]
        nearer = cost < nearest
        nearest, transferred = torch.where(nearer, cost, nearest), torch.where(nearer, labels, transferred)
        costs.append(cost[organs])
        hits.append(labels[organs] == fixed_labels[organs])
    accuracy = float((transferred[organs] == fixed_labels[organs]).double().mean())
    auc = area_under_curve(torch.stack(costs, 1), torch.stack(hits, 1))
    moved, present = transferred.numpy(), moving_labels.numpy()
    return accuracy, auc, mean_over_labels(dice(fixed_labels.numpy(), moved, present))


def read_out(
    fitted: list[tuple[Tensor, Tensor]], measured: list[tuple[Tensor, Tensor]], labels: list[int]
) -> tuple[float, float]:
    """Mean recall and mean Dice over the measured scans, from features and label maps."""
    channels = 1 + fitted[0][0].shape[1]
    gram = torch.zeros(channels, channels, dtype=torch.float64)
    moment = torch.zeros(channels, 1 + len(labels), dtype=torch.float64)
    for features, truth in fitted:
        rows = with_constant(features)
        classes = torch.stack([truth.flatten() == label for label in (0, *labels)], 1).double()
        # Every class weighs the same, or the background would be all that is found.
        weighted = rows * (classes @ (1 / classes.sum(0).clamp(min=1)))[:, None]
        gram, moment = gram + rows.T @ weighted, moment + weighted.T @ classes
    solved = torch.linalg.solve(gram + RIDGE * gram.diagonal().mean() * torch.eye(channels), moment)
    recalls, overlaps = [], []
    for features, truth in measured:
        found = torch.tensor([0, *labels])[(with_constant(features) @ solved).argmax(1)].view(truth.shape)
        present = [label for label in labels if bool((truth == label).any())]
        recalls.append(np.mean([float((found[truth == label] == label).double().mean()) for label in present]))
        overlaps.append(mean_over_labels(dice(truth.numpy(), found.numpy(), truth.numpy())))
    return float(np.mean(recalls)), float(np.mean(overlaps))


def with_constant(features: Tensor) -> Tensor:
    rows = features[0].flatten(1).T.double()
    return torch.cat([rows, torch.ones(len(rows), 1, dtype=torch.float64)], 1)


def probe(model: FeatureModel, cohort: Cohort, pairs: list[tuple[int, int]], fitted: list[int]) -> Iterator[str]:
    """One Markdown row for each grid."""
    ends = sorted({scan for pair in pairs for scan in pair})
    described = {scan: features_of(model, cohort.image(scan)) for scan in {*ends, *fitted}}
    for stride in (s for s in STRIDES if s in described[ends[0]]):
        maps = {scan: cohort.labels(scan, stride) for scan in described}
        window = window_of(stride, cohort.volumes.grid.spacing)
        figures = [matched(described[f][stride], described[m][stride], maps[f], maps[m], window) for f, m in pairs]
        labels = sorted({int(label) for scan in fitted for label in maps[scan].unique()} - {0})
        readout = read_out(*([(described[s][stride], maps[s]) for s in scans] for scans in (fitted, ends)), labels)
        channels = described[ends[0]][stride].shape[1]
        numbers = " | ".join(f"{x:.3f}" for x in (*np.mean(figures, axis=0), *readout))
        yield f"| {model.name} | 1/{stride} | {channels} | {numbers} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--model", action="append", default=[])
    parser.add_argument("--pairs", type=int, default=6, help="validation pairs")
    parser.add_argument("--cache", type=Path, default=None, help="folder of prepared scans")
    args = parser.parse_args()
    dataset = read_dataset(args.dataset)
    pairs = list(dataset.validation)[:: max(1, len(dataset.validation) // args.pairs)][: args.pairs]
    training = sorted({scan for pair in dataset.training for scan in pair if dataset.scans[scan].labels})
    fitted = training[:: max(1, len(training) // READOUT_SCANS)][:READOUT_SCANS]
    with tempfile.TemporaryDirectory() as folder:
        scans = {*fitted, *(scan for pair in pairs for scan in pair)}
        volumes = prepare_volumes(dataset, folder=args.cache or Path(folder), scans=scans)
        both_ct = volumes.modality.startswith("ct")
        print("| features | grid | channels | accuracy | AUC | Dice | read-out: recall | Dice |\n|" + "---|" * 8)
        for name in args.model or ["mind"]:
            model = get_model(name, both_ct=both_ct).model
            for row in probe(model, Cohort(dataset, volumes), pairs, fitted):
                print(row, flush=True)


if __name__ == "__main__":
    main()
