"""The cycle of CoRe: label the pairs with the current network and the optimiser, train on the labels, repeat.

for each cycle:
    pseudo-labels of its pairs, by a random network in the first cycle and the trained one later
    for each step:
        reliable pairs drawn more often; L = L_reg + lambda L_con on augmented views; Adam
"""

import math
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor

from corereg.errors import InputError
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
from corereg.training.validation import Validation

__all__ = ["Interrupted", "Run", "filled"]

STATISTICS_SCANS = 16
"""Scans that fill the normalisation statistics of the random network that makes the first labels."""

DRAW, VIEWS, PAIRS, LABELLER, WEIGHTS = range(5)
"""Streams of random numbers, each from the seed, its own number and the position in the run."""


class Interrupted(Exception):  # noqa: N818 - an event, no fault
    """The run was asked to stop, and has saved what it needs to go on."""


@dataclass
class Run:
    """A training run at some point of its cycles.

    Args:
        names: of the scans, by row of the cohort.
        pairs: rows to train on.
        either_way: whether a label may also be made from the second to the first.
        resumed: state to go on from; None starts anew.
        stop: asked after every step whether to save and leave.
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
    stop: Callable[[], bool]

    def train(self) -> ConvNetModel:
        """All cycles that are left.

        Raises:
            InputError: the loss is no number any more.
            Interrupted: `stop` said so; the checkpoint is written.
        """
        model = new_model(self.config, seed=self._seed(WEIGHTS, 0))
        start_cycle, start_step = 0, 0
        if self.resumed:
            model.load_state_dict(self.resumed.weights)
            start_cycle, start_step = self.resumed.cycle, self.resumed.step
        model.to(self.fabric.device, memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        objective = Objective(
            model, self.config, bf16=computing_type(self.config.precision, self.fabric.device) is torch.bfloat16
        )
        optimiser = torch.optim.Adam(model.parameters(), lr=self.config.learning_rate)
        if self.resumed:
            optimiser.load_state_dict(self.resumed.optimiser)
        wrapped, wrapped_optimiser = self.fabric.setup(objective, optimiser)
        if self.monitor:
            self.monitor.start(start_cycle, start_step)
        if not self.resumed:
            self._save(0, 0, model, wrapped_optimiser)
        for cycle in range(start_cycle, self.config.cycles):
            first = start_step if cycle == start_cycle else 0
            self._cycle(cycle, first, model, wrapped, wrapped_optimiser)
        return model

    def _cycle(self, cycle: int, first: int, model: ConvNetModel, objective: Any, optimiser: Any) -> None:
        phase = phase_of(cycle, self.config)
        labels = self._labels(cycle, first, model) if phase.registration else None
        pairs = labels.pairs if labels else np.asarray(self.pairs, dtype=np.int64)
        chances = sampling_weights(labels.difficulty_mm) if labels else torch.ones(len(pairs), dtype=torch.float64)
        _prepare(model, phase)
        if self.monitor:
            self.monitor.restart_clock()
        for step in range(first, self.config.steps_per_cycle):
            drawn = self._draw(chances, cycle, step)
            rate = self._learning_rate(step)
            for group in optimiser.param_groups:
                group["lr"] = rate
            weight = self._contrast_weight(cycle, step)
            losses = objective(
                self._images(pairs, drawn, side=0),
                self._images(pairs, drawn, side=1),
                self._targets(labels, drawn),
                phase,
                weight,
                self._seed(VIEWS, cycle, step, self.fabric.global_rank),
            )
            self._check_finite(losses, pairs[drawn], cycle, step)
            self.fabric.backward(losses.total)
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
            self._report(losses, phase, cycle, step, rate, weight)
            done = step + 1 == self.config.steps_per_cycle
            stop = self._anyone_stops()
            if not done and (stop or (step + 1) % self.config.checkpoint_every == 0):
                self._save(cycle, step + 1, model, optimiser)
            if stop and not done:
                raise Interrupted
        self._finish(cycle, model, optimiser)
        if self._anyone_stops() and cycle + 1 < self.config.cycles:
            raise Interrupted

    def _labels(self, cycle: int, first: int, model: ConvNetModel) -> PseudoLabels:
        """This cycle's labels: those on disk where the cycle was begun, else swept by all processes together."""
        folder = self.folder / "labels" / f"cycle_{cycle:03d}"
        if first > 0:
            if not folder.is_dir():
                raise InputError(f"got no pseudo-labels at {folder}, expected those of the cycle to resume; start anew")
            return open_labels(folder)
        labeller = self._labeller() if cycle == 0 else model.eval()
        unfinished = folder.with_name(folder.name + ".partial")
        if self.fabric.is_global_zero:
            shutil.rmtree(folder.parent, ignore_errors=True)
            count = self.config.pseudo_labels.pairs
            pairs = draw_pairs(self.pairs, count, either_way=self.either_way, seed=self._seed(PAIRS, cycle))
            create_files(unfinished, pairs, [n // 2 for n in self.volumes.grid.shape])
        self._synchronise(labeller)
        task = Sweep(
            device=self.fabric.device,
            rank=self.fabric.global_rank,
            ranks=self.fabric.world_size,
            seed=self.config.seed,
            progress=partial(self._swept, cycle),
        )
        sweep(self._as_registering(labeller), self.volumes, self.config, unfinished, task)
        self.fabric.barrier()
        if self.fabric.is_global_zero:
            unfinished.rename(folder)
        self.fabric.barrier()
        labels = open_labels(folder)
        if self.monitor:
            size = np.abs(labels.disp_vox[:: max(1, len(labels.pairs) // 20)].astype(np.float32)).mean()
            self.monitor.cycle(
                {
                    "cycle": cycle,
                    "step": -1,
                    "pairs": len(labels.pairs),
                    "difficulty_mm": float(labels.difficulty_mm.mean()),
                    "label_vox": float(size),
                }
            )
        return labels

    def _swept(self, cycle: int, done: int, pairs: int) -> None:
        if self.monitor:
            self.monitor.sweep(cycle, done, pairs)
        if self.stop():
            # A sweep is made again as a whole: the checkpoint before it is all that is needed.
            raise Interrupted

    def _as_registering(self, model: ConvNetModel) -> FeatureModel:
        return with_descriptors(model, both_ct=self.volumes.modality.startswith("ct"))

    def _labeller(self) -> ConvNetModel:
        """The random network of the first labels: other weights than those that are trained."""
        return filled(new_model(self.config, seed=self._seed(LABELLER, 0)), self.volumes, self.fabric.device)

    def _finish(self, cycle: int, model: ConvNetModel, optimiser: Any) -> None:
        """Measure after the cycle, then save: a run that dies in between measures again."""
        self._synchronise(model)
        model.eval()
        if self.monitor:
            figures = self.validation.measure(self._as_registering(model), self.config, self.fabric.device)
            if figures:
                self.monitor.cycle({"cycle": cycle, "step": self.config.steps_per_cycle} | figures)
            self.monitor.draw()
        self.fabric.barrier()
        self._save(cycle + 1, 0, model, optimiser)

    def _save(self, cycle: int, step: int, model: ConvNetModel, optimiser: Any) -> None:
        if self.fabric.is_global_zero:
            state = Checkpoint(
                cycle, step, model.state_dict(), optimiser.state_dict(), self.config, self.volumes.fingerprint
            )
            save_checkpoint(self.folder / CHECKPOINT, state)
        self.fabric.barrier()

    def _synchronise(self, model: ConvNetModel) -> None:
        """The normalisation statistics of process 0 for all, since each has seen other pairs."""
        if self.fabric.world_size > 1:
            for buffer in model.buffers():
                buffer.copy_(self.fabric.broadcast(buffer))

    def _anyone_stops(self) -> bool:
        stop = self.stop()
        if self.fabric.world_size == 1:
            return stop
        flag = torch.tensor(float(stop), device=self.fabric.device)
        total = self.fabric.all_reduce(flag, reduce_op="sum")
        return bool(torch.as_tensor(total) > 0)

    def _draw(self, chances: Tensor, cycle: int, step: int) -> np.ndarray[Any, np.dtype[np.int64]]:
        """This process's pairs of the batch: all processes draw the same and take each its own."""
        generator = torch.Generator().manual_seed(self._seed(DRAW, cycle, step))
        size, ranks = self.config.batch_size, self.fabric.world_size
        repeat = len(chances) < size * ranks
        drawn = torch.multinomial(chances, size * ranks, replacement=repeat, generator=generator)
        return drawn[self.fabric.global_rank :: ranks].numpy()

    def _images(self, pairs: Pairs, drawn: Any, *, side: int) -> Tensor:
        images = torch.cat([self.volumes.image(int(row)) for row in pairs[drawn, side]])
        return images.to(self.fabric.device, non_blocking=True)

    def _targets(self, labels: PseudoLabels | None, drawn: Any) -> Tensor | None:
        if labels is None:
            return None
        return torch.from_numpy(labels.disp_vox[drawn].astype(np.float32)).to(self.fabric.device)

    def _learning_rate(self, step: int) -> float:
        """Cosine over the cycle, begun anew with each."""
        high, low = self.config.learning_rate, self.config.final_learning_rate
        return low + (high - low) * (1 + math.cos(math.pi * step / self.config.steps_per_cycle)) / 2

    def _contrast_weight(self, cycle: int, step: int) -> float:
        settings, steps = self.config.contrast, self.config.steps_per_cycle
        done = {"run": (cycle + step / steps) / self.config.cycles, "cycle": step / steps, "none": 0.0}
        return settings.weight * (1 - done[settings.decay])

    def _check_finite(self, losses: Losses, pairs: Pairs, cycle: int, step: int) -> None:
        if not math.isfinite(float(losses.total.detach())):
            names = "; ".join(f"{self.names[int(f)]} and {self.names[int(m)]}" for f, m in pairs)
            raise InputError(
                f"got a loss that is no number in cycle {cycle}, step {step}, on {names}, expected finite losses; look "
                f"at these scans or lower learning_rate. The last good checkpoint is {self.folder / CHECKPOINT}"
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

    def _seed(self, *position: int) -> int:
        return int(np.random.SeedSequence((self.config.seed, *position)).generate_state(1, np.uint64)[0] >> 1)


def filled(model: ConvNetModel, volumes: Volumes, device: torch.device) -> ConvNetModel:
    """A fresh network with its normalisation statistics filled from some of the cohort's scans, ready to register."""
    model.to(device, memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    rows = sorted(volumes.rows.values())
    fill_statistics(model, (volumes.image(row).to(device) for row in rows[:: max(1, len(rows) // STATISTICS_SCANS)]))
    return model.eval()


def _prepare(model: ConvNetModel, phase: Phase) -> None:
    """Training mode; a frozen extractor keeps its weights and its statistics."""
    model.train()
    model.statistics_filled = True
    model.extractor.requires_grad_(not phase.frozen_extractor)
    model.extractor.train(not phase.frozen_extractor)
