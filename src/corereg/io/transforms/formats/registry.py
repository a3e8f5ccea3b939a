"""The formats that transforms are read from and written to, and how a file's format is found."""

import warnings
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from corereg.errors import InputError
from corereg.geometry.grid import Grid
from corereg.io.images.image import as_image
from corereg.io.images.nifti import is_nifti
from corereg.io.transforms.formats.ants import AFFINE, WARP, read_ants, write_ants
from corereg.io.transforms.formats.common import Located
from corereg.io.transforms.formats.fsl import FSL_INTENTS, read_fsl, write_fsl
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
from corereg.io.transforms.formats.niftyreg import (
    INTENT_NAME,
    read_niftyreg,
    write_niftyreg_deformation,
    write_niftyreg_displacement,
)
from corereg.io.transforms.formats.npz import FIELD_KEY, read_plain, write_plain
from corereg.io.transforms.transform import Transform
from corereg.lazy import nibabel

__all__ = ["FORMATS", "NIFTI", "VECTOR_COMPONENTS", "Format", "detect_format", "read_transform", "save_by_suffix"]

VECTOR_COMPONENTS = 3


@dataclass(frozen=True)
class Format:
    """A kind of file that transforms come in."""

    read: Callable[[Path, Located | None, Located | None], Transform]
    write: Callable[[Path, Transform], None]
    suffixes: tuple[str, ...]
    """Of the files written; none for a prefix of several files."""
    one_field: bool = True
    """Holds no parts."""
    remark: str = ""
    """What its reader must know."""


NIFTI = (".nii.gz", ".nii")

FORMATS: dict[str, Format] = {
    "itk": Format(read_itk_transform, write_composite, COMPOSITE_SUFFIXES, one_field=False),
    "itk-field": Format(read_field, write_field, FIELD_SUFFIXES),
    "ants": Format(read_ants, write_ants, (), one_field=False),
    "learn2reg": Format(
        read_learn2reg, write_learn2reg, (*NIFTI, ".npz"), remark="it holds neither grid: keep both images beside it"
    ),
    "learn2reg-half": Format(
        read_learn2reg,
        write_learn2reg_half,
        (".npz",),
        remark="half the resolution in float16, and neither grid: keep both images beside it",
    ),
    "niftyreg": Format(read_niftyreg, write_niftyreg_deformation, NIFTI),
    "niftyreg-displacement": Format(read_niftyreg, write_niftyreg_displacement, NIFTI),
    "fsl": Format(read_fsl, write_fsl, NIFTI, remark="it is relative, and for this moving image's grid alone"),
    "numpy": Format(read_plain, write_plain, (".npz",)),
}
"""By the names that `corereg convert` takes."""


def read_transform(path: Path, *, fixed: Any = None, moving: Any = None, source_format: str | None = None) -> Transform:
    """A transform from any of the formats.

    Args:
        fixed, moving: images or grids, for formats that do not hold them; they stand in for those of the file.
        source_format: a key of `FORMATS`, where looking into the file is not enough.

    Raises:
        InputError: not a transform, or a grid is missing.
    """
    name = source_format or detect_format(path)
    if name not in FORMATS:
        raise InputError(f"got the format {name}, expected one of {', '.join(FORMATS)}; correct it")
    return FORMATS[name].read(path, _located(fixed), _located(moving))


def save_by_suffix(transform: Transform, path: Path) -> None:
    """As an ITK composite or an ITK field, by the name of the file.

    Raises:
        InputError: another name, or a folder that is missing or not writable.
    """
    name = "itk" if path.name.lower().endswith(COMPOSITE_SUFFIXES) else "itk-field"
    FORMATS[name].write(path, transform)


def detect_format(path: Path) -> str:
    """Key in `FORMATS` of a file, by its name and what is in it.

    Raises:
        InputError: there is no such file, or it is no transform by its name.
    """
    name = path.name.lower()
    if any((path.parent / (path.name + end)).is_file() for end in (AFFINE, WARP)):
        return "ants"
    if not path.is_file():
        raise InputError(f"got {path}, which is no file, expected a transform; check the path")
    if name.endswith(TRANSFORM_SUFFIXES):
        return "itk"
    if name.endswith(".npz"):
        return "numpy" if _is_plain(path) else "learn2reg"
    if is_nifti(path):
        _warn_of_half_a_pair(path)
        return _nifti_format(path)
    if name.endswith(FIELD_SUFFIXES):
        return "itk-field"
    raise InputError(f"got {path}, which is no transform by its name, expected one of {', '.join(FORMATS)}; add --from")


def _warn_of_half_a_pair(path: Path) -> None:
    prefix = path.name.removesuffix(WARP)
    if prefix != path.name and (path.parent / (prefix + AFFINE)).is_file():
        warnings.warn(
            f"{path} is read without its affine {prefix}{AFFINE}; give the prefix {prefix} for both", stacklevel=2
        )


def _nifti_format(path: Path) -> str:
    try:
        image = nibabel().load(path)
    except Exception:  # whatever it is, the reader says it better
        return "itk-field"
    if image.header["intent_name"].item() == INTENT_NAME:
        return "niftyreg"
    if int(image.header["intent_code"]) in FSL_INTENTS:
        return "fsl"
    bare = int(image.header["intent_code"]) == 0 and np.array_equal(image.affine, np.eye(4))
    return "learn2reg" if bare and len(image.shape) == 4 and image.shape[3] == VECTOR_COMPONENTS else "itk-field"


def _is_plain(path: Path) -> bool:
    try:
        with np.load(path, allow_pickle=False) as content:
            return FIELD_KEY in content.files
    except (OSError, EOFError, ValueError, zipfile.BadZipFile):
        return False


def _located(image: Any) -> Located | None:
    return image if image is None or isinstance(image, Grid) else as_image(image)
