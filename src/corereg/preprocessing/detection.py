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
from corereg.kept import kept

__all__ = ["Intensities", "agree", "find_intensities", "judge_intensities"]

OTHER_MODALITIES = ("mr", "pt", "nm", "us")
"""What DICOM or a user may call a scan that is scaled like an MR. Other names, such as OT, say nothing."""

STORED_OFFSET_HU = -1024.0
"""Added to the values of a CT stored as unsigned integers, to get Hounsfield units."""

SAMPLES = 2**18
"""Voxels that are looked at: enough for shares of a thousandth."""

PADDING_SHARE, PADDING_GAP = 0.005, 100.0
"""A lowest value of at least this share of the voxels, this far below all others, is padding."""
CLIPPED_SHARE, MASKED_SHARE = 0.02, 0.05
"""A lowest value of at least this share of the voxels was clipped there; this share of zeros lies outside a mask."""

NEGATIVE_HU, NEGATIVE_SHARE = -30.0, 0.005
"""With fewer voxels below this, an image counts as positive: noise and overshoots of an MR stay above or are rare."""
LEAST_AIR = 0.02
"""Share of air in a scan that is not a crop inside the body."""
LEAST_DEVIATION_HU = 12.0
"""Standard deviation of a crop of fat and soft tissue: signed maps and z-scores vary less."""

BIN_HU, WINDOW_BINS = 10, 6
"""Resolution and width of the soft-tissue peak: 60 HU."""

NAMES_IN_WARNING = 3


@dataclass(frozen=True, slots=True)
class Intensities:
    """What an image's intensities mean."""

    modality: str
    """"ct", "ct-abdomen" or "mr"."""
    offset_hu: float = 0.0
    """Added to the stored values of a CT to get Hounsfield units."""
    certain: bool = True
    """False if the image could be of the other modality."""
    hounsfield: bool = True
    """False for 8-bit values, which are not Hounsfield units even if the image is a CT."""


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


def find_intensities(images: Sequence[Image], modality: str = "auto") -> tuple[Intensities, ...]:
    """Find what the intensities of the images of one pair mean, judged together.

    Warns about doubtful images and about shifted values.

    Args:
        modality: "auto" decides for each image: by its DICOM header if it has one, else by its values.
    """
    stated = [image.modality if modality == "auto" else modality for image in images]
    judged = [_judged(image.array, name) for image, name in zip(images, stated, strict=True)]
    names = [image.name for image in images]
    found = agree(judged, names)
    shifted = [name for name, each in zip(names, found, strict=True) if each.offset_hu]
    if shifted:
        _warn(
            f"{_listed(shifted)} appears to hold Hounsfield units + {-STORED_OFFSET_HU:g}, which is subtracted for "
            "the registration; use --modality mr if it is not a CT"
        )
    return found


def _judged(array: NDArray[Any], stated: str | None) -> Intensities:
    return kept(("intensities", stated), lambda: judge_intensities(array, stated), of=(array,))


def agree(judged: Sequence[Intensities], names: Sequence[str]) -> tuple[Intensities, ...]:
    """Settle doubts about images that belong together: what could be CT or MR is taken for what the others are.

    Args:
        names: what the warning calls the doubtful images.
    """
    known = {each.modality for each in judged if each.certain}
    only = known.pop() if len(known) == 1 else ""
    found = tuple(each if each.certain else _taken_for(each, only) for each in judged)
    for modality in ("ct", "mr"):
        doubtful = [
            name for each, name in zip(found, names, strict=True) if each.modality == modality and not each.certain
        ]
        if doubtful:
            _warn(
                f"by its intensities, {_listed(doubtful)} could be a CT or an MR and is treated as "
                f"{modality.upper()}; set --modality if that is wrong"
            )
    return found


def _taken_for(doubtful: Intensities, modality: str) -> Intensities:
    if modality == "mr":
        return replace(doubtful, modality="mr", offset_hu=0.0)
    return replace(doubtful, modality=modality) if modality and doubtful.hounsfield else doubtful


def judge_intensities(array: NDArray[np.generic], stated: str | None = None) -> Intensities:
    """Find what the values of one image mean.

    Args:
        stated: modality of the image if that is known: "CT", "MR" or another of DICOM's, "ct", "ct-abdomen" or "mr".
    """
    stated = (stated or "").lower()
    if stated in OTHER_MODALITIES:
        return Intensities("mr")
    values = _without_padding(_sampled(array))
    negative = float((values < NEGATIVE_HU).mean()) >= NEGATIVE_SHARE if len(values) else False
    offset_hu = 0.0 if negative else STORED_OFFSET_HU
    tissue = _tissue(values + offset_hu)
    if stated.startswith("ct"):
        shifted = tissue.body > 0.04 and tissue.between < 0.6
        return Intensities(stated, offset_hu if shifted else 0.0)
    if array.dtype.itemsize == 1:
        # 256 grey levels are not Hounsfield units, and their distribution does not tell CT from MR.
        return Intensities("mr", certain=False, hounsfield=False)
    if not negative:
        possible, clear = _is_shifted(tissue, float(values.std()) if len(values) else 0.0)
        return Intensities("ct", offset_hu, clear) if possible else Intensities("mr")
    possible, clear = _is_scan(tissue) if tissue.air >= LEAST_AIR else _is_crop(values)
    return Intensities("ct" if possible else "mr", certain=clear or float(values.std()) < LEAST_DEVIATION_HU)


def _is_scan(tissue: _Tissue) -> tuple[bool, bool]:
    """Whether an image with air can be a CT, and whether it clearly is."""
    possible = tissue.body > 0.03 and tissue.fat >= 0.03
    possible = possible and tissue.between < 0.4 and tissue.bright < 0.7 and tissue.bone < 0.4
    return possible, possible and tissue.between < 0.3 and tissue.bright < 0.5 and tissue.fat >= 0.05


def _is_shifted(tissue: _Tissue, deviation: float) -> tuple[bool, bool]:
    """The same for an image without negative values, whose tissues are those of a CT once they are shifted."""
    scan = tissue.body > 0.04 and tissue.between < 0.3 and tissue.bright < 0.45 and 0.0015 < tissue.bone < 0.25
    crop = tissue.body > 0.5 and tissue.between < 0.12 and tissue.bright < 0.12 and tissue.fat >= 0.05
    crop = crop and -150 < tissue.peak_hu < 150 and deviation > LEAST_DEVIATION_HU
    clear = scan and tissue.between < 0.25 and tissue.bright < 0.35 and 0.003 < tissue.bone < 0.2
    return (
        (scan and 0.2 < tissue.peak < 0.9) or (crop and 0.27 < tissue.peak < 0.9),
        clear and 0.27 < tissue.peak < 0.75,
    )


def _is_crop(values: NDArray[np.float64]) -> tuple[bool, bool]:
    """The same for an image without air: cropped to the body, windowed or masked."""
    if float((values == values.min()).mean()) >= CLIPPED_SHARE:
        values = values[values > values.min()]
    if float((values == 0).mean()) >= MASKED_SHARE:
        values = values[values != 0]
    tissue = _tissue(values)
    if tissue.body <= 0.4 or tissue.between >= 0.4 or tissue.bright >= 0.7 or values.std() < LEAST_DEVIATION_HU:
        return False, False
    if not (values == np.rint(values)).all():
        # Signed maps of other quantities are centred on 0.
        centred = -45 <= tissue.peak_hu <= -15
        return tissue.fat >= 0.1 and tissue.between < 0.1 and not centred, False
    bone = 0.002 <= tissue.bone < 0.35
    fatty = tissue.fat >= 0.09 or (tissue.fat >= 0.005 and bone and tissue.bright < 0.25)
    return fatty, tissue.fat >= 0.1 and bone


def _sampled(array: NDArray[Any]) -> NDArray[np.float64]:
    flat = array.ravel(order="K")
    if flat.size > SAMPLES:
        flat = flat[np.sort(np.random.default_rng(0).integers(flat.size, size=SAMPLES))]
    values = flat.astype(np.float64)
    return np.asarray(values[np.isfinite(values)])


def _without_padding(values: NDArray[np.float64]) -> NDArray[np.float64]:
    while len(values):
        others = values[values > values.min()]
        if len(values) - len(others) < PADDING_SHARE * len(values) or not len(others):
            break
        if others.min() - values.min() < PADDING_GAP:
            break
        values = others
    return values


def _tissue(values: NDArray[np.float64]) -> _Tissue:
    def share(low: float, high: float = np.inf) -> float:
        return float(((values >= low) & (values < high)).mean()) if len(values) else 0.0

    body = share(-200.0, 200.0)
    counts, edges = np.histogram(values, np.arange(-200, 200 + BIN_HU, BIN_HU))
    windows = np.convolve(counts, np.ones(WINDOW_BINS), "valid")
    whole = max(body, 1e-9)
    return _Tissue(
        air=share(-1100.0, -850.0),
        body=body,
        between=share(-500.0, -200.0) / whole,
        fat=share(-150.0, -30.0) / whole,
        bright=share(200.0) / whole,
        bone=share(500.0) / whole,
        peak=float(windows.max() / max(counts.sum(), 1)),
        peak_hu=float(edges[windows.argmax()]),
    )


def _listed(names: Sequence[str]) -> str:
    more = len(names) - NAMES_IN_WARNING
    return ", ".join(names[:NAMES_IN_WARNING]) + (f" and {more} more" if more > 0 else "")


def _warn(text: str) -> None:
    warnings.warn(text, stacklevel=3)
