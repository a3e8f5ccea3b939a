"""The quality of features apart from the optimiser."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage, stats

from corereg.method.features.model import Encoded
from corereg.method.models import get_model
from corereg.training.probe import Matches, area_under_curve, candidates, match_quality, trusted_matches
from corereg.training.scans.volumes import Volumes

CPU = torch.device("cpu")


def test_the_area_under_the_curve_is_the_mann_whitney_statistic():
    rng = np.random.default_rng(0)
    costs = rng.standard_normal((7, 40)).astype(np.float32)
    hits = rng.random((7, 40)) < 0.2
    hits[3] = False
    by_hand = []
    for cost, hit in zip(costs, hits, strict=True):
        if hit.any():
            wins = stats.mannwhitneyu(cost[~hit], cost[hit]).statistic
            by_hand.append(wins / (hit.sum() * (~hit).sum()))
    assert area_under_curve(torch.from_numpy(costs), torch.from_numpy(hits)) == pytest.approx(np.mean(by_hand))


def test_candidates_are_the_averaged_distances_to_the_shifted_scan():
    rng = np.random.default_rng(1)
    fixed, moving = (rng.standard_normal((1, 3, 6, 7, 5)).astype(np.float32) for _ in range(2))
    found = dict(candidates(torch.from_numpy(fixed), torch.from_numpy(moving), (1, 2, 1)))
    assert len(found) == 3 * 5 * 3
    cost = found[(1, -2, 0)].numpy()
    # The mean is taken over the neighbours that have a counterpart.
    distance = np.abs(fixed[0, :, :-1, 2:] - moving[0, :, 1:, :-2]).sum(0)
    total, count = (ndimage.uniform_filter(x, 3, mode="constant") for x in (distance, np.ones_like(distance)))
    np.testing.assert_allclose(cost[:-1, 2:], total / count, rtol=1e-5)
    assert np.isinf(cost[-1]).all()
    assert np.isinf(cost[:, :2]).all()
    assert np.isfinite(cost[:-1, 2:]).all()


class Noise:
    """Features that say nothing."""

    name, passes = "noise", (4,)

    def __init__(self) -> None:
        self.generator = torch.Generator().manual_seed(0)

    def prepare(self, images: Iterable[torch.Tensor]) -> None:
        pass

    def encode(self, image: torch.Tensor, strides: Iterable[int], **_: Any) -> Encoded:
        shape = [n // 4 for n in image.shape[2:]]
        return Encoded(None, {4: torch.randn(1, 8, *shape, generator=self.generator)})

    def fine(self, image: torch.Tensor, *, correlated: bool = False) -> None:
        return None


def test_a_scan_is_found_in_itself_and_noise_finds_nothing(volumes: Volumes):
    inner = torch.cartesian_prod(*(torch.arange(2, n // 4 - 2) for n in volumes.grid.shape))
    itself = [Matches(0, 0, inner, inner)]
    mind = get_model("mind", both_ct=True).model
    assert match_quality(mind, volumes, itself, stride=4, device=CPU)[0] == 1
    accuracy, area = match_quality(Noise(), volumes, itself, stride=4, device=CPU)  # type: ignore[arg-type]
    assert accuracy < 0.3
    assert 0.4 < area < 0.6


def test_without_a_match_in_the_window_the_quality_is_nan(volumes: Volumes):
    far = [Matches(0, 0, torch.zeros(2, 3, dtype=torch.long), torch.full((2, 3), 1000))]
    mind = get_model("mind", both_ct=True).model
    assert np.isnan(match_quality(mind, volumes, far, stride=4, device=CPU)).all()


def test_trusted_matches_lie_in_the_body_and_look_alike(volumes: Volumes):
    found = trusted_matches(volumes, 0, 1, stride=4, device=CPU)
    fixed, moving = (volumes.image(row)[0, 0, ::4, ::4, ::4] for row in (0, 1))
    i, j, k = found.points_vox.T
    here = fixed[i, j, k]
    assert len(here) > 20
    assert bool((here > fixed.min()).all())
    inside = ((found.partners_vox >= 0) & (found.partners_vox < torch.tensor(fixed.shape))).all(1)
    there = moving[tuple(found.partners_vox[inside].T)]
    before = (here - moving[i, j, k]).abs().mean()
    assert (here[inside] - there).abs().mean() < before
