"""Writes data in the layout of the Learn2Reg challenge: scans, label maps, the dataset JSON.

The same input gives the same bytes: no time stamps, a fixed compression.
"""

import gzip
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from corereg.geometry.grid import Grid
from corereg.lazy import nibabel

__all__ = ["dataset_description", "field_name", "pair_entry", "scan_entry", "write_json", "write_scan"]

COMPRESSION_LEVEL = 1
"""The fastest level: on noisy scans higher ones take several times longer and save a few percent."""

SCANNER = 1
"""NIFTI_XFORM_SCANNER_ANAT: the code of qform and sform."""


def write_scan(path: Path, array: NDArray[Any], grid: Grid) -> None:
    """Write an image or a label map (I, J, K) as .nii.gz in the array's own type, with qform and sform."""
    image = nibabel().Nifti1Image(array, grid.affine)
    image.header.set_xyzt_units("mm")
    image.set_sform(grid.affine, SCANNER)
    image.set_qform(grid.affine, SCANNER)
    _write_gzip(path, image.to_bytes())


def _write_gzip(path: Path, content: bytes) -> None:
    path.write_bytes(gzip.compress(content, compresslevel=COMPRESSION_LEVEL, mtime=0))


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write an object as indented JSON."""
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def field_name(case: int, fixed_modality: int, moving_modality: int) -> str:
    """Name of a field between two modalities of one case: the challenge's long form."""
    return f"disp_{case:04d}_{fixed_modality:04d}_{case:04d}_{moving_modality:04d}.nii.gz"


def scan_entry(split: str, scan: str) -> dict[str, str]:
    """Entry of `training` (split "Tr") or `test` ("Ts") for a scan such as "Phantom_0001_0000"."""
    return {"image": f"./images{split}/{scan}.nii.gz", "label": f"./labels{split}/{scan}.nii.gz"}


def pair_entry(split: str, fixed: str, moving: str) -> dict[str, str]:
    """Entry of a list of pairs."""
    return {"fixed": f"./images{split}/{fixed}.nii.gz", "moving": f"./images{split}/{moving}.nii.gz"}


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
    """The dataset JSON of labelled CT scans, with the keys of the released data sets in their order.

    Args:
        labels: label numbers by name, without the background.
        modalities: number of modalities, which share kind, shape and labels.
        training: all scans of the Tr folders. As in the released data this includes the validation patients: training
            has to leave out the scans of `validation_pairs`.
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
