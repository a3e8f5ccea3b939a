"""A DICOM folder: the best series in it, or the one that the caller names, as one volume."""

from pathlib import Path
from typing import Any
from warnings import warn

import numpy as np
from numpy.typing import NDArray

from corereg.io.images.dicom.choice import choose_stack
from corereg.io.images.dicom.pixels import read_pixels
from corereg.io.images.dicom.stack import lay_out, sorted_frames
from corereg.io.images.stored import StoredVolume

__all__ = ["read_dicom_folder"]


def read_dicom_folder(folder: Path, series: str | None = None) -> StoredVolume:
    """Read one series under a folder: stored values rescaled (HU for CT), slices in the order of their positions.

    Images are preferred to doses, parametric maps and screenshots; among images, the series with the most slices is
    read. Slices of another size or orientation (localisers) do not count with the others, and slices at unequal
    distances are interpolated at their true positions.

    Args:
        series: the Series Instance UID to read instead.

    Raises:
        InputError: no such series, or no single best one; slices at equal positions; unreadable pixels; large gaps.
    """
    stack, remarks = choose_stack(folder, series)
    name = f"{folder} (series {stack.series})"
    frames = sorted_frames(stack.frames, name)
    array, read = read_pixels(frames, name)
    if not all(read):
        lost = [frame for frame, there in zip(frames, read, strict=True) if not there]
        warn(f"{name}: damaged slices were left out: {len(lost)}, the first of them {lost[0].file.name}", stacklevel=2)
        frames = [frame for frame, there in zip(frames, read, strict=True) if there]
    layout = lay_out(frames, name)
    if layout.places is not None:
        array = _interpolated(array, layout.places, layout.count)
    files = tuple(dict.fromkeys(frame.file for frame in frames))
    return StoredVolume(
        array, layout.affine, series=stack.series, modality=stack.modality or None, remarks=remarks, files=files
    )


def _interpolated(array: NDArray[Any], places: NDArray[np.float64], count: int) -> NDArray[np.float32]:
    """(I, J, count): linear interpolation between slices at increasing places on the new grid."""
    result = np.empty((*array.shape[:2], count), np.float32, order="F")
    for index in range(count):
        above = int(np.clip(np.searchsorted(places, index), 1, len(places) - 1))
        share = np.clip((index - places[above - 1]) / (places[above] - places[above - 1]), 0, 1)
        low, high = (array[:, :, at].astype(np.float64) for at in (above - 1, above))
        result[:, :, index] = low + share * (high - low)
    return result
