"""The training objective: which losses reach which weights."""

from typing import Any

import numpy as np
import pytest
import torch

from corereg.geometry.displacement import subsample_displacement
from corereg.geometry.warp import warp
from corereg.settings import with_settings
from corereg.training.config import TrainConfig
from corereg.training.objective.objective import Losses, Objective, Phase, new_model, phase_of
from corereg.training.scans.volumes import Volumes
from helpers.training import SMALL


def test_a_frozen_extractor_does_not_change_and_the_head_does(volumes: Volumes):
    config = with_settings(TrainConfig(), SMALL | {"objective": "contrastive"})
    assert phase_of(0, config) == Phase(registration=False, contrast=True)
    phase = phase_of(1, config)
    assert phase == Phase(registration=True, contrast=False, frozen_extractor=True)
    from corereg.training.loop import _prepare

    model = new_model(config, seed=0)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    _prepare(model, phase)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
    losses = _losses(model, config, volumes, phase)
    losses.total.backward()
    optimiser.step()
    changed = {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
    assert changed
    assert all(key.startswith("head.") for key in changed)


def _losses(model: Any, config: TrainConfig, volumes: Volumes, phase: Phase, **changes: Any) -> Losses:
    half = [n // 2 for n in volumes.grid.shape]
    pseudo = torch.zeros(1, 3, *half)
    arguments = {"pseudo_vox": pseudo, "phase": phase, "weight": 1.0, "seed": 3} | changes
    return Objective(model, config)(volumes.image(0), volumes.image(1), **arguments)


def test_both_losses_reach_the_extractor_and_the_registration_loss_every_head(volumes: Volumes):
    config = with_settings(TrainConfig(), SMALL)
    for registration, contrast in ((True, False), (False, True)):
        model = new_model(config, seed=0).train()
        _losses(model, config, volumes, Phase(registration, contrast)).total.backward()
        reached = {name for name, p in model.named_parameters() if p.grad is not None and bool(p.grad.any())}
        assert {f"extractor.block{n}.0.weight" for n in (1, 2, 3, 4)} <= reached
        heads = {"head.block.0.weight", "head.out.weight", "head.out4.weight"}
        assert heads & reached == (heads if registration else set())


def test_keeping_fewer_activations_changes_no_gradient(volumes: Volumes):
    grads = []
    for keep in (False, True):
        config = with_settings(TrainConfig(), SMALL | {"checkpoint_activations": keep})
        model = new_model(config, seed=0).train()
        _losses(model, config, volumes, Phase(True, True)).total.backward()
        grads.append([p.grad for p in model.parameters()])
    for first, second in zip(*grads, strict=True):
        torch.testing.assert_close(first, second, rtol=1e-4, atol=1e-6)


def test_views_and_points_come_from_the_seed_alone(volumes: Volumes):
    config = with_settings(TrainConfig(), SMALL | {"views": "both"})
    model = new_model(config, seed=0).train()
    first, second, other = (_losses(model, config, volumes, Phase(True, True), seed=s).total for s in (1, 1, 2))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


@pytest.mark.slow
def test_two_scans_are_learned_by_heart(volumes: Volumes):
    """The loss falls to a tenth and the field found is the pseudo-label."""
    config = with_settings(
        TrainConfig(),
        {
            "objective": "registration",
            "augment.fixed": 0.0,
            "augment.moving": 0.0,
            "batch_size": 1,
            "precision": "fp32",
        },
    )
    shape = volumes.grid.shape
    grids = torch.meshgrid(*(torch.arange(n, dtype=torch.float32) for n in shape), indexing="ij")
    truth = torch.stack([3 * torch.sin(grids[(a + 1) % 3] / 9 + a) for a in range(3)])[None]
    moving = volumes.image(0)
    fixed = warp(moving, truth)
    pseudo = subsample_displacement(truth, 2)
    model = new_model(config, seed=0).train()
    optimiser = torch.optim.Adam(model.parameters(), lr=2e-3)
    objective, history = Objective(model, config), []
    for step in range(250):
        losses = objective(fixed, moving, pseudo, Phase(True, False), 0.0, step)
        optimiser.zero_grad()
        losses.total.backward()
        optimiser.step()
        history.append(float(losses.registration.detach()))
    assert np.mean(history[-10:]) < 0.1 * history[0]
