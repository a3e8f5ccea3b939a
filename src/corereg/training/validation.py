"""How good a model is after a cycle: overlap where validation pairs have labels, label-free figures elsewhere."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from corereg.data.pairs import Dataset
from corereg.evaluation.metrics import dice, fold_percent, mean_over_labels, sdlogj, warp_labels
from corereg.geometry.displacement import compose
from corereg.geometry.warp import warp
from corereg.method.config import PipelineConfig
from corereg.method.features.model import FeatureModel
from corereg.method.models import get_model
from corereg.method.pipeline import register_volumes
from corereg.method.quality.similarity import similarity_above_chance
from corereg.training.config import TrainConfig
from corereg.training.labels.maps import labels_on_grid
from corereg.training.probe import Matches, match_quality, trusted_matches
from corereg.training.scans.volumes import Volumes

__all__ = ["Validation", "goodness"]

LABEL_FREE_PAIRS = 3
"""Number of pairs registered in both directions if none has labels."""

PROBED_PAIRS = 3
"""Number of pairs in which features are looked for."""


@dataclass
class _Probe:
    """What is found once, before the first measurement."""

    matches: list[Matches] | None = None
    reference: float = 0.0
    """Area under the curve of `mind`."""


@dataclass(frozen=True)
class Validation:
    """Pairs to register after each cycle, with the label maps of their scans, if any, on the cohort's grid."""

    volumes: Volumes
    pairs: tuple[tuple[int, int], ...]
    """Rows of the cohort: fixed, moving."""
    labels: dict[int, NDArray[np.int32]]
    """Label maps by row; empty if the figures are label-free."""
    probe: _Probe = field(default_factory=_Probe, repr=False, compare=False)

    @classmethod
    def of(cls, dataset: Dataset, volumes: Volumes, config: TrainConfig) -> "Validation":
        """The data set's validation pairs with labels on both sides, otherwise a few of its other pairs."""
        rows = volumes.rows
        usable = [(f, m) for f, m in dataset.validation if f in rows and m in rows]
        labelled = [(f, m) for f, m in usable if dataset.scans[f].labels and dataset.scans[m].labels]
        if labelled:
            chosen = labelled[: config.validation_pairs]
            scans = sorted({scan for pair in chosen for scan in pair})
            labels = {rows[s]: labels_on_grid(dataset.scans[s], volumes, s) for s in scans}
        else:
            # Label maps that are painted as scans show nothing by themselves.
            shown = {n for n in rows if not dataset.scans[n].map_only}
            training = [(f, m) for f, m in dataset.training if f in shown and m in shown]
            chosen, labels = _spread(usable or training, min(LABEL_FREE_PAIRS, config.validation_pairs)), {}
        return cls(volumes, tuple((rows[f], rows[m]) for f, m in chosen), labels)

    def measure(
        self,
        model: FeatureModel,
        config: TrainConfig,
        device: torch.device,
        progress: Callable[[int, int], None] = lambda done, pairs: None,
    ) -> dict[str, float]:
        """Means over the pairs.

        Args:
            progress: called before each registration with the number of pairs done and of all pairs; once all are done,
                features are looked for. What it raises ends the measurement.

        Returns: dice, dice_coarse and dice_before if there are labels, otherwise similarity, inverse_error_mm and
            residual; in either case sdlogj, folds_percent, seconds, and match_accuracy and match_auc of the finest
            pass's features (see `match_quality`), with mind_auc to compare. Empty without pairs.
        """
        rows = []
        for done, (fixed, moving) in enumerate(self.pairs):
            progress(done, len(self.pairs))
            rows.append(self._measure_pair(model, config, fixed, moving, device))
        if not rows:
            return {}
        means = {key: float(np.mean([row[key] for row in rows])) for key in rows[0]}
        probing = partial(progress, len(self.pairs), len(self.pairs))
        return means | self._probed(model, min(config.passes), device, probing)

    def try_pair(self, model: FeatureModel, config: TrainConfig, device: torch.device) -> int:
        """Measure the first pair to see what that takes; returns the number of pairs measured."""
        for fixed, moving in self.pairs[:1]:
            self._measure_pair(model, config, fixed, moving, device)
        return min(len(self.pairs), 1)

    def _probed(
        self, model: FeatureModel, stride: int, device: torch.device, progress: Callable[[], None]
    ) -> dict[str, float]:
        """How often the model's features find the right place; see `probe`."""
        kept, volumes = self.probe, self.volumes
        if kept.matches is None:
            found = []
            for pair in _spread(self.pairs, PROBED_PAIRS):
                progress()
                found.append(trusted_matches(volumes, *pair, stride=stride, device=device))
            mind = get_model("mind", both_ct=volumes.modality.startswith("ct")).model
            kept.reference = match_quality(mind, volumes, found, stride=stride, device=device, progress=progress)[1]
            kept.matches = found
        accuracy, auc = match_quality(model, volumes, kept.matches, stride=stride, device=device, progress=progress)
        return {"match_accuracy": accuracy, "match_auc": auc, "mind_auc": kept.reference}

    def _measure_pair(
        self, model: FeatureModel, config: TrainConfig, fixed: int, moving: int, device: torch.device
    ) -> dict[str, float]:
        stages = PipelineConfig(
            passes=config.passes,
            coupled_convex=config.coupled_convex,
            refine=config.validation_refine,
            # One direction on the 1/2 grid shows what the network learned in a fraction of the time.
            symmetric=False,
            fine=False,
            seed=config.seed,
        )
        images = [self.volumes.image(row).to(device) for row in (fixed, moving)]
        found = register_volumes(images[0], images[1], model, stages, field_of_view=self.volumes.field_of_view)
        disp_vox = found.refined[0].cpu().numpy()
        row = {
            "sdlogj": sdlogj(disp_vox),
            "folds_percent": fold_percent(disp_vox),
            "seconds": sum(found.seconds.values()),
        }
        if self.labels:
            truth, other = self.labels[fixed], self.labels[moving]
            coarse = found.coarse[0].cpu().numpy()
            return row | {
                "dice_before": mean_over_labels(dice(truth, other, other)),
                "dice_coarse": mean_over_labels(dice(truth, warp_labels(other, coarse), other)),
                "dice": mean_over_labels(dice(truth, warp_labels(other, disp_vox), other)),
            }
        back = register_volumes(images[1], images[0], model, stages, field_of_view=self.volumes.field_of_view)
        there_and_back = compose(back.refined, found.refined)
        spacing = there_and_back.new_tensor(self.volumes.grid.spacing).view(1, 3, 1, 1, 1)
        row["similarity"] = similarity_above_chance(images[0].cpu(), warp(images[1], found.refined).cpu())
        row["inverse_error_mm"] = float((there_and_back * spacing).norm(dim=1).mean())
        if found.losses:
            row["residual"] = found.losses[-1]
        return row


def goodness(figures: Mapping[str, Any]) -> float:
    """The figure by which the models of a run's cycles are compared: Dice, or without labels the similarity of the
    images, which no network can make large by its features alone. Higher is better; -infinity if there is neither."""
    found = figures.get("dice", figures.get("similarity"))
    return -math.inf if found is None or math.isnan(found) else float(found)


def _spread(pairs: Sequence[Any], count: int) -> list[Any]:
    """This many pairs, evenly spaced in the list."""
    return [pairs[n * len(pairs) // count] for n in range(min(count, len(pairs)))]
