"""DICOM objects that hold labels: segmentations (SEG) and structure sets (RTSTRUCT)."""

from pathlib import Path

import numpy as np

from corereg.errors import InputError
from corereg.geometry.grid import HEADER_TOLERANCE_MM, Grid, transform_points
from corereg.io.images.checks import one_line, plausible_grid
from corereg.io.images.dicom.headers import SEGMENTATIONS, is_deflated, is_dicom
from corereg.io.images.dicom.segmentation import read_segmentation
from corereg.io.images.dicom.structures import read_structures
from corereg.io.images.stored import StoredVolume
from corereg.lazy import pydicom

__all__ = ["is_segmentation", "read_label_object"]

STRUCTURES = "1.2.840.10008.5.1.4.1.1.481.3"
"""RT Structure Set."""


def read_label_object(path: Path, like: Grid | None) -> StoredVolume | None:
    """The labels of a segmentation or a structure set; None for any other file.

    Args:
        like: the grid of the image that they belong to, onto which they are drawn. Without it a segmentation keeps the
            grid of its own.

    Raises:
        InputError: the object is damaged, or a structure set comes without `like`.
    """
    try:
        kind = _kind(path)
        if kind in SEGMENTATIONS:
            return _on(read_segmentation(path, like), like, str(path))
        return read_structures(path, like) if kind == STRUCTURES else None
    except InputError:
        raise
    except Exception as error:  # pydicom and highdicom raise whatever a damaged file leads them to
        raise InputError(
            f"got {path}, which cannot be read as a DICOM segmentation or structure set ({one_line(error)}); export it "
            "again"
        ) from None


def is_segmentation(path: Path) -> bool:
    """Whether a file is a DICOM segmentation."""
    return _kind(path) in SEGMENTATIONS


def _kind(path: Path) -> str:
    """The SOP class of a DICOM file; empty for any other."""
    if not path.is_file() or not is_dicom(path) or is_deflated(path):
        return ""
    return str(pydicom().dcmread(path, stop_before_pixels=True, specific_tags=["SOPClassUID"]).get("SOPClassUID", ""))


def _on(stored: StoredVolume, like: Grid | None, name: str) -> StoredVolume:
    """The labels on the grid of their image: a segmentation may hold only the slices that it needs."""
    grid = plausible_grid(stored.array.shape, stored.affine, name)
    if like is None or grid.close_to(like, HEADER_TOLERANCE_MM):
        return stored
    array = np.zeros(like.shape, stored.array.dtype)
    rows, columns = np.indices(like.shape[:2])
    for index in range(like.shape[2]):
        voxels = np.stack([rows, columns, np.full_like(rows, index)], axis=-1)
        at = np.rint(transform_points(like.to_voxels_of(grid), voxels)).astype(np.int64)
        inside = ((at >= 0) & (at < grid.shape)).all(-1)
        array[inside, index] = stored.array[tuple(at[inside].T)]
    return StoredVolume(array, like.affine, label_names=stored.label_names, remarks=stored.remarks)
