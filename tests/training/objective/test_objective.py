"""The training objective: which losses reach which weights."""

from typing import Any

import numpy as np
import pytest
import torch

from corereg.geometry.displacement import subsample_displacement
from corereg.geometry.warp import warp
from corereg.settings import with_settings
from corereg.training.config import TrainConfig
from corereg.training.objective import objective as objective_module
from corereg.training.objective.losses import contrastive_loss
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


def test_negatives_of_the_same_image_make_the_mean_of_the_losses_of_single_images(
    volumes: Volumes, monkeypatch: pytest.MonkeyPatch
):
    """The paper's negatives against this project's, which come from all images of the batch."""
    losses, points = {}, []

    def noted(first: torch.Tensor, second: torch.Tensor, **settings: Any) -> torch.Tensor:
        points.append((first.detach(), second.detach()))
        return contrastive_loss(first, second, **settings)

    monkeypatch.setattr(objective_module, "contrastive_loss", noted)
    for images in ("batch", "image"):
        config = with_settings(TrainConfig(), SMALL | {"contrast.negatives_from": images})
        model = new_model(config, seed=0).train()
        losses[images] = float(_losses(model, config, volumes, Phase(False, True)).contrast.detach())
    whole, *single = points
    assert len(single) == 2
    assert torch.equal(whole[0], torch.cat([first for first, _ in single]))
    by_hand = [_nt_xent(first, second) for first, second in single]
    assert losses["image"] == pytest.approx(np.mean(by_hand), rel=1e-4)
    assert losses["batch"] == pytest.approx(_nt_xent(*whole), rel=1e-4)
    assert losses["batch"] > losses["image"] + 0.1


def _nt_xent(first: torch.Tensor, second: torch.Tensor, temperature: float = 0.1) -> float:
    """Equation 3, point by point in float64."""
    unit = [v.double().numpy() / np.linalg.norm(v.double().numpy(), axis=1, keepdims=True) for v in (first, second)]
    z, other = unit
    total = 0.0
    for i in range(len(z)):
        alike = np.exp(z[i] @ other[i] / temperature)
        rest = [np.exp(z[i] @ z[k] / temperature) for k in range(len(z)) if k != i]
        total -= np.log(alike / (sum(rest) + sum(np.exp(z[i] @ o / temperature) for o in other)))
    return total / len(z)


@pytest.mark.parametrize("views", ["intensity", "geometric", "both"])
def test_intensity_views_move_nothing(views: str, volumes: Volumes, monkeypatch: pytest.MonkeyPatch):
    """Without geometric changes the contrast compares the same voxels, and its view is a function of intensity."""
    config = with_settings(TrainConfig(), SMALL | {"views": views, "augment.fixed": 0.0, "augment.moving": 0.0})
    model, seen, places = new_model(config, seed=0).train(), [], []
    objective = Objective(model, config)
    third = objective._third_block
    monkeypatch.setattr(objective, "_third_block", lambda images: (seen.append(images), third(images))[1])
    at = objective_module.features_at

    def noted(features: torch.Tensor, coords_vox: torch.Tensor) -> torch.Tensor:
        places.append(coords_vox)
        return at(features, coords_vox)

    monkeypatch.setattr(objective_module, "features_at", noted)
    objective(volumes.image(0), volumes.image(1), None, Phase(False, True), 1.0, 3)
    images, changed = seen
    order = images[0].flatten().argsort()
    steps = changed[0].flatten()[order].diff()[images[0].flatten()[order].diff() < 1e-6]
    assert bool((steps.abs() < 1e-3).all()) == (views == "intensity")
    whole = [bool((p == p.round()).all()) for p in places]
    assert whole == [views == "intensity"] * 2


@pytest.mark.slow
def test_two_scans_are_learned_by_heart(volumes: Volumes):
    """The loss falls to a sixth, by steps that grow smaller: long ones go past the minimum in the end."""
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
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 250)
    objective, history = Objective(model, config), []
    for step in range(250):
        losses = objective(fixed, moving, pseudo, Phase(True, False), 0.0, step)
        optimiser.zero_grad()
        losses.total.backward()
        optimiser.step()
        schedule.step()
        history.append(float(losses.registration.detach()))
    assert np.mean(history[-10:]) < history[0] / 6
