"""The formats that transforms are read from and written to, and how the format of a file is recognised."""

import warnings
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from corereg.errors import InputError
from corereg.geometry.grid import Grid
from corereg.io.atomic import settle
from corereg.io.images.dicom.headers import is_dicom
from corereg.io.images.image import ITK_SUFFIXES
from corereg.io.images.nifti import is_nifti
from corereg.io.images.nifti_reader import open_nifti
from corereg.io.images.ome_zarr import is_ome_zarr
from corereg.io.images.reference import as_reference
from corereg.io.transforms.formats.ants import AFFINE, ENDINGS, WARP, read_ants, write_ants
from corereg.io.transforms.formats.common import is_matrix
from corereg.io.transforms.formats.dicom import read_dicom
from corereg.io.transforms.formats.dicom_writer import write_dicom
from corereg.io.transforms.formats.elastix import is_elastix, read_elastix
from corereg.io.transforms.formats.elastix_writer import elastix_files, write_elastix
from corereg.io.transforms.formats.fsl import FSL_INTENTS, MATRIX_SUFFIX, read_fsl, write_fsl
from corereg.io.transforms.formats.itk import (
    COMPOSITE_SUFFIXES,
    TRANSFORM_SUFFIXES,
    read_field,
    read_itk_transform,
    write_composite,
    write_field,
)
from corereg.io.transforms.formats.itk_field import FIELD_SUFFIXES
from corereg.io.transforms.formats.learn2reg import read_learn2reg, write_learn2reg, write_learn2reg_half
from corereg.io.transforms.formats.lta import read_lta, write_lta
from corereg.io.transforms.formats.niftyreg import (
    INTENT_NAME,
    read_niftyreg,
    write_niftyreg_deformation,
    write_niftyreg_displacement,
)
from corereg.io.transforms.formats.npz import FIELD_KEY, read_plain, write_plain
from corereg.io.transforms.formats.ome_zarr import (
    STORE_SUFFIXES,
    read_ome_zarr_transform,
    write_ome_zarr_transform,
)
from corereg.io.transforms.formats.stored import Located, StoredTransform

__all__ = ["FORMATS", "SUFFIXES", "Format", "check_format", "detect_format", "format_of_name", "read_stored"]

VECTOR_COMPONENTS = 3


@dataclass(frozen=True)
class Format:
    """A file format for transforms."""

    read: Callable[[Path, Located | None, Located | None], StoredTransform]
    write: Callable[[Path, StoredTransform], None]
    suffixes: tuple[str, ...]
    """The endings of the files it writes; empty for a prefix of several files."""
    one_field: bool = True
    """Whether it holds a single field, without parts."""
    remark: str = ""
    """What the user of such a file must know."""
    others: Callable[[str], Sequence[str]] = lambda name: ()
    """The names of further files that an output of this name may consist of."""
    folder: bool = False
    """Whether it is a folder."""


NIFTI = (".nii.gz", ".nii")
LTA, DICOM = ".lta", ".dcm"

FORMATS: dict[str, Format] = {
    "itk": Format(read_itk_transform, write_composite, COMPOSITE_SUFFIXES, one_field=False),
    "itk-field": Format(read_field, write_field, FIELD_SUFFIXES),
    "ants": Format(
        read_ants, write_ants, (), one_field=False, others=lambda prefix: [prefix + ending for ending in ENDINGS]
    ),
    "learn2reg": Format(
        read_learn2reg, write_learn2reg, (*NIFTI, ".npz"), remark="it holds neither grid: keep both images with it"
    ),
    "learn2reg-half": Format(
        read_learn2reg,
        write_learn2reg_half,
        (".npz",),
        remark="half the resolution in float16, and neither grid: keep both images with it",
    ),
    "niftyreg": Format(read_niftyreg, write_niftyreg_deformation, NIFTI),
    "niftyreg-displacement": Format(read_niftyreg, write_niftyreg_displacement, NIFTI),
    "fsl": Format(
        read_fsl, write_fsl, (*NIFTI, MATRIX_SUFFIX), remark="it is relative, and only for the grids of these images"
    ),
    "elastix": Format(
        read_elastix,
        write_elastix,
        (".txt",),
        one_field=False,
        remark="run transformix in the folder of these files",
        others=elastix_files,
    ),
    "lta": Format(read_lta, write_lta, (LTA,), one_field=False, remark="it holds one matrix: the product of all parts"),
    "dicom": Format(read_dicom, write_dicom, (DICOM,), one_field=False),
    "ome-zarr": Format(
        read_ome_zarr_transform,
        write_ome_zarr_transform,
        STORE_SUFFIXES,
        remark="it does not hold the moving grid: keep the moving image with it",
        folder=True,
    ),
    "numpy": Format(read_plain, write_plain, (".npz",)),
}
"""The formats by the names that `corereg convert` takes."""

NAMED = {
    ".xfm": "a linear transform of MINC; convert it first: lta_convert --inmni IN.xfm --outitk OUT.txt",
    ".m3z": "a warp of FreeSurfer; convert it first: mri_warp_convert --inm3z IN.m3z --outitk OUT.nii.gz",
    ".x5": "a transform of nitransforms; write it as ITK's instead: to_filename(OUT, fmt='itk')",
}
"""Files of other programs by their endings, what they are, and how they become readable."""

SUFFIXES = (".nii.gz", ".npz", ".nii", *ITK_SUFFIXES, *TRANSFORM_SUFFIXES, LTA)
"""The endings of all files that can be read."""


def read_stored(
    path: Path, *, fixed: Any = None, moving: Any = None, source_format: str | None = None
) -> StoredTransform:
    """Read a transform of any format.

    Args:
        fixed, moving: images or grids, for formats that do not hold them; they replace those of the file.
        source_format: a key of `FORMATS`, if the file alone does not tell.

    Raises:
        InputError: it is not a transform, or a grid is missing.
    """
    settle(path.parent)
    name = source_format or detect_format(path)
    return check_format(name).read(path, _located(fixed), _located(moving))


def check_format(name: str) -> Format:
    """The format of this name.

    Raises:
        InputError: there is none.
    """
    if name not in FORMATS:
        raise InputError(f"got the format {name}, expected one of {', '.join(FORMATS)}; correct it")
    return FORMATS[name]


def format_of_name(path: Path) -> str | None:
    """The key in `FORMATS` that the name of an output implies; None for a name that several formats share."""
    name = path.name.lower()
    if name.endswith(COMPOSITE_SUFFIXES):
        return "itk"
    if name.endswith(ITK_SUFFIXES):
        return "itk-field"
    if name.endswith(STORE_SUFFIXES):
        return "ome-zarr"
    return {LTA: "lta", DICOM: "dicom"}.get(path.suffix.lower())


def detect_format(path: Path, *, challenge: bool = False) -> str:
    """The key in `FORMATS` of a file, from its name and its content.

    Args:
        challenge: take any NIfTI of three components per voxel as Learn2Reg's, whatever its affine, as the challenge
            does.

    Raises:
        InputError: there is no such file, or its name is not that of a transform.
    """
    name = path.name.lower()
    if any((path.parent / (path.name + end)).is_file() for end in (AFFINE, WARP)):
        return "ants"
    if is_ome_zarr(path):
        return "ome-zarr"
    if not path.is_file():
        raise InputError(f"got {path}, which is no file, expected a transform; check the path")
    if name.endswith(TRANSFORM_SUFFIXES):
        return _format_of_text(path)
    if name.endswith(".npz"):
        return "numpy" if _is_plain(path) else "learn2reg"
    if is_nifti(path):
        _warn_of_half_a_pair(path)
        return _nifti_format(path, challenge)
    if is_dicom(path):
        return "dicom"
    of_name = format_of_name(path)
    if of_name is None:
        raise _unknown(path)
    return of_name


def _unknown(path: Path) -> InputError:
    for suffix, remark in NAMED.items():
        if path.name.lower().endswith(suffix):
            return InputError(f"got {path}, which is not read: it is {remark}")
    return InputError(
        f"got {path}, whose name is not that of a transform, expected one of the formats {', '.join(FORMATS)}; say "
        "its format to `corereg convert`",
        options="add --from",
    )


def _format_of_text(path: Path) -> str:
    """Several programs write .txt and .mat."""
    suffix = path.suffix.lower()
    if suffix == MATRIX_SUFFIX and is_matrix(path):
        return "fsl"
    return "elastix" if suffix == ".txt" and is_elastix(path) else "itk"


def _warn_of_half_a_pair(path: Path) -> None:
    prefix = path.name.removesuffix(WARP)
    if prefix != path.name and (path.parent / (prefix + AFFINE)).is_file():
        warnings.warn(
            f"{path} is read without its affine {prefix}{AFFINE}; give the prefix {prefix} for both", stacklevel=2
        )


def _nifti_format(path: Path, challenge: bool) -> str:
    try:
        file = open_nifti(path)
    except InputError:  # the reader explains it better
        return "itk-field"
    intent = int(file.header["intent_code"])
    if file.header["intent_name"].item() == INTENT_NAME:
        return "niftyreg"
    if intent in FSL_INTENTS:
        return "fsl"
    vectors = len(file.shape) == 4 and file.shape[3] == VECTOR_COMPONENTS
    bare = intent == 0 and np.array_equal(file.affine, np.eye(4))
    return "learn2reg" if vectors and (bare or challenge) else "itk-field"


def _is_plain(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return f"{FIELD_KEY}.npy" in archive.namelist()
    except Exception:  # zipfile raises whatever a damaged archive leads to; the reader explains it better
        return False


def _located(image: Any) -> Located | None:
    return image if image is None or isinstance(image, Grid) else as_reference(image)
