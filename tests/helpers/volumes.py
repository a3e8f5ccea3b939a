"""A cohort of scans to prepare for training."""

from pathlib import Path
from typing import Any

import numpy as np

from corereg.data.pairs import Dataset, read_dataset
from corereg.geometry.grid import Grid
from corereg.io.images.image import write_image
from corereg.training.scans.volumes import Volumes, prepare_volumes
from helpers.scenes import centred_grid, hounsfield, voxels_mm

GRID = centred_grid((37, 30, 33), (4.0, 4.4, 3.6), "LPS")

SPACING_MM = 4.0


def cohort(folder: Path, grids: list[Grid] | None = None, suffix: str = ".nii.gz") -> Dataset:
    """Patients a, b, c: the made-up one, each a little elsewhere."""
    folder.mkdir(exist_ok=True)
    for number, grid in enumerate(grids or [GRID] * 3):
        array = hounsfield(voxels_mm(grid) + 1.5 * number).astype(np.int16)
        write_image(folder / f"{'abcdef'[number]}{suffix}", array, grid)
    return read_dataset(folder)


def prepared(dataset: Dataset, folder: Path, **kwargs: Any) -> Volumes:
    return prepare_volumes(dataset, folder=folder, **({"spacing_mm": SPACING_MM} | kwargs))
