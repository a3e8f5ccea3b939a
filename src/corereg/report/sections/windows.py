"""Display windows: the intensities shown as black and as white, and which of them suits a scan.

Downstream: `planes`, `scene`, `viewer`. All volumes are in canonical order.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Shaped
from numpy.typing import NDArray

__all__ = ["CT_WINDOWS_HU", "LUNG", "SOFT_TISSUE", "Window", "display_window", "window_for_body"]

CT_MINIMUM_HU = -300.0
"""An image with values below this is treated as CT."""
SOFT_TISSUE, LUNG, BONE = "soft tissue", "lung", "bone"
CT_WINDOWS_HU = {SOFT_TISSUE: (-160.0, 240.0), LUNG: (-1350.0, 150.0), BONE: (-450.0, 1050.0)}
"""The usual windows of radiology: centres 40, -600 and 300, widths 400, 1500 and 1500."""
WINDOW_SAMPLE = 2_000_000
"""About how many evenly spaced voxels of a larger volume determine its display window."""
OTHER_WINDOW_PERCENT = (1.0, 99.0)

AIR_HU, LUNG_SHARE = -500.0, 0.14
"""A body of which at least this share is air shows its lungs. A whole chest has 0.16; upper abdomens with the bases of
the lungs 0.12, scans from neck to abdomen 0.06 to 0.11, heads 0.04 to 0.09."""


@dataclass(frozen=True)
class Window:
    """The intensities shown as black and as white."""

    low: float
    high: float
    is_ct: bool

    @property
    def name(self) -> str:
        """Such as "lung"; empty for other images than CT."""
        limits = (self.low, self.high)
        return next((name for name, each in CT_WINDOWS_HU.items() if self.is_ct and each == limits), "")

    def apply(self, values: NDArray[Any]) -> Float64[np.ndarray, "..."]:
        """Scale values to 0..1; NaN becomes black."""
        scaled = (np.asarray(values, np.float64) - self.low) / (self.high - self.low)
        return np.asarray(np.nan_to_num(scaled.clip(0, 1), nan=0.0))


def display_window(volume: Shaped[np.ndarray, "_ _ _"]) -> Window:
    """The soft-tissue window if the volume looks like CT, else its 1st to 99th percentile."""
    step = max(1, round((volume.size / WINDOW_SAMPLE) ** (1 / 3)))
    sample = volume[::step, ::step, ::step]
    finite = sample[np.isfinite(sample)]
    if finite.size and float(finite.min()) < CT_MINIMUM_HU:
        return Window(*CT_WINDOWS_HU[SOFT_TISSUE], is_ct=True)
    low, high = (float(v) for v in np.percentile(finite, OTHER_WINDOW_PERCENT)) if finite.size else (0.0, 0.0)
    return Window(low, high if high > low else low + 1.0, is_ct=False)


def window_for_body(window: Window, volume: Shaped[np.ndarray, "R A S"], body: Bool[np.ndarray, "R A S"]) -> Window:
    """The lung window instead of the soft-tissue one, in which lungs are black, if much of the body is air."""
    if not window.is_ct or not body.any() or float((volume[body] < AIR_HU).mean()) < LUNG_SHARE:
        return window
    return Window(*CT_WINDOWS_HU[LUNG], is_ct=True)
