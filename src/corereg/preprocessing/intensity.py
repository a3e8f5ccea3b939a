"""Intensities of a scan -> the scale on which the method works."""

import numpy as np
from torch import Tensor

from corereg.errors import InputError
from corereg.preprocessing.modality import MODALITIES

__all__ = ["CT_RANGE_HU", "HU_SCALE", "normalise"]

HU_SCALE = 500.0
"""CT: HU / 500 (method section of CoRe)."""
CT_RANGE_HU = (-1000.0, 1000.0)
"""Air to dense bone: padding values below air and metal above bone carry no anatomy."""
ABDOMEN_RANGE_HU = (-200.0, 300.0)
SCALED_RANGE = (-0.4, 0.6)
"""Where other modalities' robust range goes: the abdominal window divided by 500."""
ROBUST_QUANTILES = (0.005, 0.995)
STRAY_SHARE, BACKGROUND_SHARE = 0.001, 0.01
"""At most this share of the voxels may lie below the background, which is one value of at least the other share."""


def normalise(volume: Tensor, modality: str, offset_hu: float = 0.0) -> Tensor:
    """Scale intensities for the method.

    Args:
        volume: any shape; Hounsfield units for "ct" and "ct-abdomen", anything for "mr".
        modality: "ct" (HU / 500 between air and dense bone), "ct-abdomen" (HU / 500 between -200 and 300 HU), "mr"
            (0.5 % to 99.5 % quantile of the foreground to -0.4..0.6).
        offset_hu: added to the values of a CT to get Hounsfield units.

    Raises:
        InputError: another modality, or an image without contrast.
    """
    if modality not in MODALITIES[1:]:
        raise InputError(f"got modality {modality!r}, expected one of {', '.join(MODALITIES[1:])}; correct it")
    if modality in ("ct", "ct-abdomen"):
        low, high = CT_RANGE_HU if modality == "ct" else ABDOMEN_RANGE_HU
        scaled = (volume + offset_hu if offset_hu else volume).clamp(low, high) / HU_SCALE
        if not float(scaled.amax()) > float(scaled.amin()):
            raise InputError(
                f"got a CT without contrast between {low:g} and {high:g} HU, expected Hounsfield units; "
                "use --modality mr"
            )
        return scaled
    values = volume.flatten()
    if not float(values.amax()) > float(values.amin()):
        raise InputError(f"got voxels that all equal {float(values[0]):g}, expected an image with contrast; check it")
    foreground = values[values > _background(values)].double().cpu().numpy()
    low, high = np.quantile(foreground, ROBUST_QUANTILES)
    if not high > low:
        low, high = float(values.amin()), float(values.amax())
    start, end = SCALED_RANGE
    return start + (end - start) * ((volume - low) / (high - low)).clamp(0, 1)


def _background(values: Tensor) -> Tensor:
    """The lowest value, or a frequent one of which all lower values are strays, such as overshoots of a spline."""
    lowest = values.kthvalue(1 + int(STRAY_SHARE * len(values))).values
    frequent = float((values == lowest).double().mean()) >= BACKGROUND_SHARE
    return lowest if frequent else values.amin()
