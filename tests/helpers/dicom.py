"""DICOM series written by GDCM."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK
from numpy.typing import NDArray

from corereg.geometry.grid import Grid
from corereg.io.images.itk import LPS_RAS
from helpers.grids import make_grid

SERIES = "1.2.826.0.1.3680043.2.1125.1"

CT_STORAGE = "1.2.840.10008.5.1.4.1.1.2"

SLOPE_TAG = bytes([0x28, 0, 0x53, 0x10, 2, 0, 0, 0])
"""(0028,1053) of 2 bytes, implicit and little-endian."""


def right_handed(orientation: str) -> Grid:
    """DICOM's third axis is the normal of the slices: no mirrored grids."""
    grid = make_grid(orientation=orientation)
    affine = grid.affine.copy()
    if np.linalg.det(affine) < 0:
        affine[:3, 2] *= -1
    return Grid(grid.shape, affine)


def write_series(
    folder: Path,
    array: NDArray[Any],
    grid: Grid,
    *,
    series: str = SERIES,
    skip: tuple[int, ...] = (),
    slope: Callable[[int], float] = lambda k: 1,
    shift_mm: Callable[[int], NDArray[np.float64]] = lambda k: np.zeros(3),
) -> None:
    """One file for each slice, in another order by name than by position; HU = slope * stored - 1024."""
    folder.mkdir(parents=True, exist_ok=True)
    lps = LPS_RAS @ grid.affine
    directions = lps[:3, :3] / grid.spacing
    cosines = "\\".join(f"{value:.13f}" for value in (*directions[:, 0], *directions[:, 1]))
    writer = SimpleITK.ImageFileWriter()
    writer.SetImageIO("GDCMImageIO")
    writer.KeepOriginalImageUIDOn()
    for k in set(range(grid.shape[2])) - set(skip):
        position = lps[:3, 3] + lps[:3, 2] * k + shift_mm(k)
        image = SimpleITK.GetImageFromArray(np.ascontiguousarray(array[:, :, k].T[None]))
        image.SetSpacing((grid.spacing[0], grid.spacing[1], 1))
        tags = {
            "0008|0016": CT_STORAGE,
            "0008|0018": f"{series}.{k + 1}",
            "0008|0060": "CT",
            "0020|000d": f"{SERIES}.9",
            "0020|000e": series,
            "0020|0013": str(k),
            "0020|0032": "\\".join(f"{value:.9f}" for value in position),
            "0020|0037": cosines,
            "0028|1052": "-1024",
            "0028|1053": "1",
        }
        for key, value in tags.items():
            image.SetMetaData(key, value)
        writer.SetFileName(str(folder / f"IM{(k * 7) % 997:04d}"))
        writer.Execute(image)
        if slope(k) != 1:  # behind the writer's back, which would divide by it
            file = Path(writer.GetFileName())
            file.write_bytes(file.read_bytes().replace(SLOPE_TAG + b"1 ", SLOPE_TAG + f"{slope(k):.1f}"[-2:].encode()))
