"""Tells CT from MR by the distribution of the intensities, and finds CTs that are stored as Hounsfield units + 1024.

Whatever the scanner, a CT shows the same tissues at the same values: fat near -100 HU, soft tissue near 40, few voxels
between air and fat, and a thin tail of bone. The shares of these ranges decide, so that single voxels, padding, metal
or a window have no say. The thresholds were set on 120 CTs and 248 MRs, also cropped, shifted, masked, noisy and
rescaled.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from corereg.io.images.image import Image

__all__ = ["Intensities", "find_intensities", "judge_intensities"]

STORED_OFFSET_HU = -1024.0
"""Added to the values of a CT stored as unsigned integers, to get Hounsfield units."""

SAMPLES = 2**18
"""Voxels that are looked at: enough for shares of a thousandth."""

PADDING_SHARE, PADDING_GAP = 0.005, 100.0
"""A lowest value of at least this share of the voxels, this far below all others, is padding."""
SPIKE_SHARE, ZERO_SHARE = 0.02, 0.05
"""Without air, a lowest value or a zero of at least this share of the voxels is clipped or masked background."""

NEGATIVE_HU, NEGATIVE_SHARE = -30.0, 0.005
"""With fewer voxels below this, an image counts as positive: noise and overshoots of an MR stay above or are rare."""
LEAST_AIR = 0.02
"""Share of air in a scan that is not a crop inside the body."""
LEAST_DEVIATION_HU = 12.0
"""Standard deviation of a crop of fat and soft tissue: signed maps and z-scores vary less."""

BIN_HU, WINDOW_BINS = 10, 6
"""Resolution and width of the soft-tissue peak: 60 HU."""


@dataclass(frozen=True, slots=True)
class Intensities:
    """What an image's intensities mean."""

    modality: str
    """"ct", "ct-abdomen" or "mr"."""
    offset_hu: float = 0.0
    """Added to the stored values of a CT to get Hounsfield units."""
    certain: bool = True
    """False if the image could be of the other modality."""


class _Tissue(NamedTuple):
    """Shares of an image's voxels, read as Hounsfield units. All after `body` are relative to it."""

    air: float
    """-1100 to -850 HU."""
    body: float
    """-200 to 200 HU: fat, muscle, organs."""
    between: float
    """-500 to -200 HU: hardly any tissue, only voxels that are partly air."""
    fat: float
    """-150 to -30 HU."""
    bright: float
    """Above 200 HU: bone and contrast agent."""
    bone: float
    """Above 500 HU."""
    peak: float
    """In the 60 HU with the most voxels."""
    peak_hu: float
    """Where these begin."""


def find_intensities(images: Sequence[Image], modality: str = "auto") -> list[Intensities]:
    """What the intensities of the images of one pair mean, judged together; warns about doubts and shifted values.

    Args:
        modality: "auto" decides for each image: by its DICOM header if it has one, else by its values.
    """
    stated = [image.modality if modality == "auto" else modality for image in images]
    found = [judge_intensities(image.array, name) for image, name in zip(images, stated, strict=True)]
    known = {judged.modality for judged in found if judged.certain}
    for n, image in enumerate(images):
        if not found[n].certain:
            # A pair is more often of one modality than of two.
            other = found[n] if len(known) != 1 else replace(found[n], modality=known.pop())
            found[n] = other if other.modality == "ct" else replace(other, offset_hu=0.0)
            warnings.warn(
                f"{image.name} could be a CT or an MR by its intensities; it is treated as "
                f"{found[n].modality.upper()}; set --modality if that is wrong",
                stacklevel=2,
            )
        if found[n].offset_hu:
            warnings.warn(
                f"{image.name} appears to hold Hounsfield units plus {-found[n].offset_hu:g}, which is subtracted for "
                "the registration; set --modality mr if it is not a CT",
                stacklevel=2,
            )
    return found


def judge_intensities(array: NDArray[np.generic], stated: str | None = None) -> Intensities:
    """What the values of one image mean.

    Args:
        stated: modality of the image if that is known: "CT", "MR" or another of DICOM's, "ct", "ct-abdomen" or "mr".
    """
    if stated and not stated.lower().startswith("ct"):
        return Intensities("mr")
    values = _without_padding(_sampled(array))
    negative = float((values < NEGATIVE_HU).mean()) >= NEGATIVE_SHARE
    tissue = _tissue(values if negative else values + STORED_OFFSET_HU)
    offset_hu = 0.0 if negative else STORED_OFFSET_HU
    if stated:
        shifted = not negative and tissue.body > 0.04 and tissue.between < 0.6
        return Intensities("ct" if stated == "CT" else stated, offset_hu if shifted else 0.0)
    if negative and tissue.air >= LEAST_AIR:
        possible = tissue.body > 0.03 and tissue.between < 0.4 and tissue.bright < 0.7 and tissue.fat >= 0.03
        possible = possible and tissue.bone < 0.4
        clear = tissue.between < 0.3 and tissue.bright < 0.5 and tissue.fat >= 0.05
    elif negative:
        possible, clear = _is_crop(values)
    else:
        scan = tissue.body > 0.04 and tissue.between < 0.3 and tissue.bright < 0.45 and 0.0015 < tissue.bone < 0.25
        crop = tissue.body > 0.5 and tissue.between < 0.12 and tissue.bright < 0.12 and tissue.fat >= 0.05
        crop = crop and -150 < tissue.peak_hu < 150 and float(values.std()) > LEAST_DEVIATION_HU
        possible = (scan and 0.2 < tissue.peak < 0.9) or (crop and 0.27 < tissue.peak < 0.9)
        clear = scan and tissue.between < 0.25 and tissue.bright < 0.35 and 0.003 < tissue.bone < 0.2
        clear = clear and 0.27 < tissue.peak < 0.75
    return Intensities("ct", offset_hu, bool(clear)) if possible else Intensities("mr")


def _is_crop(values: NDArray[np.float64]) -> tuple[bool, bool]:
    """Whether values without air may be those of a CT (cropped to the body, windowed or masked), and clearly are."""
    if float((values == values.min()).mean()) >= SPIKE_SHARE:
        values = values[values > values.min()]
    if float((values == 0).mean()) >= ZERO_SHARE:
        values = values[values != 0]
    if len(values) == 0 or float(values.std()) < LEAST_DEVIATION_HU:
        return False, False
    tissue = _tissue(values)
    if tissue.body <= 0.4 or tissue.between >= 0.4 or tissue.bright >= 0.7:
        return False, False
    bone = 0.002 <= tissue.bone < 0.35
    whole = bool((values == np.rint(values)).all())
    if whole:
        return tissue.fat >= 0.09 or (tissue.fat >= 0.005 and bone and tissue.bright < 0.25), tissue.fat >= 0.1 and bone
    # Signed maps of other quantities are centred on 0.
    centred = -45 <= tissue.peak_hu <= -15
    return tissue.fat >= 0.1 and not centred and tissue.between < 0.1, False


def _sampled(array: NDArray[Any]) -> NDArray[np.float64]:
    flat = array.ravel(order="K")
    if flat.size > SAMPLES:
        flat = flat[np.sort(np.random.default_rng(0).integers(flat.size, size=SAMPLES))]
    values = flat.astype(np.float64)
    return values[np.isfinite(values)]


def _without_padding(values: NDArray[np.float64]) -> NDArray[np.float64]:
    while len(values):
        lowest = values.min()
        others = values[values > lowest]
        if len(values) - len(others) < PADDING_SHARE * len(values) or len(others) == 0:
            break
        if others.min() - lowest < PADDING_GAP:
            break
        values = others
    return values


def _tissue(values: NDArray[np.float64]) -> _Tissue:
    def share(low: float, high: float = np.inf) -> float:
        return float(((values >= low) & (values < high)).mean()) if len(values) else 0.0

    body = share(-200, 200)
    counts, edges = np.histogram(values, np.arange(-200, 200 + BIN_HU, BIN_HU))
    windows = np.convolve(counts, np.ones(WINDOW_BINS), "valid")
    whole = max(body, 1e-9)
    return _Tissue(
        air=share(-1100, -850),
        body=body,
        between=share(-500, -200) / whole,
        fat=share(-150, -30) / whole,
        bright=share(200) / whole,
        bone=share(500) / whole,
        peak=float(windows.max() / max(counts.sum(), 1)),
        peak_hu=float(edges[windows.argmax()]),
    )
