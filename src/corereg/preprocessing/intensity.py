"""Intensities of a scan -> the scale on which the method works."""

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from corereg.errors import InputError
from corereg.preprocessing.modality import MODALITIES

__all__ = ["detect_modality", "normalise"]

HU_SCALE = 500.0
"""CT: HU / 500 (method section of CoRe)."""
CT_RANGE_HU = (-1000.0, 1000.0)
"""Air to dense bone: padding values below air and metal above bone carry no anatomy."""
ABDOMEN_RANGE_HU = (-200.0, 300.0)
SCALED_RANGE = (-0.4, 0.6)
"""Where other modalities' robust range goes: the abdominal window divided by 500."""
ROBUST_QUANTILES = (0.005, 0.995)
CT_BELOW = -150.0
"""A scan that reaches below this is in Hounsfield units: magnitude MR is never negative, and z-scores not so low."""


def detect_modality(array: NDArray[np.generic]) -> str:
    """`"ct"` where the intensities look like Hounsfield units, else `"mr"`."""
    return "ct" if float(array.min()) < CT_BELOW else "mr"


def normalise(volume: Tensor, modality: str) -> Tensor:
    """Scale intensities for the method.

    Args:
        volume: any shape; Hounsfield units for "ct" and "ct-abdomen", anything for "mr".
        modality: "ct" (HU / 500 between air and dense bone), "ct-abdomen" (HU / 500 between -200 and 300 HU), "mr"
            (0.5 % to 99.5 % quantile of the foreground to -0.4..0.6).

    Raises:
        InputError: another modality, or an image without contrast.
    """
    if modality not in MODALITIES[1:]:
        raise InputError(f"got modality {modality!r}, expected one of {', '.join(MODALITIES[1:])}; correct it")
    if modality in ("ct", "ct-abdomen"):
        low, high = CT_RANGE_HU if modality == "ct" else ABDOMEN_RANGE_HU
        scaled = volume.clamp(low, high) / HU_SCALE
        if not float(scaled.amax()) > float(scaled.amin()):
            raise InputError(
                f"got a CT without contrast between {low:g} and {high:g} HU, expected Hounsfield units; "
                "use --modality mr"
            )
        return scaled
    values = volume.flatten()
    if not float(values.amax()) > float(values.amin()):
        raise InputError(f"got voxels that all equal {float(values[0]):g}, expected an image with contrast; check it")
    foreground = values[values > values.amin()].double().cpu().numpy()
    low, high = np.quantile(foreground, ROBUST_QUANTILES)
    if not high > low:
        low, high = float(values.amin()), float(values.amax())
    start, end = SCALED_RANGE
    return start + (end - start) * ((volume - low) / (high - low)).clamp(0, 1)
