"""The kinds of scans whose intensities the method knows how to scale. Imports nothing heavy."""

from typing import Literal, get_args

__all__ = ["MODALITIES", "Modality"]

Modality = Literal["auto", "ct", "ct-abdomen", "mr"]

MODALITIES: tuple[str, ...] = get_args(Modality)
