"""Writing data in the layout of the Learn2Reg challenge: scans, label maps, displacement fields, the dataset JSON.

The same input gives the same bytes: no time stamps, fixed compression.
"""

import gzip
import json
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from corereg.geometry.grid import Grid

__all__ = ["dataset_description", "field_name", "pair_entry", "scan_entry", "write_field", "write_json", "write_scan"]

COMPRESSION_LEVEL = 1
"""The fastest: on noisy scans the higher levels take several times longer for a few percent."""

SCANNER = 1
"""NIFTI_XFORM_SCANNER_ANAT, the code of qform and sform."""


def write_scan(path: Path, array: NDArray[Any], grid: Grid) -> None:
    """Write an image or a label map (I, J, K) as .nii.gz, in the array's own type, with qform and sform."""
    nibabel = _nibabel()
    image = nibabel.Nifti1Image(array, grid.affine)
    image.header.set_xyzt_units("mm")
    image.set_sform(grid.affine, SCANNER)
    image.set_qform(grid.affine, SCANNER)
    _write_gzip(path, image.to_bytes())


def write_field(path: Path, disp_vox: NDArray[np.float32]) -> None:
    """Write u (3, I, J, K), voxels, in Learn2Reg's form: (I, J, K, 3) float32, an identity affine, no intent.

    Meaning: warped[x] = moving[x + u(x)] with x the array index on the fixed grid, components in array axis order.
    """
    nibabel = _nibabel()
    # nibabel's defaults are what the challenge's own files have: sform code 2, no qform.
    image = nibabel.Nifti1Image(np.moveaxis(disp_vox, 0, -1).astype(np.float32), np.eye(4))
    _write_gzip(path, image.to_bytes())


def _nibabel() -> Any:
    """The module, imported where it is needed as it takes long; without types, as it has few."""
    return import_module("nibabel")


def _write_gzip(path: Path, content: bytes) -> None:
    path.write_bytes(gzip.compress(content, compresslevel=COMPRESSION_LEVEL, mtime=0))


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def field_name(case: int, fixed_modality: int, moving_modality: int) -> str:
    """The challenge's long name, which carries both modalities, for a pair of one patient."""
    return f"disp_{case:04d}_{fixed_modality:04d}_{case:04d}_{moving_modality:04d}.nii.gz"


def scan_entry(part: str, scan: str) -> dict[str, str]:
    """An entry of `training` (part "Tr") or `test` ("Ts") for a scan such as "Phantom_0001_0000"."""
    return {"image": f"./images{part}/{scan}.nii.gz", "label": f"./labels{part}/{scan}.nii.gz"}


def pair_entry(part: str, fixed: str, moving: str) -> dict[str, str]:
    """An entry of the lists of pairs."""
    return {"fixed": f"./images{part}/{fixed}.nii.gz", "moving": f"./images{part}/{moving}.nii.gz"}


def dataset_description(
    name: str,
    *,
    description: str,
    shape: tuple[int, int, int],
    labels: Mapping[str, int],
    modalities: int,
    training: Sequence[dict[str, str]],
    test: Sequence[dict[str, str]],
    validation_pairs: Sequence[dict[str, str]],
    test_pairs: Sequence[dict[str, str]],
) -> dict[str, Any]:
    """The dataset JSON of CT scans with labels, in the order and spelling of the released ones.

    Args:
        labels: number by name, without the background.
        modalities: how many there are; all share kind, shape and labels.
        training: all scans of the Tr folders. As in the released data it holds the validation patients too: whoever
            trains leaves out the scans of `validation_pairs`.
    """
    keys = [str(index) for index in range(modalities)]
    names = {"0": "background"} | {str(number): label for label, number in labels.items()}
    return {
        "name": name,
        "release": "1.0",
        "description": description,
        "licence": "CC0",
        "reference": "corereg",
        "pairings": "hybrid" if test_pairs else "unpaired",
        "provided_data": {key: ["image", "label"] for key in keys},
        "registration_direction": {"fixed": 0, "moving": 0},
        "modality": dict.fromkeys(keys, "CT"),
        "img_shift": {"fixed": 0, "moving": 0},
        "labels": dict.fromkeys(keys, names),
        "tensorImageSize": dict.fromkeys(keys, "3D"),
        "tensorImageShape": {key: list(shape) for key in keys},
        "numTraining": len(training),
        "training": list(training),
        "numTest": len(test),
        "test": list(test),
        "numPairedTraining": 0,
        "training_paired_images": [],
        "numPairedTest": len(test_pairs),
        "test_paired_images": list(test_pairs),
        "numRegistration_val": len(validation_pairs),
        "registration_val": list(validation_pairs),
        "numRegistration_test": len(test_pairs),
        "registration_test": list(test_pairs),
    }
