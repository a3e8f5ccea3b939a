"""Run as a process of its own: reads damaged images, points and transforms, and prints what came of each kind.

python -m helpers.damaged_transforms SEED CASES     (cases of each kind)
"""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from corereg.geometry.displacement import Displacement
from corereg.io.transforms.formats.registry import FORMATS
from corereg.io.transforms.transform import Transform
from helpers import damaged_readers
from helpers.damaged_readers import (
    Damage,
    lay_damaged_copy,
    of_dicom,
    of_header,
    of_nifti,
    of_store,
    of_text,
    print_outcomes,
)
from helpers.grids import make_grid
from helpers.transforms import small_affine

FIXED, MOVING = make_grid(shape=(7, 6, 5)), make_grid(shape=(6, 8, 7))

BASES = {
    "h5": ("itk", "a.h5"),
    "tfm": ("itk", "a.tfm"),
    "ants": ("ants", "a_"),
    "field": ("itk-field", "a.nii"),
    "field-nrrd": ("itk-field", "a.nrrd"),
    "field-mha": ("itk-field", "a.mha"),
    "learn2reg": ("learn2reg", "disp_0001_0002.nii"),
    "learn2reg-npz": ("learn2reg", "disp_0001_0002.npz"),
    "niftyreg": ("niftyreg", "a.nii"),
    "niftyreg-displacement": ("niftyreg-displacement", "a.nii"),
    "fsl": ("fsl", "a.nii"),
    "numpy": ("numpy", "a.npz"),
    "elastix": ("elastix", "a.txt"),
    "lta": ("lta", "a.lta"),
    "registration-object": ("dicom", "a.dcm"),
    "ome-zarr": ("ome-zarr", "a.ome.zarr"),
}
"""Kind -> format, and the file that is read or, for a pair, its prefix."""

KINDS: dict[str, Damage] = {
    "h5": of_header(10**6),
    "tfm": of_text(6, b": ", b" "),
    "ants": of_header(10**6),
    "field": of_nifti,
    "field-nrrd": of_text(12, b": "),
    "field-mha": of_text(14, b" = "),
    "learn2reg": of_nifti,
    "learn2reg-npz": of_header(10**6),
    "niftyreg": of_nifti,
    "niftyreg-displacement": of_nifti,
    "fsl": of_nifti,
    "numpy": of_header(10**6),
    "elastix": of_text(30, b" "),
    "lta": of_text(30, b"=", b" "),
    "registration-object": of_dicom,
    "ome-zarr": of_store,
}


def make_bases(root: Path) -> None:
    rng = np.random.default_rng(0)
    field = Displacement.from_mm(torch.as_tensor(rng.normal(size=(3, *FIXED.shape)), dtype=torch.float32), FIXED)
    for kind, (form, name) in BASES.items():
        (root / kind).mkdir()
        parts = (small_affine(),) if kind in ("tfm", "lta") else (field, small_affine())
        stored = Transform(parts, fixed=FIXED, moving=MOVING).stored()
        FORMATS[form].write(root / kind / name, replace(stored, frames=("1.2.3.4", "1.2.3.5")))


def read_damaged(root: Path, kind: str, seed: int, case: int) -> object:
    """Read a damaged copy as its format, or by its name alone, and use it as `apply` and `convert` would."""
    rng = np.random.default_rng([seed, case, *kind.encode()])
    form, name = BASES[kind]
    lay_damaged_copy(root / kind, root / "damaged", KINDS[kind], rng)
    stated = form if form == "ants" or rng.integers(4) else None
    transform = Transform.load(root / "damaged" / name, fixed=FIXED, moving=MOVING, source_format=stated)
    moved = transform.apply_points(FIXED.to_world([[0.0, 0.0, 0.0], [3.0, 2.0, 1.0]]))
    transform.save(root / "damaged" / "again.h5")
    return moved


if __name__ == "__main__":
    seed, cases = map(int, sys.argv[1:])
    print_outcomes(seed, cases, damaged_readers.KINDS, damaged_readers.make_bases, damaged_readers.read_damaged)
    print_outcomes(seed, cases, KINDS, make_bases, read_damaged)
