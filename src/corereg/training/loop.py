"""The self-training of CoRe: label the pairs with the current network and the optimiser, train on the labels, repeat.

`Run.train` is the method section: each cycle starts with pseudo-labels, made by a random network in the first cycle and
by the trained one later; each step draws reliable pairs more often and takes an Adam step on L = L_reg + lambda L_con.
"""

import math
import shutil
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from corereg.errors import InputError, Interrupted
from corereg.method.features.convolution.inference import computing_type
from corereg.method.features.model import FeatureModel
from corereg.method.features.network import ConvNetModel, fill_statistics
from corereg.method.features.network_and_mind import with_descriptors
from corereg.training.forecast import PAIR, STEP, VALIDATION, Forecast
from corereg.training.objective.objective import Losses, Objective, Phase, new_model, phase_of
from corereg.training.pseudo_labels import (
    EncodedScans,
    Pairs,
    PseudoLabels,
    Sweep,
    create_files,
    draw_pairs,
    draws_matches,
    label,
    labels_bytes,
    open_labels,
    sampling_weights,
    sweep,
)
from corereg.training.scans.volumes import Volumes
from corereg.training.schedule import DRAW, LABELLER, PAIRS, VIEWS, WEIGHTS, contrast_weight, seed_at
from corereg.training.session import Session
from corereg.training.trial import MB, describe, try_out

__all__ = ["Run", "filled"]

STATISTICS_SCANS = 16
"""Scans that fill the normalisation statistics of the random network that makes the first labels."""

Rows = np.ndarray[Any, np.dtype[np.int64]]


@dataclass
class Run:
    """A training run at some point of its cycles.

    Args:
        pairs: training pairs, as rows of the cohort.
        either_way: whether a label may also be made from the second scan to the first.
    """

    session: Session
    pairs: list[tuple[int, int]]
    either_way: bool

    def __post_init__(self) -> None:
        self.fabric, self.config, self.volumes = self.session.fabric, self.session.config, self.session.volumes

    def work(self) -> list[dict[str, int]]:
        """Units of each kind of work in each cycle, see `Forecast`."""
        config = self.config
        labelled = min(len(self.pairs), config.pseudo_labels.pairs or len(self.pairs))
        share = math.ceil(labelled / self.fabric.world_size)
        return [
            {
                PAIR: share if phase_of(cycle, config).registration else 0,
                STEP: config.steps_per_cycle,
                VALIDATION: len(self.session.validation.pairs),
            }
            for cycle in range(config.cycles)
        ]

    def estimate(self, forecast: Forecast) -> list[str]:
        """Lines on time, memory and disk, from a step and pseudo-labels made by networks that are then dropped."""
        config, volumes, device = self.config, self.volumes, self.fabric.device
        phase = phase_of(config.cycles - 1, config)
        half = [n // 2 for n in volumes.grid.shape]
        model = filled(new_model(config, seed=config.seed), volumes, device)
        pairs = np.asarray(self.pairs)
        to_step, to_label = (np.resize(pairs, (n, 2)) for n in (config.batch_size, config.pseudo_labels.batch))
        per_scan: list[float] = []

        def label_pairs() -> int:
            scans = EncodedScans(self._as_registering(model), volumes, config, Sweep(device=device, seed=config.seed))
            label(scans, to_label)
            per_scan.append(scans.bytes_per_scan)
            return len(to_label)

        def step() -> int:
            _prepare(model, phase)
            still = torch.zeros(len(to_step), 3, *half, device=device)
            trusted = torch.ones(len(to_step), 1, *half, device=device) if draws_matches(config) else None
            fixed, moving = (self._images(to_step[:, side]) for side in (0, 1))
            objective(fixed, moving, still, phase, config.contrast.weight, config.seed, trusted).total.backward()
            return 1

        objective = Objective(model, config, bf16=computing_type(config.precision, device) is torch.bfloat16)
        trial = try_out(({PAIR: label_pairs} if phase.registration else {}) | {STEP: step}, device)
        forecast.tried.update(trial.seconds)
        kept_scans = min(len(np.unique(pairs)), config.pseudo_labels.encoded_scans)
        most_pairs = max(cycle[PAIR] for cycle in forecast.cycles) * self.fabric.world_size
        return describe(
            forecast,
            trial,
            kept_mb=kept_scans * max(per_scan, default=0.0) / MB,
            disk_mb=labels_bytes(most_pairs, half, config) / MB,
            device=device,
        )

    def train(self) -> ConvNetModel:
        """Run all remaining cycles.

        Raises:
            InputError: the loss became NaN or infinite.
            Interrupted: a stop was requested; the checkpoint is written.
        """
        config, session = self.config, self.session
        start_cycle, start_step = session.start
        model = new_model(config, seed=seed_at(config, WEIGHTS, 0))
        bf16 = computing_type(config.precision, self.fabric.device) is torch.bfloat16
        objective, optimiser = session.set_up(model, Objective(model, config, bf16=bf16))
        session.announce(model, optimiser)
        for cycle in range(start_cycle, config.cycles):
            first_step = start_step if cycle == start_cycle else 0
            phase = phase_of(cycle, config)
            labels = self._pseudo_labels(cycle, first_step, model) if phase.registration else None
            pairs, chances = self._pairs_and_chances(labels)
            _prepare(model, phase)
            for step in range(first_step, config.steps_per_cycle):
                drawn = self._draw(chances, cycle, step)
                rate, weight = session.set_rate(optimiser, step), contrast_weight(config, cycle, step)
                fixed, moving = (self._images(pairs[drawn, side]) for side in (0, 1))
                seed = seed_at(config, VIEWS, cycle, step, self.fabric.global_rank)
                known = self._targets(labels, drawn), self._trusted(labels, drawn)
                losses = objective(fixed, moving, known[0], phase, weight, seed, known[1])
                names = (" and ".join(session.names[int(row)] for row in pair) for pair in pairs[drawn])
                session.update(losses.total, optimiser, names, cycle, step)
                self._report(losses, phase, cycle, step, rate, weight)
                session.save_or_stop(cycle, step + 1, model, optimiser)
            session.finish(cycle, model, self._as_registering(model), optimiser)
        return model

    def _pseudo_labels(self, cycle: int, first_step: int, model: ConvNetModel) -> PseudoLabels:
        """This cycle's labels: those on disk if the cycle has begun, otherwise made by all processes together."""
        folder = self.session.folder / "labels" / f"cycle_{cycle:03d}"
        if first_step > 0:
            if not folder.is_dir():
                raise InputError(f"the pseudo-labels of the cycle to resume are not at {folder}; start a new run")
            return open_labels(folder)
        labeller = self._random_labeller() if cycle == 0 else model.eval()
        unfinished = folder.with_name(folder.name + ".partial")
        if self.fabric.is_global_zero:
            shutil.rmtree(folder.parent, ignore_errors=True)
            pairs = draw_pairs(
                self.pairs,
                self.config.pseudo_labels.pairs,
                either_way=self.either_way,
                seed=seed_at(self.config, PAIRS, cycle),
            )
            create_files(unfinished, pairs, [n // 2 for n in self.volumes.grid.shape], self.config)
        self.session.synchronise(labeller)
        share = Sweep(
            device=self.fabric.device,
            rank=self.fabric.global_rank,
            ranks=self.fabric.world_size,
            seed=self.config.seed,
            progress=partial(self._labelled, cycle),
        )
        sweep(self._as_registering(labeller), self.volumes, self.config, unfinished, share)
        self.fabric.barrier()
        if self.fabric.is_global_zero:
            unfinished.rename(folder)
        self.fabric.barrier()
        labels = open_labels(folder)
        if self.session.monitor:
            self.session.monitor.cycle({"cycle": cycle, "step": -1} | labels.figures())
        return labels

    def _random_labeller(self) -> ConvNetModel:
        """The random network of the first labels; the network that is trained starts from other weights."""
        model = new_model(self.config, seed=seed_at(self.config, LABELLER, 0))
        return filled(model, self.volumes, self.fabric.device)

    def _labelled(self, cycle: int, done: int, pairs: int) -> None:
        if self.session.monitor:
            self.session.monitor.sweep(cycle, done, pairs)
        if self.session.stop.is_set():
            # A resumed run repeats the whole sweep: the checkpoint before it is all that is needed.
            raise Interrupted(self.session.stop.signal_number)

    def _as_registering(self, model: ConvNetModel) -> FeatureModel:
        return with_descriptors(model, both_ct=self.volumes.modality.startswith("ct"))

    def _pairs_and_chances(self, labels: PseudoLabels | None) -> tuple[Pairs, Tensor]:
        """Pairs of the cycle and how likely each is drawn."""
        if labels is None:
            return np.asarray(self.pairs, dtype=np.int64), torch.ones(len(self.pairs), dtype=torch.float64)
        return labels.pairs, sampling_weights(labels.difficulty_mm)

    def _draw(self, chances: Tensor, cycle: int, step: int) -> Rows:
        """This process's pairs of the batch: all processes draw the same batch, and each takes its share."""
        generator = torch.Generator().manual_seed(seed_at(self.config, DRAW, cycle, step))
        size, ranks = self.config.batch_size, self.fabric.world_size
        repeat = len(chances) < size * ranks
        drawn = torch.multinomial(chances, size * ranks, replacement=repeat, generator=generator)
        return drawn[self.fabric.global_rank :: ranks].numpy()

    def _images(self, rows: Rows) -> Tensor:
        images = torch.cat([self.volumes.image(int(row)) for row in rows])
        return images.to(self.fabric.device, non_blocking=True)

    def _targets(self, labels: PseudoLabels | None, drawn: Rows) -> Tensor | None:
        return None if labels is None else self._float(labels.disp_vox[drawn])

    def _trusted(self, labels: PseudoLabels | None, drawn: Rows) -> Tensor | None:
        return None if labels is None or labels.trusted is None else self._float(labels.trusted[drawn, None])

    def _float(self, values: NDArray[Any]) -> Tensor:
        return torch.from_numpy(values.astype(np.float32)).to(self.fabric.device)

    def _report(self, losses: Losses, phase: Phase, cycle: int, step: int, rate: float, weight: float) -> None:
        if not self.session.monitor:
            return
        row: dict[str, Any] = {"cycle": cycle, "step": step, "loss": float(losses.total.detach())}
        if phase.registration:
            row["registration"] = float(losses.registration.detach())
        if phase.contrast:
            row |= {"contrast": float(losses.contrast.detach()), "lambda": weight}
        images = 2 * self.config.batch_size * self.fabric.world_size
        self.session.monitor.step(row | {"learning_rate": rate}, images=images)


def filled(model: ConvNetModel, volumes: Volumes, device: torch.device) -> ConvNetModel:
    """A fresh network whose normalisation statistics are filled from some of the cohort's scans, ready to register."""
    model.to(device, memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    rows = sorted(volumes.rows.values())
    fill_statistics(model, (volumes.image(row).to(device) for row in rows[:: max(1, len(rows) // STATISTICS_SCANS)]))
    return model.eval()


def _prepare(model: ConvNetModel, phase: Phase) -> None:
    """Switch to training mode; a frozen extractor keeps its weights and its statistics."""
    model.train()
    model.statistics_filled = True
    model.extractor.requires_grad_(not phase.frozen_extractor)
    model.extractor.train(not phase.frozen_extractor)
