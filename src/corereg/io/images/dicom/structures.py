"""DICOM structure sets (RTSTRUCT): planar contours -> a label map on the grid of their image."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any
from warnings import warn

import numpy as np
from numpy.typing import NDArray

from corereg.errors import InputError
from corereg.geometry.grid import Grid
from corereg.io.images.itk import LPS_RAS
from corereg.io.images.stored import StoredVolume
from corereg.lazy import pydicom

__all__ = ["filled", "read_structures"]

CLOSED = ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR", "CLOSED_PLANAR_XOR")

FLAT_VOX = 0.5
"""How far the points of one contour may lie from a common slice, in slices."""

Contour = NDArray[np.float64]
"""(N, 3), voxel coordinates."""


def read_structures(path: Path, like: Grid | None) -> StoredVolume:
    """The structures as labels of their ROI numbers, on a grid whose slices the contours follow.

    A voxel belongs to a structure if its centre lies within an odd number of its contours, so contours inside others
    are holes. Where structures overlap the smaller one counts.

    Raises:
        InputError: `like` is missing, there are no closed contours, or they do not follow slices of the grid.
    """
    if like is None:
        raise InputError(f"got the structure set {path} without its image, whose grid it is drawn on; add that image")
    data = pydicom().dcmread(path)
    names = {int(item.ROINumber): str(item.get("ROIName", "")) for item in data.StructureSetROISequence}
    to_vox = like.inverse_affine @ LPS_RAS
    masks: dict[int, NDArray[np.bool_]] = {}
    for roi in data.get("ROIContourSequence") or []:
        contours = [_points(item, to_vox) for item in roi.get("ContourSequence") or [] if _is_closed(item)]
        if contours:
            masks[int(roi.ReferencedROINumber)] = _volume(contours, like.shape, path)
    if not masks:
        raise InputError(f"got the structure set {path} without a closed contour, expected some; export it again")
    array = np.zeros(like.shape, np.int32)
    overlap = 0
    for number, mask in sorted(masks.items(), key=lambda item: -int(item[1].sum())):
        overlap += int((array[mask] != 0).sum())
        array[mask] = number
    if overlap:
        warn(f"{path}: structures overlap in {overlap} voxels, which count for the smaller structure", stacklevel=2)
    return StoredVolume(array, like.affine, label_names={number: names.get(number, "") for number in masks})


def _is_closed(item: Any) -> bool:
    return str(item.get("ContourGeometricType", "")) in CLOSED


def _points(item: Any, to_vox: NDArray[np.float64]) -> Contour:
    points = np.array(item.ContourData, dtype=np.float64).reshape(-1, 3)
    return np.asarray(points @ to_vox[:3, :3].T + to_vox[:3, 3])


def _volume(contours: Sequence[Contour], shape: tuple[int, int, int], path: Path) -> NDArray[np.bool_]:
    """Fill each slice by the plane of contours nearest to it, up to half the distance between planes beyond the last.

    Contours drawn on thinner or thicker slices than those of the grid leave no slice out.
    """
    spread = np.max([np.ptp(contour, axis=0) for contour in contours], axis=0)
    axis = int(np.argmin(spread))
    if spread[axis] > FLAT_VOX:
        raise InputError(
            f"got the structure set {path}, whose contours lie across the slices of the image, expected contours in "
            "them; give the image that it was drawn on"
        )
    depths = np.array([contour[:, axis].mean() for contour in contours])
    order = np.argsort(depths)
    planes = np.split(order, np.flatnonzero(np.diff(depths[order]) > 0.1) + 1)
    centres = np.array([depths[plane].mean() for plane in planes])
    reach = max(0.5, float(np.median(np.diff(centres))) / 2) if len(centres) > 1 else 0.5
    others = [other for other in range(3) if other != axis]
    mask = np.zeros(shape, dtype=np.bool_)
    by_slice = np.moveaxis(mask, axis, 0)
    for index in range(shape[axis]):
        nearest = int(np.argmin(np.abs(centres - index)))
        if abs(centres[nearest] - index) <= reach + 1e-3:
            outlines = [contours[each][:, others] for each in planes[nearest]]
            by_slice[index] = filled(outlines, by_slice.shape[1:])
    return mask


def filled(outlines: Iterable[NDArray[np.float64]], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """True, (rows, columns), for pixel centres within an odd number of closed outlines (N, 2) of pixel coordinates."""
    inside = np.zeros(shape, dtype=np.bool_)
    for outline in outlines:
        start, end = outline, np.roll(outline, -1, axis=0)
        low, high = np.minimum(start[:, 0], end[:, 0]), np.maximum(start[:, 0], end[:, 0])
        for row in range(max(0, int(np.ceil(low.min()))), min(shape[0], int(np.floor(high.max())) + 1)):
            crossed = (low <= row) & (row < high)
            share = (row - start[crossed, 0]) / (end[crossed, 0] - start[crossed, 0])
            columns = np.sort(start[crossed, 1] + share * (end[crossed, 1] - start[crossed, 1]))
            inside[row] ^= np.searchsorted(columns, np.arange(shape[1])) % 2 == 1
    return inside
