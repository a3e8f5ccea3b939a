"""Positives across patients."""

from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage

from corereg.errors import InputError
from corereg.geometry.strided import box_mean
from corereg.settings import with_settings
from corereg.training.config import ContrastConfig, TrainConfig
from corereg.training.objective import objective as objective_module
from corereg.training.objective.losses import contrastive_loss
from corereg.training.objective.matches import Matches
from corereg.training.objective.objective import Objective, Phase, new_model
from corereg.training.scans.volumes import Volumes
from helpers.training import SMALL

HALF_SHAPE = (10, 14, 12)
EYE = torch.eye(4, dtype=torch.float64)


def _target(scale: float = 4.0) -> torch.Tensor:
    noise = torch.randn(1, 3, *HALF_SHAPE, generator=torch.Generator().manual_seed(0))
    return scale * box_mean(noise, times=3)


def test_points_are_trusted_and_in_the_body_and_partners_follow_the_label():
    target = _target()
    trusted = torch.zeros(1, 1, *HALF_SHAPE, dtype=torch.bool)
    trusted[..., :8] = True
    body = torch.zeros(1, *(2 * n for n in HALF_SHAPE), dtype=torch.bool)
    body[:, 4:] = True
    settings = ContrastConfig(margin=0, points=10_000)
    points, partners = Matches(target, trusted).drawn(0, body, EYE, settings, torch.Generator().manual_seed(1))
    # Voxels of the 1/4 grid: every second one of the 1/2 grid, every fourth one of the full grid.
    assert set(points[:, 0].tolist()) == {1.0, 2.0, 3.0, 4.0}
    assert points[:, 2].max() == 3
    for point, partner in zip(points.long().tolist(), partners.tolist(), strict=True):
        i, j, k = (2 * p for p in point)
        np.testing.assert_allclose(partner, np.array(point) + target[0, :, i, j, k].numpy() / 2, rtol=1e-5)


def test_partners_beyond_the_view_or_its_scan_are_left_out():
    everywhere = torch.ones(1, 1, *HALF_SHAPE, dtype=torch.bool)
    body = torch.ones(1, *(2 * n for n in HALF_SHAPE), dtype=torch.bool)
    settings, generator = ContrastConfig(margin=0, points=10_000), torch.Generator()
    away = torch.zeros(1, 3, *HALF_SHAPE)
    away[:, 1] = 4.0  # two voxels of the 1/4 grid, of seven
    points, _ = Matches(away, everywhere).drawn(0, body, EYE, settings, generator)
    assert points[:, 1].max() == 4
    shifted = EYE.clone()
    shifted[1, 3] = 4.0  # the scan lies one voxel of the 1/4 grid further on
    points, _ = Matches(away, everywhere).drawn(0, body, shifted, settings, generator)
    assert points[:, 1].max() == 3


def test_the_loss_is_that_of_the_views_and_of_the_matches_by_hand(volumes: Volumes, monkeypatch: pytest.MonkeyPatch):
    still = {"augment.fixed": 0.0, "augment.moving": 0.0, "contrast.negatives_from": "image"}
    config = with_settings(TrainConfig(), SMALL | still)
    model = new_model(config, seed=0).train()
    objective, given, outputs = Objective(model, config), [], []

    def noted(first: torch.Tensor, second: torch.Tensor, **settings: Any) -> torch.Tensor:
        given.append((first.detach(), second.detach()))
        return contrastive_loss(first, second, **settings)

    extract = objective._extract

    def kept(images: torch.Tensor) -> Any:
        outputs.append(extract(images))
        return outputs[-1]

    monkeypatch.setattr(objective_module, "contrastive_loss", noted)
    monkeypatch.setattr(objective, "_extract", kept)
    half = [n // 2 for n in volumes.grid.shape]
    pseudo = torch.full((1, 3, *half), 1.0)
    trusted = torch.ones(1, 1, *half)
    losses = objective(volumes.image(0), volumes.image(1), pseudo, Phase(True, True), 1.0, 3, trusted)
    assert len(given) == 3
    by_hand = [_nt_xent(first, second) for first, second in given]
    assert float(losses.contrast.detach()) == pytest.approx(np.mean(by_hand), rel=1e-4)
    # Half a voxel of the 1/4 grid along each axis: the mean of eight neighbours, at points of the fixed image's grid.
    fixed, moving = (outputs[0].deep_conv[n].detach().numpy() for n in (0, 1))
    halfway = np.stack([ndimage.shift(c, (-0.5,) * 3, order=1, mode="nearest") for c in moving])
    flat = fixed.reshape(len(fixed), -1).T
    for first, second in zip(*(part.numpy() for part in given[2]), strict=True):
        at = int(np.abs(flat - first).sum(1).argmin())
        np.testing.assert_allclose(first, flat[at], atol=1e-5)
        np.testing.assert_allclose(second, halfway.reshape(len(fixed), -1).T[at], atol=1e-4)


def _nt_xent(first: torch.Tensor, second: torch.Tensor, temperature: float = 0.1) -> float:
    """Equation 3, point by point in float64."""
    z, other = (v.double().numpy() / np.linalg.norm(v.double().numpy(), axis=1, keepdims=True) for v in (first, second))
    total = 0.0
    for i in range(len(z)):
        rest = sum(np.exp(z[i] @ z[k] / temperature) for k in range(len(z)) if k != i)
        alike = np.exp(z[i] @ other[i] / temperature)
        total -= np.log(alike / (rest + sum(np.exp(z[i] @ o / temperature) for o in other)))
    return total / len(z)


def test_nothing_trusted_leaves_the_loss_of_the_views(volumes: Volumes):
    config = with_settings(TrainConfig(), SMALL)
    half = [n // 2 for n in volumes.grid.shape]
    losses = []
    for trusted in (None, torch.zeros(1, 1, *half)):
        objective = Objective(new_model(config, seed=0).train(), config)
        pair = volumes.image(0), volumes.image(1)
        losses.append(
            float(objective(*pair, torch.zeros(1, 3, *half), Phase(True, True), 1.0, 3, trusted).contrast.detach())
        )
    assert losses[0] == losses[1]


@pytest.mark.parametrize("objective", ["registration", "contrastive", "labels"])
def test_positives_across_patients_need_the_joint_objective(objective: str):
    with pytest.raises(InputError, match=f"got contrast.positives=patients with objective={objective}"):
        with_settings(TrainConfig(), {"objective": objective, "contrast.positives": "patients"})
