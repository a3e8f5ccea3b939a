"""The loss of a predicted label map: cross-entropy and soft Dice, where a label may be unknown in a scan.

Legend: B scans, C classes (the background first), I J K voxel axes.
"""

from typing import Any

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
        known: False for a class that was not drawn in the scan; best on the CPU, since a GPU waits to read it.
    """
    losses = [_of_scan(*scan) for scan in zip(logits, classes, known, strict=True)]
    return torch.stack(losses).mean()


def _of_scan(logits: Tensor, classes: Tensor, known: Tensor) -> Tensor:
    true = classes.clamp(min=0).flatten().long()
    counted = (classes != IGNORED).flatten().to(logits)
    unknown = (1 + (~known[1:]).nonzero()[:, 0]).to(logits.device)
    found: Tensor = _Loss.apply(logits.flatten(1), true, counted, unknown)  # type: ignore[no-untyped-call]
    return found


class _Loss(torch.autograd.Function):
    """The loss of one scan of V voxels with its gradient in closed form, in a quarter of autograd's time.

    Takes logits (C, V), each voxel's class and whether it counts (V,), and the numbers of the classes that are unknown.

    With p the probabilities, k a voxel's true class and p_0 the sum over the background and all unknown classes, the
    cross-entropy's derivative by logit c is p_c - r_c, where r_c is 1 for c = k, and p_c / p_0 for each of the summed
    classes if k is the background. That of 1 - D_c, D_c = (2 I_c + s) / (P_c + T_c + s), by p_c is
    (D_c - 2 [k = c]) / (P_c + T_c + s).
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, true: Tensor, counted: Tensor, unknown: Tensor) -> Tensor:
        chances = logits.softmax(0)
        right = chances.gather(0, true[None])[0]
        background = true == 0
        if len(unknown):
            right = torch.where(background, right + chances[unknown].sum(0), right)
        right = right.clamp(min=torch.finfo(right.dtype).tiny)
        weights = torch.where(background, 1.0, LABEL_WEIGHT) * counted
        weights /= weights.sum().clamp(min=1)
        loss = -(right.log() * weights).sum()

        sizes = torch.bincount(true, counted, len(chances)).to(chances)
        sizes[0] = 0
        present = sizes > 0
        both = torch.bincount(true, right * counted, len(chances)).to(chances)
        total = chances @ counted + sizes + SMOOTHING
        dice = (2 * both + SMOOTHING) / total
        share = present / present.sum().clamp(min=1)
        loss = loss + (share * (1 - dice)).sum()

        ctx.save_for_backward(chances, true, counted, unknown, right, weights, share * dice / total, -2 * share / total)
        return loss

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        chances, true, counted, unknown, right, weights, each, where_true = ctx.saved_tensors
        background = true == 0
        at_true = torch.where(background, 0.0, where_true[true] * right * counted)
        gradient = torch.addcmul((weights - (each @ chances) * counted - at_true)[None], each[:, None], counted[None])
        gradient *= chances
        kept = torch.where(background, chances[0] / right, 1.0) if len(unknown) else 1.0
        gradient.scatter_add_(0, true[None], (at_true - weights * kept)[None])
        if len(unknown):
            gradient[unknown] -= chances[unknown] * torch.where(background, weights / right, 0.0)
        return gradient.mul_(grads[0]), None, None, None
