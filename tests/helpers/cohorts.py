"""A made-up Learn2Reg data set of exactly known displacements: each fixed label map is its moving one, warped."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from corereg.evaluation.metrics import warp_labels
from corereg.geometry.grid import Grid
from corereg.io.images.image import write_image
from corereg.io.transforms.formats.itk_field import write_displacement_field
from corereg.io.transforms.formats.learn2reg import write_disp_vox
from helpers.grids import make_grid

SHAPE = (24, 30, 26)
SPACING_MM = (2.0, 1.5, 3.0)
LABEL_NAMES = {1: "liver", 2: "spleen", 3: "aorta"}
REACH_VOX = 5.0


@dataclass(frozen=True)
class Cohort:
    """Where it is, and the truth: name of the pair's field -> (3, I, J, K), voxels."""

    path: Path
    grid: Grid
    fields: dict[str, NDArray[np.float32]]

    def write_fields(self, folder: Path, *, scale: float | tuple[float, ...] = 1.0) -> Path:
        """All fields in Learn2Reg's form, perhaps scaled by a mistake."""
        folder.mkdir(parents=True, exist_ok=True)
        factor = np.float32(np.broadcast_to(np.asarray(scale), 3)).reshape(3, 1, 1, 1)
        for name, disp_vox in self.fields.items():
            write_disp_vox(folder / f"{name}.nii.gz", disp_vox * factor)
        return folder

    def disp_mm(self, name: str) -> NDArray[np.float32]:
        return np.einsum("ac,cijk->aijk", self.grid.linear, self.fields[name]).astype(np.float32)

    def write_itk(self, path: Path, name: str) -> Path:
        write_displacement_field(path, self.disp_mm(name), self.grid)
        return path


def smooth_field(rng: np.random.Generator, shape: tuple[int, ...] = SHAPE, reach: float = REACH_VOX) -> NDArray[Any]:
    """(3, I, J, K), voxels: half of `reach` as a shift along each axis, up to half of it as a wave."""
    noise = [ndimage.gaussian_filter(rng.normal(size=shape), 5, mode="nearest") for _ in range(3)]
    waves = [sign + n / np.abs(n).max() for sign, n in zip(rng.choice([-1.0, 1.0], 3), noise, strict=True)]
    return np.asarray(reach / 2 * np.stack(waves), np.float32)


def blobs(rng: np.random.Generator, shape: tuple[int, ...] = SHAPE) -> NDArray[np.uint8]:
    """Three separate structures."""
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1)
    labels = np.zeros(shape, np.uint8)
    for label, place in enumerate([(0.3, 0.3, 0.35), (0.65, 0.35, 0.6), (0.45, 0.7, 0.45)], start=1):
        centre = np.array(shape) * place + rng.normal(0, 1, 3)
        labels[(((index - centre) / rng.uniform(3.5, 6, 3)) ** 2).sum(-1) < 1] = label
    return labels


def make_cohort(folder: Path, *, pairs: int = 3, split: str = "validation", orientation: str = "oblique") -> Cohort:
    """`pairs` pairs of two patients each; the images are the labels with a gradient, so that they correlate."""
    rng = np.random.default_rng(3)
    grid = make_grid(SHAPE, SPACING_MM, orientation)
    for kind in ("images", "labels"):
        (folder / f"{kind}Tr").mkdir(parents=True)
    fields, listed, scans = {}, [], []
    for number in range(pairs):
        moving, disp_vox = blobs(rng), smooth_field(rng)
        sides = {2 * number + 1: warp_labels(moving, disp_vox), 2 * number + 2: moving}
        for case, labels in sides.items():
            name = f"Made_{case:04d}_0000.nii.gz"
            write_image(folder / "labelsTr" / name, labels, grid)
            write_image(folder / "imagesTr" / name, (100.0 * labels - 200).astype(np.float32), grid)
            scans.append({"image": f"./imagesTr/{name}", "label": f"./labelsTr/{name}"})
        fixed, moving_case = sides
        fields[f"disp_{fixed:04d}_0000_{moving_case:04d}_0000"] = disp_vox
        listed.append(
            {side: f"./imagesTr/Made_{c:04d}_0000.nii.gz" for side, c in zip(("fixed", "moving"), sides, strict=True)}
        )
    content = {
        "name": "Made",
        "labels": {"0": {"0": "background"} | {str(n): name for n, name in LABEL_NAMES.items()}},
        "training": scans,
        "registration_val": listed if split == "validation" else [],
        "registration_test": listed if split == "test" else [],
    }
    path = folder / "Made_dataset.json"
    path.write_text(json.dumps(content), "utf-8")
    return Cohort(path, grid, fields)
