"""Where an image shows a body rather than what surrounds it, whatever its intensities mean."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["body_threshold"]

LEVEL = 0.2
"""Share of the range between an image's dark and bright percentiles above which a voxel belongs to the body."""
DARK_PERCENT, BRIGHT_PERCENT = 2.0, 98.0

SAMPLES = 10**6
"""More values are thinned to about this many."""


def body_threshold(values: NDArray[Any]) -> float:
    """The intensity above which voxels belong to the body."""
    thinned = values.reshape(-1)[:: max(1, values.size // SAMPLES)]
    dark, bright = np.percentile(thinned, (DARK_PERCENT, BRIGHT_PERCENT))
    return float(dark + LEVEL * (bright - dark))
