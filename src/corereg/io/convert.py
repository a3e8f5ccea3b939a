"""Transforms from file to file: which format a file is in, what a format cannot hold, the way from one to another."""

import warnings
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from corereg.errors import InputError
from corereg.geometry.displacement import Displacement
from corereg.geometry.grid import Grid
from corereg.io.fields import FIELD_SUFFIXES
from corereg.io.formats.ants import AFFINE, WARP, read_ants, write_ants
from corereg.io.formats.common import Located
from corereg.io.formats.fsl import FSL_INTENTS, read_fsl, write_fsl
from corereg.io.formats.itk import (
    COMPOSITE_SUFFIXES,
    TRANSFORM_SUFFIXES,
    read_field,
    read_itk_transform,
    write_composite,
    write_field,
)
from corereg.io.formats.learn2reg import read_learn2reg, write_learn2reg, write_learn2reg_half
from corereg.io.formats.niftyreg import (
    INTENT_NAME,
    read_niftyreg,
    write_niftyreg_deformation,
    write_niftyreg_displacement,
)
from corereg.io.formats.plain import FIELD_KEY, read_plain, write_plain
from corereg.io.images import as_image
from corereg.io.lazy import nibabel
from corereg.io.nifti import is_nifti
from corereg.io.transforms import Transform

__all__ = ["FORMATS", "convert_transform", "detect_format", "read_transform", "save_by_suffix", "shortcomings"]

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


def convert_transform(
    source: str | Path,
    out: str | Path,
    *,
    to: str | None = None,
    source_format: str | None = None,
    fixed: Any = None,
    moving: Any = None,
    inverse: bool = False,
    only: Sequence[str] = (),
    without: Sequence[str] = (),
    say: Callable[[str], None] | None = None,
) -> Transform:
    """Bring a transform file to another format.

    Args:
        to: a key of `FORMATS`; by default what the name of `out` tells.
        source_format, fixed, moving: as for `read_transform`.
        inverse: convert the other direction.
        only, without: names of parts to keep or to leave out.
        say: called, before anything is written, with a line for each thing that the format cannot hold.

    Returns: what was written.

    Raises:
        InputError: a file, format or part that cannot be used, or a grid is missing.
    """
    source, out = Path(source), Path(out)
    to = to or _format_of_name(out)
    _check_output(out, to)
    transform = read_transform(source, fixed=fixed, moving=moving, source_format=source_format)
    if only:
        transform = transform.named(*only)
    if without:
        transform = transform.without(*without)
    if inverse:
        transform = transform.inverse()
    for line in shortcomings(transform, to):
        (say or (lambda line: None))(line)
    FORMATS[to].write(out, transform)
    return transform


def shortcomings(transform: Transform, to: str) -> list[str]:
    """What is lost in a format, and what its reader must know: a line each."""
    form, lines = FORMATS[to], []
    fields = sum(isinstance(part, Displacement) for part in transform.parts)
    if (form.one_field and len(transform.parts) > 1) or (to == "ants" and fields > 1):
        held = "one warp before one affine" if to == "ants" else "one displacement field"
        lines.append(f"{to} holds {held}: the parts {', '.join(transform.names)} are composed into it")
    if form.one_field and transform.backward is not None:
        lines.append(f"{to} holds one direction: convert again with --inverse for the other")
    return [*lines, *([f"{to}: {form.remark}"] if form.remark else [])]


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


def _format_of_name(out: Path) -> str:
    name = out.name.lower()
    if name.endswith(COMPOSITE_SUFFIXES):
        return "itk"
    if name.endswith((".nrrd", ".mha", ".mhd")):
        return "itk-field"
    raise InputError(f"got the output {out} without a format, expected one of {', '.join(FORMATS)}; add --to")


def _check_output(out: Path, to: str) -> None:
    if to not in FORMATS:
        raise InputError(f"got the format {to}, expected one of {', '.join(FORMATS)}; correct it")
    suffixes = FORMATS[to].suffixes
    if suffixes and not out.name.lower().endswith(suffixes):
        raise InputError(f"got the output {out} for {to}, expected a name ending in {' or '.join(suffixes)}; rename it")


def _located(image: Any) -> Located | None:
    return image if image is None or isinstance(image, Grid) else as_image(image)
