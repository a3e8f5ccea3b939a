"""The loss of predicted label maps."""

import math

import numpy as np
import pytest
import torch

from corereg.training.labels.loss import IGNORED, LABEL_WEIGHT, SMOOTHING, label_loss

SHAPE = (4, 3, 5)


def drawn(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits of two scans with four classes, and true classes with some voxels that do not count."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, 4, *SHAPE, generator=generator)
    return logits, torch.randint(IGNORED, 4, (2, *SHAPE), generator=generator)


def by_hand(logits: np.ndarray, classes: np.ndarray, known: list[bool]) -> float:
    """The loss of one scan, voxel by voxel."""
    entropy, counted = 0.0, 0.0
    both, given, there = (np.zeros(len(logits)) for _ in range(3))
    for voxel in np.ndindex(*classes.shape):
        true = classes[voxel]
        if true == IGNORED:
            continue
        chances = np.exp(logits[(slice(None), *voxel)])
        chances /= chances.sum()
        background = sum(p for p, drawn_there in zip(chances[1:], known[1:], strict=True) if not drawn_there)
        chances[0] += background
        weight = LABEL_WEIGHT if true else 1.0
        entropy -= weight * math.log(chances[true])
        counted += weight
        for label in range(1, len(logits)):
            both[label] += chances[label] * (true == label)
            given[label] += chances[label]
            there[label] += true == label
    present = [label for label in range(1, len(logits)) if there[label]]
    dice = [(2 * both[n] + SMOOTHING) / (given[n] + there[n] + SMOOTHING) for n in present]
    return entropy / counted + (1 - float(np.mean(dice)) if present else 0)


@pytest.mark.parametrize("unknown", [None, 2])
def test_loss_equals_a_loop_over_the_voxels(unknown):
    logits, classes = drawn(0)
    known = torch.ones(2, 4, dtype=torch.bool)
    if unknown is not None:
        known[1, unknown] = False
        classes[1][classes[1] == unknown] = 0
    expected = np.mean([by_hand(logits[n].double().numpy(), classes[n].numpy(), known[n].tolist()) for n in range(2)])
    assert float(label_loss(logits, classes, known)) == pytest.approx(expected, rel=1e-5)


def test_a_structure_that_was_not_drawn_may_be_predicted_for_free():
    logits, classes = drawn(1)
    classes = torch.where(classes == 3, 0, classes)
    known = torch.tensor([[True, True, True, False]] * 2)
    swapped = logits[:, [3, 1, 2, 0]]
    torch.testing.assert_close(label_loss(logits, classes, known), label_loss(swapped, classes, known))
    known[:] = True
    assert label_loss(logits, classes, known) != pytest.approx(float(label_loss(swapped, classes, known)), rel=1e-3)


def test_voxels_that_do_not_count_have_no_gradient():
    logits, classes = drawn(2)
    logits.requires_grad_()
    label_loss(logits, classes, torch.ones(2, 4, dtype=torch.bool)).backward()
    assert logits.grad is not None
    ignored = (classes == IGNORED)[:, None].expand_as(logits)
    assert not logits.grad[ignored].any()
    assert logits.grad[~ignored].abs().min() > 0


def test_the_right_map_costs_next_to_nothing_and_no_label_at_all_is_no_error():
    classes = torch.zeros(1, *SHAPE, dtype=torch.long)
    known = torch.ones(1, 4, dtype=torch.bool)
    for present in (False, True):
        classes[0, 1, :, 2] = 2 if present else 0
        sure = 30.0 * torch.nn.functional.one_hot(classes, 4).permute(0, 4, 1, 2, 3).float()
        assert float(label_loss(sure, classes, known)) == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize("unknown", [(), (2,), (1, 3), (1, 2, 3)])
@pytest.mark.parametrize("empty", [False, True])
def test_the_gradient_is_the_derivative_of_the_loss(unknown, empty):
    logits, classes = drawn(3)
    logits = logits.double().requires_grad_()
    known = torch.ones(2, 4, dtype=torch.bool)
    for label in unknown:
        known[0, label] = False
        classes[0][classes[0] == label] = 0
    if empty:
        classes[1] = IGNORED
    assert torch.autograd.gradcheck(lambda given: label_loss(given, classes, known), logits)


def test_a_class_without_any_chance_costs_much_and_nothing_becomes_nan():
    logits = torch.zeros(1, 3, *SHAPE)
    logits[:, 2] = -300.0
    logits.requires_grad_()
    loss = label_loss(logits, torch.full((1, *SHAPE), 2), torch.ones(1, 3, dtype=torch.bool))
    loss.backward()
    assert 50 < float(loss.detach()) < 1000
    assert logits.grad is not None
    assert bool(logits.grad.isfinite().all())
