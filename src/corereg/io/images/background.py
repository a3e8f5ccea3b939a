"""The value of a voxel about which an image says nothing: beyond its field of view, or NaN."""

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["background_value", "warn_if_blank"]

AIR_HU = (-1100.0, -500.0)
"""From air with its noise to lung."""

LEAST_AIR = 0.005
"""Share of voxels that are air in a CT: about the skin, in the lungs or in the bowel."""

LEAST_PADDING = 0.99
"""Share of the voxels below air that hold one value: a scanner pads with a constant, other images vary there."""

MOST_VALUES = 2**21
"""Voxels that are looked at."""


def background_value(array: NDArray[Any], modality: str | None = None) -> float:
    """The smallest value of a CT, and 0 for anything else: MR, channels, signed maps.

    Args:
        modality: as DICOM states it; without it, CT is recognised by its air.
    """
    ct = modality == "CT" if modality else _has_air(array)
    return float(array.min()) if ct else 0.0


def warn_if_blank(output: NDArray[Any], *, of: NDArray[Any], name: str) -> None:
    """Warn of a resampled image with one value everywhere, though the image that it was made of has several."""
    if output.min() == output.max() and of.min() != of.max():
        warnings.warn(
            f"{name}: the output shows nothing of it, {output.flat[0]:g} everywhere; check its header, and the "
            "transform and its direction",
            stacklevel=3,
        )


def _has_air(array: NDArray[Any]) -> bool:
    if array.dtype.kind == "u" or not array.size:
        return False
    values = array[tuple(slice(None, None, step) for step in _steps(array.shape))].ravel()
    below = values[values < AIR_HU[0]]
    padded = not below.size or float((below == below.min()).mean()) >= LEAST_PADDING
    return padded and float((values <= AIR_HU[1]).mean()) >= LEAST_AIR


def _steps(shape: tuple[int, ...]) -> list[int]:
    step = max(1, round((np.prod(shape, dtype=float) / MOST_VALUES) ** (1 / len(shape))))
    return [step] * len(shape)
