"""What a report shows, on any grid."""

from pathlib import Path

import numpy as np
import SimpleITK
from numpy.typing import NDArray

from corereg.geometry.grid import Grid
from corereg.report.sections.pictures import Picture

COMMAND = "corereg register fixed.nii.gz moving.nii.gz -o out"

SUMMARY = {
    "fixed": Path("fixed.nii.gz"),
    "metrics": {"mean_dice": 0.81234567, "sdlogj": 0.06, "tre_mm": float("nan"), "folds": {"percent": 0, "any": False}},
    "settings": {"model": "mind", "passes": [8, 4], "mask": None},
    "seconds": {"coarse": 1.5, "refine": 12.0},
}


def ball(shape: tuple[int, ...], centre: tuple[float, ...], radius: float) -> NDArray[np.float64]:
    """A soft ball of tissue in air, in HU."""
    offsets = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1) - np.asarray(centre)
    distance = np.linalg.norm(offsets / np.asarray(shape), axis=-1)
    return np.where(distance < radius, 60.0, -1000.0)


def volumes(grid: Grid) -> dict[str, NDArray[np.float64]]:
    """All that a report can show, on any grid."""
    middle = np.array(grid.shape) / 2
    fixed, before, warped = (ball(grid.shape, middle + shift, 0.3) for shift in (0.0, 1.5, 0.5))
    disp_mm = np.zeros((3, *grid.shape))
    disp_mm[1] = np.linspace(0, 8, grid.shape[0]).reshape(-1, 1, 1)
    det_j = np.ones(grid.shape)
    det_j[tuple((middle - 2).astype(int))] = -0.5
    return {"fixed": fixed, "moving_before": before, "warped": warped, "disp_mm": disp_mm, "det_j": det_j}


def labels(given: dict[str, NDArray[np.float64]]) -> dict[str, NDArray[np.int16]]:
    names = {"fixed": "fixed_labels", "moving_before": "moving_labels", "warped": "warped_labels"}
    return {name: (given[source] > 0).astype(np.int16) * 2 for source, name in names.items()}


def decode(picture: Picture, folder: Path) -> NDArray[np.uint8]:
    """(H, W, 3), by a decoder that is not ours."""
    path = folder / "picture.png"
    path.write_bytes(picture.png)
    return SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path)))
