"""Training on label maps, drawn for all scans or for some of them (semi-supervised).

Each cycle after the first starts with predictions: the current network labels the scans that have no map, and the
voxels of which it is sure train along with the drawn maps.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from corereg.errors import InputError
from corereg.io.atomic import atomic_path
from corereg.method.features.convolution.inference import computing_type
from corereg.method.features.label_network import LabelNetwork, LabelNetworkConfig, random_label_network
from corereg.method.features.labels_and_mind import LabelsAndMind
from corereg.training.forecast import STEP, VALIDATION, Forecast
from corereg.training.labels.augment import augmented
from corereg.training.labels.loss import IGNORED, label_loss
from corereg.training.labels.maps import LabelMaps
from corereg.training.schedule import DRAW, VIEWS, WEIGHTS, seed_at
from corereg.training.session import Session
from corereg.training.trial import describe, try_out

__all__ = ["LabelRun"]

DRAWN_SHARE = 0.5
"""Least share of the steps' scans whose map was drawn: predictions may be many, but only drawn maps are right."""

Predictions = Mapping[int, NDArray[np.int16]]
"""Classes (I, J, K) of the scans without a map, by row; IGNORED where the network is not sure."""


_Scan = tuple[Tensor | None, Tensor | None]

KEPT_SHARE = 0.25
"""Share of a GPU's memory for scans."""


class _Batch(NamedTuple):
    """B scans, C classes."""

    images: Tensor
    classes: Tensor
    known: Tensor


@dataclass
class LabelRun:
    """A run at some point of its cycles.

    Args:
        rows: training scans, as rows of the cohort.
        maps: the drawn label maps.
    """

    session: Session
    rows: list[int]
    maps: LabelMaps
    _kept: dict[int, _Scan] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        strange = [label for label in self.session.config.labels.peeled if label not in self.maps.labels]
        if strange:
            raise InputError(
                f"got labels.peeled with {strange}, expected some of the labels in the maps: {list(self.maps.labels)}; "
                "correct it"
            )

    def work(self) -> list[dict[str, int]]:
        """Units of each kind of work in each cycle, see `Forecast`."""
        config = self.session.config
        return [{STEP: config.steps_per_cycle, VALIDATION: len(self.session.validation.pairs)}] * config.cycles

    def estimate(self, forecast: Forecast) -> list[str]:
        """Lines on time and memory, from a step of a network that is then dropped and a pair that it registers."""
        config, device, validation = self.session.config, self.session.fabric.device, self.session.validation
        model = random_label_network(self._network(), seed=config.seed)
        objective = _Objective(model, bf16=self._bf16()).to(device)
        count = config.batch_size
        rows = (list(self.maps.classes) * count)[:count]

        def step() -> int:
            objective(*self._batch(rows, {}, 0, 0)).backward()
            return 1

        def pair() -> int:
            return validation.try_pair(self._registering(model.eval()), config, device)

        trial = try_out({STEP: step} | ({VALIDATION: pair} if validation.pairs else {}), device)
        forecast.tried.update(trial.seconds)
        return describe(forecast, trial, kept_mb=0.0, disk_mb=0.0, device=device)

    def train(self) -> LabelNetwork:
        """Run all remaining cycles.

        Raises:
            InputError: the loss became NaN or infinite.
            Interrupted: a stop was requested; the checkpoint is written.
        """
        session, config = self.session, self.session.config
        start_cycle, start_step = session.start
        model = random_label_network(self._network(), seed=seed_at(config, WEIGHTS, 0))
        objective, optimiser = session.set_up(model, _Objective(model, bf16=self._bf16()))
        session.announce(model, optimiser)
        for cycle in range(start_cycle, config.cycles):
            first_step = start_step if cycle == start_cycle else 0
            predictions = self._predictions(cycle, first_step, model) if cycle > 0 else {}
            model.train()
            for step in range(first_step, config.steps_per_cycle):
                rows = self._draw(list(predictions), cycle, step)
                rate = session.set_rate(optimiser, step)
                loss = objective(*self._batch(rows, predictions, cycle, step))
                session.update(loss, optimiser, (session.names[row] for row in rows), cycle, step)
                self._report(loss, cycle, step, rate)
                session.save_or_stop(cycle, step + 1, model, optimiser)
            session.finish(cycle, model, self._registering(model), optimiser)
        return model

    def _registering(self, model: LabelNetwork) -> LabelsAndMind:
        return LabelsAndMind(model, both_ct=self.session.volumes.modality.startswith("ct"))

    def _bf16(self) -> bool:
        # float16, with which a GPU infers, is too narrow for gradients.
        return computing_type(self.session.config.precision, self.session.fabric.device) is not torch.float32

    def _network(self) -> LabelNetworkConfig:
        return LabelNetworkConfig(
            labels=self.maps.labels,
            channels=self.session.config.labels.channels,
            spacing_mm=float(np.mean(self.session.volumes.grid.spacing)),
        )

    def _predictions(self, cycle: int, first_step: int, model: LabelNetwork) -> Predictions:
        """This cycle's predictions: those on disk if the cycle has begun, otherwise made by the first process."""
        path = self.session.folder / "labels" / f"cycle_{cycle:03d}.npz"
        fabric = self.session.fabric
        if first_step == 0 and fabric.is_global_zero:
            model.eval()
            found = {str(row): self._predicted(row, model) for row in self.rows if row not in self.maps.classes}
            path.parent.mkdir(exist_ok=True)
            with atomic_path(path) as staged, staged.open("wb") as file:
                np.savez_compressed(file, **found)  # type: ignore[arg-type]
        fabric.barrier()
        with np.load(path) as stored:
            return {int(row): stored[row] for row in stored}

    @torch.no_grad()
    def _predicted(self, row: int, model: LabelNetwork) -> NDArray[np.int16]:
        image = self.session.volumes.image(row).to(self.session.fabric.device)
        chances, classes = model.probabilities(image)[0].max(0)
        sure = chances >= self.session.config.labels.sure
        return torch.where(sure, classes, IGNORED).cpu().numpy().astype(np.int16)

    def _draw(self, predicted: list[int], cycle: int, step: int) -> list[int]:
        """This process's scans of the batch: all processes draw the same batch, and each takes its share."""
        config, fabric = self.session.config, self.session.fabric
        generator = torch.Generator().manual_seed(seed_at(config, DRAW, cycle, step))
        drawn = list(self.maps.classes)
        share = max(DRAWN_SHARE, len(drawn) / (len(drawn) + len(predicted)))
        chances = [share / len(drawn)] * len(drawn)
        if predicted:
            chances += [(1 - share) / len(predicted)] * len(predicted)
        count = config.batch_size * fabric.world_size
        chosen = torch.multinomial(
            torch.tensor(chances, dtype=torch.float64), count, replacement=True, generator=generator
        )
        return [(drawn + predicted)[n] for n in chosen[fabric.global_rank :: fabric.world_size]]

    def _batch(self, rows: list[int], predictions: Predictions, cycle: int, step: int) -> _Batch:
        session, views, known = self.session, [], []
        config, count = session.config.labels, 1 + len(self.maps.labels)
        peeled = [1 + self.maps.labels.index(label) for label in config.peeled]
        for place, row in enumerate(rows):
            image, classes = self._scan(row)
            if classes is None:
                classes = torch.from_numpy(predictions[row]).to(session.fabric.device)
            seed = seed_at(session.config, VIEWS, cycle, step, session.fabric.global_rank, place)
            views.append(augmented(image, classes, config, seed=seed, count=count, peeled=peeled))
            # A prediction is of all classes.
            known.append(torch.from_numpy(self.maps.known.get(row, np.ones(count, dtype=bool))))
        images, classes_seen = zip(*views, strict=True)
        return _Batch(torch.cat(images), torch.stack(classes_seen), torch.stack(known))

    def _scan(self, row: int) -> _Scan:
        """A scan and its drawn classes on the device; None in place of an image that is a label map, or without a map.

        A GPU keeps the scans that it is given first, in `KEPT_SHARE` of its memory: it would otherwise wait for them at
        every step.
        """
        if row in self._kept:
            return self._kept[row]
        device = self.session.fabric.device
        image = None if row in self.maps.alone else self.session.volumes.image(row).to(device)
        drawn = self.maps.classes.get(row)
        classes = None if drawn is None else torch.from_numpy(drawn.astype(np.int16)).to(device)
        found = image, classes
        if device.type == "cuda":
            room = KEPT_SHARE * torch.cuda.get_device_properties(device).total_memory
            if sum(map(_bytes, self._kept.values())) + _bytes(found) <= room:
                self._kept[row] = found
        return found

    def _report(self, loss: Tensor, cycle: int, step: int, rate: float) -> None:
        config, monitor = self.session.config, self.session.monitor
        if monitor:
            row: dict[str, Any] = {"cycle": cycle, "step": step, "loss": float(loss.detach()), "learning_rate": rate}
            monitor.step(row, images=config.batch_size * self.session.fabric.world_size)


class _Objective(nn.Module):
    """The network with its loss; one `forward` is one training step."""

    def __init__(self, model: LabelNetwork, *, bf16: bool) -> None:
        super().__init__()
        self.model, self.bf16 = model, bf16

    def forward(self, images: Tensor, classes: Tensor, known: Tensor) -> Tensor:
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self.bf16):
            logits = self.model(images)
        return label_loss(logits.float(), classes, known)


def _bytes(scan: _Scan) -> int:
    return sum(tensor.nbytes for tensor in scan if tensor is not None)
