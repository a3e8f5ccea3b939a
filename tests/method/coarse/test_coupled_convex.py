"""Cost volume and coupled convex optimisation against loops and definitions."""

import itertools

import numpy as np
import torch
from scipy import ndimage
from torch.testing import assert_close

from corereg.geometry.displacement import compose, inverse_consistent
from corereg.method.coarse.cost_volume import candidates_vox, cost_volume
from corereg.method.coarse.coupled_convex import coupled_convex, match
from corereg.method.config import CoupledConvexConfig


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
