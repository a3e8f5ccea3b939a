"""The loss of a predicted label map: cross-entropy and soft Dice, where a label may be unknown in a scan.

Legend: B scans, C classes (the background first), I J K voxel axes.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

__all__ = ["IGNORED", "LABEL_WEIGHT", "SMOOTHING", "label_loss"]

IGNORED = -1
"""Class of a voxel that does not count."""

LABEL_WEIGHT = 10.0
"""Weight of a labelled voxel in the cross-entropy, relative to the background's: labels fill a hundredth of a scan."""

SMOOTHING = 1.0
"""Voxels added to numerator and denominator of the soft Dice, which is otherwise undefined for an empty class."""


def label_loss(
    logits: Float[Tensor, "B C I J K"], classes: Int[Tensor, "B I J K"], known: Bool[Tensor, "B C"]
) -> Float[Tensor, ""]:
    """Mean over the scans of cross-entropy + 1 - soft Dice, the latter averaged over the classes that occur.

    A structure that was not drawn in a scan lies in what its map calls background. Its class counts as background
    there: no prediction of it is punished. Source: Shi et al., "Marginal loss and exclusion loss for partially
    supervised multi-organ segmentation", Medical Image Analysis 2021.

    Args:
        classes: class of each voxel, IGNORED where it does not count.
        known: False for a class that was not drawn in the scan.
    """
    losses = [_of_scan(*scan) for scan in zip(logits, classes, known, strict=True)]
    return torch.stack(losses).mean()


def _of_scan(logits: Tensor, classes: Tensor, known: Tensor) -> Tensor:
    logs = logits.log_softmax(0)
    if not bool(known[1:].all()):
        unknown = ~known
        unknown[0] = True
        logs = torch.cat([logs[unknown].logsumexp(0, keepdim=True), logs[1:]])
    counted = classes != IGNORED
    true = classes.clamp(min=0).long()
    weights = torch.where(true > 0, LABEL_WEIGHT, 1.0) * counted
    loss = -(logs.gather(0, true[None])[0] * weights).sum() / weights.sum().clamp(min=1)
    present = torch.bincount(true[counted], minlength=len(logs))[1:].nonzero()[:, 0] + 1
    if len(present):
        loss = loss + 1 - _soft_dice(logs[present].exp(), true, counted, present).mean()
    return loss


def _soft_dice(probabilities: Tensor, true: Tensor, counted: Tensor, labels: Tensor) -> Tensor:
    """(N, I, J, K) -> (N,), for the classes `labels`."""
    truth = ((true == labels.view(-1, 1, 1, 1)) & counted).to(probabilities)
    given = probabilities * counted
    both = (given * truth).sum((1, 2, 3))
    return (2 * both + SMOOTHING) / (given.sum((1, 2, 3)) + truth.sum((1, 2, 3)) + SMOOTHING)
