"""What a reader finds in a file or in another library's object, before any of its values are checked."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["StoredVolume"]


@dataclass(frozen=True, eq=False)
class StoredVolume:
    """Voxels and geometry as stored.

    Args:
        array: (I, J, K), or (I, J, K, ...) for a series.
        affine: (4, 4), voxel indices to RAS+ millimetres.
        header: the NIfTI header, if there is one that can be written back.
        step: distance between neighbouring values that the file can express, where its header scales integers; else 0.
        series: the Series Instance UID of a DICOM series.
        modality: the Modality that DICOM states, such as CT or MR.
        remarks: what the user should know about how the volume was chosen, one sentence each.
        files: those of a DICOM series, in the order of the slices.
        label_names: what the labels of a DICOM segmentation or structure set mean.
    """

    array: NDArray[Any]
    affine: NDArray[np.float64]
    header: Any = None
    step: float = 0.0
    series: str | None = None
    modality: str | None = None
    remarks: tuple[str, ...] = ()
    files: tuple[Path, ...] = ()
    label_names: Mapping[int, str] = field(default_factory=dict)
