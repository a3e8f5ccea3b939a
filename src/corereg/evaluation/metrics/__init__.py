"""The metrics of the Learn2Reg and LUMIR challenges, bit for bit. As the method's judge they share no code with it."""

from corereg.evaluation.metrics.accuracy import (
    dice,
    hd95,
    inverse_consistency_mm,
    mean_dice,
    mean_over_labels,
    tre,
    warp_labels,
)
from corereg.evaluation.metrics.regularity import (
    fold_percent,
    jacobian_determinant,
    ndv_percent,
    num_foldings_l2r,
    sdlogj,
)

__all__ = [
    "dice",
    "fold_percent",
    "hd95",
    "inverse_consistency_mm",
    "jacobian_determinant",
    "mean_dice",
    "mean_over_labels",
    "ndv_percent",
    "num_foldings_l2r",
    "sdlogj",
    "tre",
    "warp_labels",
]
