"""Many labels in few feature channels: each label has a code, a few of the channels.

Downstream: labels_and_mind, guidance.

Legend: C channels, N labels.
"""

import math
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

__all__ = ["Codes", "codes_of"]

ONE_HOT = 8
"""Up to this many labels have a channel each."""

Codes = NDArray[np.float32]


def codes_of(labels: int) -> Codes:
    """The channels of the background and of each label, (N + 1, C), 0 or 1.

    Up to `ONE_HOT` labels have a channel each. Each of more labels has a different half of as few channels as suffice.
    """
    if labels <= ONE_HOT:
        return np.eye(labels + 1, dtype=np.float32)[:, 1:]
    channels = next(c for c in range(1, labels) if math.comb(c, c // 2) >= labels)
    codes = np.zeros((labels + 1, channels), np.float32)
    for code, chosen in zip(codes[1:], combinations(range(channels), channels // 2), strict=False):
        code[list(chosen)] = 1
    return codes
