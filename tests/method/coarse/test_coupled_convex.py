"""Cost volume and coupled convex optimisation against loops and definitions."""

import itertools

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch.testing import assert_close

from corereg.geometry.displacement import compose, inverse_consistent
from corereg.method.coarse.cost_volume import LEAST_WEIGHT, candidates_vox, cost_volume, weighted_cost_volume
from corereg.method.coarse.coupled_convex import coupled_convex, match
from corereg.method.coarse.passes import REPEATED_VOXELS, coarse_displacement, default_passes
from corereg.method.config import CoupledConvexConfig
from corereg.method.features.mind import MindModel
from helpers.windows import scene, shifted_pair


def test_cost_volume_equals_a_loop():
    rng = np.random.default_rng(0)
    f, m = (torch.as_tensor(rng.normal(size=(1, 4, 5, 6, 7))) for _ in range(2))
    cost = cost_volume(f, m, radius=1)
    raw = np.empty((27, 5, 6, 7))
    for n, d in enumerate(itertools.product((-1, 0, 1), repeat=3)):
        for x in np.ndindex(5, 6, 7):
            y = tuple(np.clip(np.add(x, d), 0, (4, 5, 6)))
            raw[n][x] = float((f[(0, slice(None), *x)] - m[(0, slice(None), *y)]).abs().sum())
    x = (2, 3, 3)
    block = (slice(None), slice(1, 4), slice(2, 5), slice(2, 5))
    assert_close(cost[(0, slice(None), *x)], torch.as_tensor(raw[block].mean((1, 2, 3))))
    assert candidates_vox(1, like=f).tolist() == [list(map(float, d)) for d in itertools.product((-1, 0, 1), repeat=3)]


def test_weighted_cost_volume_equals_a_loop():
    rng = np.random.default_rng(4)
    f, m = (torch.as_tensor(rng.normal(size=(1, 4, 5, 6, 7))) for _ in range(2))
    wf, wm = (
        torch.as_tensor(rng.uniform(size=(1, 1, 5, 6, 7)) * (rng.uniform(size=(1, 1, 5, 6, 7)) > 0.4)) for _ in "fm"
    )
    cost, confidence = weighted_cost_volume(f, m, wf, wm, radius=1)
    for x in ((2, 3, 3), (0, 5, 2), (4, 0, 6)):
        sums, weights = np.zeros(27), np.zeros(27)
        around = [y for y in np.ndindex(5, 6, 7) if max(abs(np.subtract(x, y))) <= 1]
        for n, d in enumerate(itertools.product((-1, 0, 1), repeat=3)):
            for y in around:
                z = tuple(np.add(y, d))
                if all(0 <= c < size for c, size in zip(z, (5, 6, 7), strict=True)):
                    weight = float(wf[(0, 0, *y)] * wm[(0, 0, *z)]) / len(around)
                    sums[n] += weight * float((f[(0, slice(None), *y)] - m[(0, slice(None), *z)]).abs().sum())
                    weights[n] += weight
        expected = (sums + LEAST_WEIGHT * sums.sum() / weights.sum()) / (weights + LEAST_WEIGHT)
        assert_close(cost[(0, slice(None), *x)], torch.as_tensor(expected))
        assert float(confidence[(0, 0, *x)]) == pytest.approx(weights.mean())


def test_candidate_of_no_data_neither_attracts_nor_repels():
    rng = np.random.default_rng(5)
    f, m = (torch.as_tensor(rng.normal(size=(1, 4, 5, 6, 7))) for _ in range(2))
    everywhere, behind = torch.ones(1, 1, 5, 6, 7, dtype=torch.float64), torch.ones(1, 1, 5, 6, 7, dtype=torch.float64)
    behind[:, :, 3:] = 0
    cost, confidence = weighted_cost_volume(f, m, everywhere, behind, radius=1)
    ahead = candidates_vox(1, like=f)[:, 0] > 0
    inside = cost[0, ~ahead, 3, 2, 2]
    assert_close(cost[0, ahead, 3, 2, 2], inside.mean().expand(9), rtol=0.02, atol=0.0)
    assert inside.std() > 0.2
    assert float(confidence[0, 0, 4, 2, 2]) < float(confidence[0, 0, 1, 2, 2])


def test_coupled_convex_equals_its_definition_where_all_voxels_are_alike():
    """The means do nothing there and the alternation can be written out."""
    rng = np.random.default_rng(1)
    candidates = candidates_vox(2, like=torch.zeros(1, dtype=torch.float64))
    c, d = rng.uniform(0, 0.4, 125), candidates.numpy()
    cost = torch.as_tensor(c).view(1, 125, 1, 1, 1).expand(1, 125, 3, 4, 5).contiguous()

    def mean(total):
        weights = np.exp(-20 * (total - total.min()))
        return (weights[:, None] * d).sum(0) / weights.sum()

    u = mean(c)
    for a in (0.003, 0.03, 0.3):
        u = mean(c + a * ((d - u) ** 2).sum(1))
    found = coupled_convex(cost, candidates, sharpness=20.0, couplings=(0.003, 0.03, 0.3))
    assert_close(found[0, :, 1, 2, 3], torch.as_tensor(u))


def test_gradients_reach_both_images_through_the_optimiser():
    rng = np.random.default_rng(2)
    features = [torch.as_tensor(rng.normal(0, 0.1, (1, 2, 3, 4, 3))).requires_grad_() for _ in range(2)]
    config = CoupledConvexConfig(radius=1, inverse_consistency_steps=0)
    assert torch.autograd.gradcheck(lambda f, m: match(f, m, config), features, atol=1e-5, rtol=1e-3, fast_mode=True)
    weights = tuple(torch.as_tensor(rng.uniform(size=(1, 1, 3, 4, 3))) for _ in range(2))
    assert torch.autograd.gradcheck(
        lambda f, m: match(f, m, config, weights=weights), features, atol=1e-5, rtol=1e-3, fast_mode=True
    )


def test_inverse_consistency_brings_both_directions_together():
    rng = np.random.default_rng(3)
    forward, backward = (
        torch.as_tensor(ndimage.gaussian_filter(rng.normal(size=(1, 3, 12, 14, 16)), (0, 0, 3, 3, 3)) * 40)
        for _ in range(2)
    )
    backward = -forward + 0.3 * backward
    before = compose(backward, forward).norm(dim=1).mean()
    ours = inverse_consistent(forward, backward, steps=15)
    assert compose(ours[1], ours[0]).norm(dim=1).mean() < 0.2 * before


@pytest.mark.parametrize("side", [0, 1], ids=["fixed", "moving"])
def test_what_does_not_count_does_not_pull(side):
    """The whole field stays the same, whatever voxels without weight show."""
    generator = torch.Generator().manual_seed(0)
    features = [0.3 * torch.rand(1, 6, 7, 9, 8, generator=generator, dtype=torch.float64) for _ in range(2)]
    weights = [torch.ones(1, 1, 7, 9, 8, dtype=torch.float64) for _ in range(2)]
    weights[side][:, :, 2:5, 3:8] = 0
    expected = match(*features, CoupledConvexConfig(), weights=tuple(weights))
    assert expected.abs().amax() > 0.5
    features[side] = torch.where(weights[side] > 0, features[side], 7.0)
    assert_close(match(*features, CoupledConvexConfig(), weights=tuple(weights)), expected)
    assert (match(*features, CoupledConvexConfig()) - expected).abs().amax() > 0.5


def test_confident_neighbours_fill_in_where_nothing_counts():
    features = 0.3 * torch.rand(1, 8, 9, 10, 11, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    counts = torch.ones(1, 1, 9, 10, 11, dtype=torch.float64)
    counts[:, :, 3:6, 3:7, 4:8] = 0
    config = CoupledConvexConfig(sharpness=100.0, inverse_consistency_steps=0)
    found = match(features, features.roll(1, 2), config, weights=(counts, None))
    assert_close(found[0, 0, 2:7, 2:8, 2:9], torch.ones(5, 6, 7, dtype=torch.float64), atol=0.05, rtol=0.0)


@pytest.mark.parametrize("side", [0, 1], ids=["fixed", "moving"])
def test_weights_reach_every_pass(side):
    """Two passes find a shift of 6 voxels from half of the images, although the other half shows noise."""
    fixed, moving = shifted_pair(2, 6, shape=(64, 80, 96))
    images = [fixed, moving]
    counts: list[torch.Tensor | None] = [None, None]
    counts[side] = torch.ones_like(fixed)
    counts[side][:, :, 34:] = 0
    noise = torch.rand(fixed.shape, generator=torch.Generator().manual_seed(2))
    images[side] = torch.where(counts[side] > 0, images[side], noise)
    model, config = MindModel(), CoupledConvexConfig()
    encoded = [model.encode(image, (8, 4)) for image in images]
    errors = []
    for weights in ((None, None), tuple(counts)):
        found = coarse_displacement(
            encoded[0], images[1], encoded[1], model, passes=(8, 4), config=config, weights=weights
        )
        errors.append((2 * found - torch.tensor([0.0, 0.0, 6.0]).view(1, 3, 1, 1, 1)).norm(dim=1)[:, 4:14, 6:-6, 8:-8])
    assert errors[1].mean() < 0.65 * errors[0].mean()
    assert errors[1][:, :2].mean() < 0.35 < 0.6 < errors[0][:, :2].mean()


def test_slab_between_the_voxels_of_a_pass_counts():
    """Planes 3 and 4 of the full grid lie on no voxel of the 1/8 grid. A slab is constant across, as held beyond."""
    planes = 0.3 * scene(extra=0, seed=3)[None, None, 3:5].mean(2, keepdim=True)
    fixed = planes.repeat_interleave(64, 2)
    moving = fixed.roll(5, 4)
    counts = torch.zeros_like(fixed)
    counts[:, :, 3:5] = 1
    model = MindModel()
    encoded = [model.encode(image, (8, 4)) for image in (fixed, moving)]
    found = coarse_displacement(
        encoded[0], moving, encoded[1], model, passes=(8, 4), config=CoupledConvexConfig(), weights=(counts, counts)
    )
    assert 4 < float(2 * found[0, 2, 2, 6:-6, 8:-8].mean()) < 6


def test_the_last_pass_is_made_twice_on_large_grids():
    assert default_passes((8, 4), REPEATED_VOXELS) == (8, 4)
    assert default_passes((8, 4), REPEATED_VOXELS + 1) == (8, 4, 4)
