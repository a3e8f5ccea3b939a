"""The two losses against loops in float64 and analytic fields."""

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch.nn import functional

from corereg.training.objective import losses
from corereg.training.objective.losses import (
    Places,
    contrastive_loss,
    convolved_at,
    draw_points,
    features_at,
    registration_loss,
)

SHAPE = (20, 16, 24)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("kind", ["mse", "epe"])
def test_registration_loss_is_the_mean_over_the_voxels_inside_the_margin(kind):
    first, second = torch.randn(2, 2, 3, *SHAPE, generator=seeded()).double()
    margin = (3, 2, 3)  # three voxels, but a sixth of the axis of 16 at most
    inner = tuple(slice(m, n - m) for m, n in zip(margin, SHAPE, strict=True))
    lengths = np.linalg.norm((first - second).numpy(), axis=1)[(slice(None), *inner)]
    expected = (lengths**2).mean() if kind == "mse" else lengths.mean()
    assert float(registration_loss(first, second, kind=kind, margin=3)) == pytest.approx(expected, rel=1e-5)


def test_epe_has_a_gradient_where_the_displacements_agree():
    disp = torch.zeros(1, 3, *SHAPE, requires_grad=True)
    registration_loss(disp, torch.zeros(1, 3, *SHAPE), kind="epe", margin=0).backward()
    assert bool(disp.grad.isfinite().all())


@pytest.mark.parametrize("negatives", ["both", "opposite"])
def test_contrastive_loss_equals_the_sum_written_out(negatives):
    z, other = torch.randn(2, 7, 5, generator=seeded()).double()
    a, b = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (z.numpy(), other.numpy()))
    terms = []
    for i in range(7):
        opposite = sum(np.exp(a[i] @ b[k] / 0.1) for k in range(7))
        own = sum(np.exp(a[i] @ a[k] / 0.1) for k in range(7) if k != i)
        terms.append(np.log(np.exp(a[i] @ b[i] / 0.1) / (opposite + (own if negatives == "both" else 0))))
    found = contrastive_loss(z.float(), other.float(), temperature=0.1, negatives=negatives)
    assert float(found) == pytest.approx(-np.mean(terms), rel=1e-5)


@pytest.mark.parametrize("negatives", ["both", "opposite"])
@pytest.mark.parametrize("rows", [2, 512])
def test_points_of_other_images_at_the_same_place_are_no_negatives(negatives, rows, monkeypatch):
    """Against the sum written out, and a loss without a gradient from what is skipped."""
    monkeypatch.setattr(losses, "CONTRAST_ROWS", rows)
    z, other = (v.requires_grad_(True) for v in torch.randn(2, 6, 5, generator=seeded()))
    image = torch.tensor([0, 0, 0, 1, 1, 2])
    coords = torch.tensor([[4.0, 5, 6], [4, 5, 7], [9, 9, 9], [4, 6, 6], [20, 1, 3], [9, 9, 11.5]])
    places = Places(coords, image, radius=2.0)
    a, b = (functional.normalize(v.detach().double(), dim=1).numpy() for v in (z, other))
    terms, skipped = [], set()
    for i in range(6):
        total = 0.0
        for k in range(6):
            if image[i] != image[k] and np.linalg.norm(coords[i] - coords[k]) <= 2:
                skipped.add((i, k))
                continue
            total += np.exp(a[i] @ b[k] / 0.1) + (np.exp(a[i] @ a[k] / 0.1) if negatives == "both" and k != i else 0)
        terms.append(np.log(np.exp(a[i] @ b[i] / 0.1) / total))
    assert skipped == {(0, 3), (3, 0), (1, 3), (3, 1)}
    found = contrastive_loss(z, other, temperature=0.1, negatives=negatives, places=places)
    assert float(found.detach()) == pytest.approx(-np.mean(terms), rel=1e-5)
    found.backward()
    exact = [v.detach().double().requires_grad_(True) for v in (z, other)]
    z64, other64 = (functional.normalize(v, dim=1) for v in exact)
    mask = torch.zeros(6, 6, dtype=torch.bool)
    mask[tuple(torch.tensor(sorted(skipped)).T)] = True
    logits = (z64 @ other64.T / 0.1).masked_fill(mask, -torch.inf)
    if negatives == "both":
        own = (z64 @ z64.T / 0.1).masked_fill(mask | torch.eye(6, dtype=torch.bool), -torch.inf)
        logits = torch.cat([logits, own], 1)
    functional.cross_entropy(logits, torch.arange(6)).backward()
    for one, expected in zip((z, other), exact, strict=True):
        torch.testing.assert_close(one.grad.double(), expected.grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("negatives", ["both", "opposite"])
@pytest.mark.parametrize("rows", [3, 512])
def test_contrastive_gradients_are_those_of_cross_entropy(negatives, rows, monkeypatch):
    monkeypatch.setattr(losses, "CONTRAST_ROWS", rows)
    pair = [v.requires_grad_(True) for v in torch.randn(2, 8, 5, generator=seeded())]
    exact = [v.detach().double().requires_grad_(True) for v in pair]
    (3 * contrastive_loss(*pair, temperature=0.2, negatives=negatives)).backward()
    z, other = (functional.normalize(v, dim=1) for v in exact)
    logits = z @ other.T / 0.2
    if negatives == "both":
        logits = torch.cat([logits, (z @ z.T / 0.2).masked_fill(torch.eye(8, dtype=torch.bool), -torch.inf)], 1)
    (3 * functional.cross_entropy(logits, torch.arange(8))).backward()
    for found, expected in zip(pair, exact, strict=True):
        assert found.grad is not None
        assert expected.grad is not None
        torch.testing.assert_close(found.grad.double(), expected.grad, rtol=1e-5, atol=1e-6)


def test_points_are_drawn_from_the_whole_body_and_from_nowhere_else():
    eligible = torch.zeros(SHAPE, dtype=torch.bool)
    eligible[3:15, 4:14, 1:20] = True
    margin = 2
    counts = torch.zeros(SHAPE)
    for seed in range(60):
        points = draw_points(eligible, 100, margin=margin, generator=seeded(seed))
        assert len(points.unique(dim=0)) == len(points) == 100
        counts[tuple(points.T)] += 1
    reachable = eligible.clone()
    for axis, size in enumerate(SHAPE):
        reachable.index_fill_(axis, torch.tensor([*range(margin), *range(size - margin, size)]), False)
    assert not bool(counts[~reachable].any())
    share = float((counts[reachable] > 0).double().mean())
    expected = 1 - (1 - 100 / int(reachable.sum())) ** 60
    assert share == pytest.approx(expected, abs=0.03)


def test_fewer_points_than_asked_where_the_body_is_small():
    eligible = torch.zeros(SHAPE, dtype=torch.bool)
    eligible[8:10, 8, 8] = True
    assert len(draw_points(eligible, 100, margin=5, generator=seeded())) == 2
    assert len(draw_points(torch.zeros_like(eligible), 100, margin=5, generator=seeded())) == 0


def test_features_at_points_are_those_of_scipy():
    volume = torch.randn(1, 4, *SHAPE, generator=seeded())
    coords = torch.rand(30, 3, generator=seeded(1)) * (torch.tensor(SHAPE) - 1)
    expected = [ndimage.map_coordinates(channel, coords.numpy().T, order=1) for channel in volume[0].numpy()]
    np.testing.assert_allclose(features_at(volume, coords).numpy(), np.stack(expected, 1), atol=1e-5)


def test_convolution_at_points_is_that_of_the_whole_volume():
    conv = torch.nn.Conv3d(3, 4, 3, padding=1).double()
    features = torch.randn(1, 3, 5, 4, 6, generator=seeded(), dtype=torch.float64, requires_grad=True)
    points = torch.tensor([[0, 0, 0], [4, 3, 5], [2, 1, 3], [2, 1, 4]])
    inputs = features, conv.weight, conv.bias
    i, j, k = points.T
    expected = conv(features)[0, :, i, j, k].T
    found = convolved_at(features, points, conv.weight, conv.bias)
    torch.testing.assert_close(found, expected)
    for a, b in zip(*(torch.autograd.grad((v**3).sum(), inputs) for v in (found, expected)), strict=True):
        torch.testing.assert_close(a, b)


def test_a_single_point_has_no_other_to_be_distinguished_from():
    z = torch.randn(1, 5, generator=seeded(), requires_grad=True)
    loss = contrastive_loss(z, torch.ones(1, 5), temperature=0.1, negatives="both")
    loss.backward()
    assert float(loss.detach()) == pytest.approx(0, abs=1e-6)
    assert bool(z.grad.isfinite().all())
