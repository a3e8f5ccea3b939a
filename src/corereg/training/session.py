"""What every kind of training run does around its steps: save, stop, measure, and keep processes alike."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from corereg.errors import InputError, Interrupted
from corereg.method.features.model import FeatureModel
from corereg.training.checkpoint import CHECKPOINT, Checkpoint, save_checkpoint
from corereg.training.config import TrainConfig
from corereg.training.monitor import Monitor
from corereg.training.scans.volumes import Volumes
from corereg.training.schedule import learning_rate
from corereg.training.stopping import StopRequest
from corereg.training.validation import Validation, goodness

__all__ = ["Session"]


@dataclass
class Session:
    """A run's surroundings.

    Args:
        names: names of the scans, by row of the cohort.
        fingerprint: of all that the run learns from.
        monitor: None in all processes but the first.
        resumed: state to resume from; None starts from scratch.
        stop: checked after every step and every registration of the validation.
        keep_best: writes the best model so far, given its network and figures.
    """

    fabric: Fabric
    config: TrainConfig
    volumes: Volumes
    names: Mapping[int, str]
    fingerprint: str
    validation: Validation
    folder: Path
    monitor: Monitor | None
    resumed: Checkpoint | None
    stop: StopRequest
    keep_best: Callable[[Any, Mapping[str, float]], None]

    @property
    def start(self) -> tuple[int, int]:
        """Cycle and step to begin with."""
        return (self.resumed.cycle, self.resumed.step) if self.resumed else (0, 0)

    def set_up(self, model: nn.Module, objective: nn.Module) -> tuple[Any, Any]:
        """Objective and optimiser on their device, with the network in the state to start from."""
        if self.resumed:
            model.load_state_dict(self.resumed.weights)
        model.to(self.fabric.device, memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        optimiser = torch.optim.Adam(model.parameters(), lr=self.config.learning_rate)
        if self.resumed:
            optimiser.load_state_dict(self.resumed.optimiser)
        on_device, optimiser = self.fabric.setup(objective, optimiser)
        return on_device, optimiser

    def announce(self, model: nn.Module, optimiser: Any) -> None:
        """Begin the record, and save a fresh run's state, to which a stop may fall back."""
        if self.monitor:
            self.monitor.start(*self.start)
        if not self.resumed:
            self.save(0, 0, model, optimiser)

    def set_rate(self, optimiser: Any, step: int) -> float:
        """Set the step's learning rate, and return it."""
        rate = learning_rate(self.config, step)
        for group in optimiser.param_groups:
            group["lr"] = rate
        return rate

    def update(self, loss: Tensor, optimiser: Any, scans: Iterable[str], cycle: int, step: int) -> None:
        """One step of the optimiser.

        Args:
            scans: what the batch consists of, for the message.

        Raises:
            InputError: the loss is NaN or infinite.
        """
        if not math.isfinite(float(loss.detach())):
            raise InputError(
                f"the loss became NaN or infinite in cycle {cycle}, step {step}, on {'; '.join(scans)}; check these "
                f"scans or lower learning_rate. The last good checkpoint is {self.folder / CHECKPOINT}"
            )
        self.fabric.backward(loss)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)

    def save_or_stop(self, cycle: int, step: int, model: nn.Module, optimiser: Any) -> None:
        """Within a cycle, before its next step: save when a checkpoint is due or a stop was requested, and stop then.

        Raises:
            Interrupted: a stop was requested.
        """
        if step == self.config.steps_per_cycle:
            return
        stop = self.anyone_stops()
        if stop or step % self.config.checkpoint_every == 0:
            self.save(cycle, step, model, optimiser)
        if stop:
            raise Interrupted(self.stop.signal_number)

    def finish(self, cycle: int, model: nn.Module, registering: FeatureModel, optimiser: Any) -> None:
        """After a cycle: measure, then save, so that a run that dies or is stopped in between measures again.

        Args:
            registering: the network as it registers.

        Raises:
            Interrupted: a stop was requested, and something is left to do.
        """
        self.synchronise(model)
        model.eval()
        measured = True
        if self.monitor:
            try:
                self._measure(self.monitor, cycle, model, registering)
            except Interrupted:
                measured = False
        measured = self.fabric.broadcast(measured)
        self.save(*((cycle + 1, 0) if measured else (cycle, self.config.steps_per_cycle)), model, optimiser)
        if self.anyone_stops() and (cycle + 1 < self.config.cycles or not measured):
            raise Interrupted(self.stop.signal_number)

    def _measure(self, monitor: Monitor, cycle: int, model: nn.Module, registering: FeatureModel) -> None:
        """Measure the network, record that, and keep it if it is the best so far."""

        def show(done: int, pairs: int) -> None:
            monitor.validated(cycle, done, pairs)
            if self.stop.is_set():
                raise Interrupted(self.stop.signal_number)

        figures = self.validation.measure(registering, self.config, self.fabric.device, show)
        if figures:
            best = max((goodness(row) for row in monitor.validations()), default=-math.inf)
            if goodness(figures) > best:
                self.keep_best(model, figures)
            monitor.cycle({"cycle": cycle, "step": self.config.steps_per_cycle} | figures)
        monitor.draw()

    def save(self, cycle: int, step: int, model: nn.Module, optimiser: Any) -> None:
        """Write the checkpoint."""
        if self.fabric.is_global_zero:
            state = Checkpoint(cycle, step, model.state_dict(), optimiser.state_dict(), self.config, self.fingerprint)
            save_checkpoint(self.folder / CHECKPOINT, state)
        self.fabric.barrier()

    def synchronise(self, model: nn.Module) -> None:
        """Give all processes the normalisation statistics of the first, since each has seen other scans."""
        if self.fabric.world_size > 1:
            for buffer in model.buffers():
                buffer.copy_(self.fabric.broadcast(buffer))

    def anyone_stops(self) -> bool:
        """Whether a stop was requested from any process."""
        stop = self.stop.is_set()
        if self.fabric.world_size == 1:
            return stop
        flag = torch.tensor(float(stop), device=self.fabric.device)
        total = self.fabric.all_reduce(flag, reduce_op="sum")
        return bool(torch.as_tensor(total) > 0)
