"""The self-training of CoRe: label the pairs with the current network and the optimiser, train on the labels, repeat.

`Run.train` is the method section: each cycle starts with pseudo-labels, made by a random network in the first cycle and
by the trained one later; each step draws reliable pairs more often and takes an Adam step on L = L_reg + lambda L_con.
"""

import math
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor

from corereg.errors import InputError, Interrupted
from corereg.method.features.convolution.inference import computing_type
from corereg.method.features.model import FeatureModel
from corereg.method.features.network import ConvNetModel, fill_statistics
from corereg.method.features.network_and_mind import with_descriptors
from corereg.training.checkpoint import CHECKPOINT, Checkpoint, save_checkpoint
from corereg.training.config import TrainConfig
from corereg.training.monitor import Monitor
from corereg.training.objective.objective import Losses, Objective, Phase, new_model, phase_of
from corereg.training.pseudo_labels import (
    Pairs,
    PseudoLabels,
    Sweep,
    create_files,
    draw_pairs,
    open_labels,
    sampling_weights,
    sweep,
)
from corereg.training.scans.volumes import Volumes
from corereg.training.schedule import (
    DRAW,
    LABELLER,
    PAIRS,
    VIEWS,
    WEIGHTS,
    contrast_weight,
    learning_rate,
    seed_at,
)
from corereg.training.stopping import StopRequest
from corereg.training.validation import Validation

__all__ = ["Run", "filled"]

STATISTICS_SCANS = 16
"""Scans that fill the normalisation statistics of the random network that makes the first labels."""

Rows = np.ndarray[Any, np.dtype[np.int64]]


@dataclass
class Run:
    """A training run at some point of its cycles.

    Args:
        names: names of the scans, by row of the cohort.
        pairs: training pairs, as rows of the cohort.
        either_way: whether a label may also be made from the second scan to the first.
        monitor: None in all processes but the first.
        resumed: state to resume from; None starts from scratch.
        stop: checked after every step.
    """

    fabric: Fabric
    config: TrainConfig
    volumes: Volumes
    names: Mapping[int, str]
    pairs: list[tuple[int, int]]
    either_way: bool
    validation: Validation
    folder: Path
    monitor: Monitor | None
    resumed: Checkpoint | None
    stop: StopRequest

    def train(self) -> ConvNetModel:
        """Run all remaining cycles.

        Raises:
            InputError: the loss became NaN or infinite.
            Interrupted: a stop was requested; the checkpoint is written.
        """
        config = self.config
        start_cycle, start_step = (self.resumed.cycle, self.resumed.step) if self.resumed else (0, 0)
        model, objective, optimiser = self._set_up()
        self._announce(start_cycle, start_step, model, optimiser)
        for cycle in range(start_cycle, config.cycles):
            first_step = start_step if cycle == start_cycle else 0
            phase = phase_of(cycle, config)
            labels = self._pseudo_labels(cycle, first_step, model) if phase.registration else None
            pairs, chances = self._pairs_and_chances(labels)
            _prepare(model, phase)
            for step in range(first_step, config.steps_per_cycle):
                drawn = self._draw(chances, cycle, step)
                rate, weight = learning_rate(config, step), contrast_weight(config, cycle, step)
                for group in optimiser.param_groups:
                    group["lr"] = rate
                fixed, moving = (self._images(pairs[drawn, side]) for side in (0, 1))
                seed = seed_at(config, VIEWS, cycle, step, self.fabric.global_rank)
                losses = objective(fixed, moving, self._targets(labels, drawn), phase, weight, seed)
                self._check_finite(losses, pairs[drawn], cycle, step)
                self.fabric.backward(losses.total)
                optimiser.step()
                optimiser.zero_grad(set_to_none=True)
                self._report(losses, phase, cycle, step, rate, weight)
                if step + 1 < config.steps_per_cycle:
                    self._save_or_stop(cycle, step + 1, model, optimiser)
            self._finish(cycle, model, optimiser)
        return model

    def _set_up(self) -> tuple[ConvNetModel, Any, Any]:
        """Network, objective and optimiser on their device, in the state to start from."""
        device = self.fabric.device
        model = new_model(self.config, seed=seed_at(self.config, WEIGHTS, 0))
        if self.resumed:
            model.load_state_dict(self.resumed.weights)
        model.to(device, memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        objective = Objective(model, self.config, bf16=computing_type(self.config.precision, device) is torch.bfloat16)
        optimiser = torch.optim.Adam(model.parameters(), lr=self.config.learning_rate)
        if self.resumed:
            optimiser.load_state_dict(self.resumed.optimiser)
        return model, *self.fabric.setup(objective, optimiser)

    def _announce(self, cycle: int, step: int, model: ConvNetModel, optimiser: Any) -> None:
        if self.monitor:
            self.monitor.start(cycle, step)
        if not self.resumed:
            self._save(0, 0, model, optimiser)

    def _pseudo_labels(self, cycle: int, first_step: int, model: ConvNetModel) -> PseudoLabels:
        """This cycle's labels: those on disk if the cycle has begun, otherwise made by all processes together."""
        folder = self.folder / "labels" / f"cycle_{cycle:03d}"
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
            create_files(unfinished, pairs, [n // 2 for n in self.volumes.grid.shape])
        self._synchronise(labeller)
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
        if self.monitor:
            self.monitor.cycle({"cycle": cycle, "step": -1} | labels.figures())
        return labels

    def _random_labeller(self) -> ConvNetModel:
        """The random network of the first labels; the network that is trained starts from other weights."""
        model = new_model(self.config, seed=seed_at(self.config, LABELLER, 0))
        return filled(model, self.volumes, self.fabric.device)

    def _labelled(self, cycle: int, done: int, pairs: int) -> None:
        if self.monitor:
            self.monitor.sweep(cycle, done, pairs)
        if self.stop.is_set():
            # A resumed run repeats the whole sweep: the checkpoint before it is all that is needed.
            raise Interrupted(self.stop.signal_number)

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
        if labels is None:
            return None
        return torch.from_numpy(labels.disp_vox[drawn].astype(np.float32)).to(self.fabric.device)

    def _check_finite(self, losses: Losses, pairs: Pairs, cycle: int, step: int) -> None:
        if not math.isfinite(float(losses.total.detach())):
            names = "; ".join(f"{self.names[int(f)]} and {self.names[int(m)]}" for f, m in pairs)
            raise InputError(
                f"the loss became NaN or infinite in cycle {cycle}, step {step}, on {names}; check these scans or "
                f"lower learning_rate. The last good checkpoint is {self.folder / CHECKPOINT}"
            )

    def _report(self, losses: Losses, phase: Phase, cycle: int, step: int, rate: float, weight: float) -> None:
        if not self.monitor:
            return
        row: dict[str, Any] = {"cycle": cycle, "step": step, "loss": float(losses.total.detach())}
        if phase.registration:
            row["registration"] = float(losses.registration.detach())
        if phase.contrast:
            row |= {"contrast": float(losses.contrast.detach()), "lambda": weight}
        images = 2 * self.config.batch_size * self.fabric.world_size
        left = (self.config.cycles - cycle) * self.config.steps_per_cycle - step - 1
        self.monitor.step(row | {"learning_rate": rate}, images=images, left=left)

    def _save_or_stop(self, cycle: int, step: int, model: ConvNetModel, optimiser: Any) -> None:
        """Within a cycle: save when a checkpoint is due or a stop was requested, and then stop."""
        stop = self._anyone_stops()
        if stop or step % self.config.checkpoint_every == 0:
            self._save(cycle, step, model, optimiser)
        if stop:
            raise Interrupted(self.stop.signal_number)

    def _finish(self, cycle: int, model: ConvNetModel, optimiser: Any) -> None:
        """After a cycle: measure, then save, so that a run that dies in between measures again."""
        self._synchronise(model)
        model.eval()
        if self.monitor:
            figures = self.validation.measure(self._as_registering(model), self.config, self.fabric.device)
            if figures:
                self.monitor.cycle({"cycle": cycle, "step": self.config.steps_per_cycle} | figures)
            self.monitor.draw()
        self.fabric.barrier()
        self._save(cycle + 1, 0, model, optimiser)
        if self._anyone_stops() and cycle + 1 < self.config.cycles:
            raise Interrupted(self.stop.signal_number)

    def _save(self, cycle: int, step: int, model: ConvNetModel, optimiser: Any) -> None:
        if self.fabric.is_global_zero:
            state = Checkpoint(
                cycle, step, model.state_dict(), optimiser.state_dict(), self.config, self.volumes.fingerprint
            )
            save_checkpoint(self.folder / CHECKPOINT, state)
        self.fabric.barrier()

    def _synchronise(self, model: ConvNetModel) -> None:
        """Give all processes the normalisation statistics of the first, since each has seen other pairs."""
        if self.fabric.world_size > 1:
            for buffer in model.buffers():
                buffer.copy_(self.fabric.broadcast(buffer))

    def _anyone_stops(self) -> bool:
        stop = self.stop.is_set()
        if self.fabric.world_size == 1:
            return stop
        flag = torch.tensor(float(stop), device=self.fabric.device)
        total = self.fabric.all_reduce(flag, reduce_op="sum")
        return bool(torch.as_tensor(total) > 0)


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
