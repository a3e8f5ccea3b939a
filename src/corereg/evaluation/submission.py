"""Turns a folder of fields into a challenge submission: the required names and form, verified by reading it back.

Upstream: `cases`, `field_files`. Downstream: `cli.evaluate`.

Legend: disp_vox (3, I, J, K), voxels. Newer Learn2Reg tasks take NIfTI files of (I, J, K, 3), float32. Those of 2020
and 2021 take npz files of (3, I/2, J/2, K/2), float16: half the size, but displacements in voxels of the full size.
"""

import os
import shutil
import warnings
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from corereg.data.layouts.learn2reg import FORMS
from corereg.errors import InputError
from corereg.evaluation.archives import opened_fields
from corereg.evaluation.cases import Case, LoadedCase, read_cases
from corereg.evaluation.field_files import find_field, read_field
from corereg.evaluation.metrics import dice, mean_over_labels, warp_labels
from corereg.io.atomic import atomic_folder, output_folder
from corereg.io.transforms.formats.learn2reg import write_disp_vox, write_half_disp_vox
from corereg.progress import Step

__all__ = ["NAMES", "check_submission", "write_submission"]

NAMES = ("long", "short", "both")
NIFTI_TOLERANCE_VOX = 1e-4
"""Largest change by rounding to float32."""
HALF_SIZE_MEAN_VOX, HALF_SIZE_DICE = 0.15, 0.02
"""Largest mean change, and largest loss of Dice, by half size and float16. Single voxels may change by more than one
voxel where a registration bends sharply, which no score notices."""
INNER = (slice(2, -2),) * 3
"""Voxels compared: scipy's zoom, and so the challenge's own reader, zeroes the outermost planes of some sizes."""
ARCHIVE = "submission.zip"


def write_submission(
    dataset: Path,
    fields: Path,
    directory: Path,
    *,
    form: str = "nifti",
    names: str = "long",
    split: str | None = None,
    force: bool = False,
    progress: Callable[[str], None] | None = None,
) -> list[Path]:
    """Write the fields of all pairs in the challenge's form, and submission.zip with all of them.

    Args:
        fields: folder of fields or zip file, as for `evaluate`.
        directory: created if missing; files of the same names are replaced.
        form: "nifti", or "npz" (half size).
        names: "long" (disp_0001_0000_0002_0000), "short" (disp_0001_0002), or "both": the second links to the first.
        split: "validation" or "test"; see `read_cases`.
        force: write fields that change too much in the half-size form, with a warning.
        progress: called with a line of text before each pair.

    Returns: the files, without the archive.
    Raises:
        InputError: the scans are not named as the challenge requires, a field is missing or unusable, the grid has an
            odd size (npz), or a field changes too much in this form. Nothing is left then.
    """
    check_submission(directory, form, names)
    cases = read_cases(dataset, split)
    with opened_fields(fields) as folder:
        files = {case: find_field(folder, case) for case in cases.cases}
        _check_complete(fields, files)
        written: list[str] = []
        with output_folder(directory), atomic_folder(directory, last=ARCHIVE) as staged:
            for number, (case, file) in enumerate(files.items(), start=1):
                if progress:
                    progress(Step(f"{case.name} ({number} of {len(files)})", number - 1, len(files)))
                assert file is not None
                written += _write(case, file, staged, form, names, force=force)
            with zipfile.ZipFile(staged / ARCHIVE, "w", zipfile.ZIP_STORED) as archive:
                for name in written:
                    archive.write(staged / name, name)
    return [directory / name for name in written]


def _check_complete(fields: Path, files: Mapping[Case, Path | None]) -> None:
    missing = [case for case, file in files.items() if file is None]
    if missing:
        raise InputError(
            f"{fields} lacks {len(missing)} of {len(files)} fields, such as {missing[0].field_names()[0]}; a "
            "submission must be complete"
        )
    unnamed = next((case for case in files if case.ids is None), None)
    if unnamed is not None:
        raise InputError(
            f"got the pair {unnamed.name}, but a submission needs scans named <task>_<case>_<modality>, with four "
            "digits for case and modality; rename the scans"
        )


def check_submission(directory: Path, form: str, names: str) -> None:
    """Check what can be checked without opening a field.

    Raises:
        InputError: the form or the choice of names is unknown, or the folder is a file.
    """
    if form not in FORMS or names not in NAMES:
        raise InputError(
            f"got form {form!r} and names {names!r}, expected {' or '.join(FORMS)} and one of {', '.join(NAMES)}"
        )
    if directory.exists() and not directory.is_dir():
        raise InputError(f"got the folder {directory} for a submission, which is a file; choose another")


def _write(case: Case, file: Path, folder: Path, form: str, names: str, *, force: bool) -> list[str]:
    """Write one field under its names, read it back and compare."""
    long, short = (f"{name}{FORMS[form]}" for name in case.field_names())
    first = short if names == "short" else long
    pair = LoadedCase(case)
    grids = pair.grids
    field = read_field(file, *grids)
    disp_vox: NDArray[np.float32] = field.disp_vox.astype(np.float32)
    (write_disp_vox if form == "nifti" else write_half_disp_vox)(folder / first, disp_vox)
    back = read_field(folder / first, *grids)
    if form == "nifti":
        _check_rounding(file, back.disp_vox - field.disp_vox)
    else:
        _check_half_size(file, pair, field.disp_vox, back.disp_vox, force=force)
    if names != "both":
        return [first]
    try:
        os.link(folder / long, folder / short)
    except OSError:  # a file system without hard links
        shutil.copyfile(folder / long, folder / short)
    return [long, short]


def _check_rounding(file: Path, change_vox: NDArray[Any]) -> None:
    largest = float(np.abs(change_vox).max())
    if not largest <= NIFTI_TOLERANCE_VOX:
        raise InputError(
            f"got {file}, which changes by up to {largest:.2g} voxels when stored as float32, expected at most "
            f"{NIFTI_TOLERANCE_VOX:g}; check the file for huge displacements"
        )


def _check_half_size(
    file: Path, pair: LoadedCase, disp_vox: NDArray[Any], back_vox: NDArray[Any], *, force: bool
) -> None:
    """Judge by what the challenge measures: the mean change, and Dice where the pair has labels."""
    mean = float(np.linalg.norm((back_vox - disp_vox)[(slice(None), *INNER)], axis=0).mean())
    found, limit = f"{file} changes by {mean:.2g} voxels on average", f"{HALF_SIZE_MEAN_VOX:g} voxels"
    loss = 0.0
    if pair.labels is not None:
        fixed, moving = pair.labels[0].array, pair.labels[1].array
        before, after = (
            mean_over_labels(dice(fixed, warp_labels(moving, each, other_shape=True), moving))
            for each in (disp_vox, back_vox)
        )
        loss = before - after
        found += f" and loses {loss:.3f} of Dice"
        limit += f" and {HALF_SIZE_DICE:g} of Dice"
    if mean <= HALF_SIZE_MEAN_VOX and not loss > HALF_SIZE_DICE:
        return
    if not force:
        raise InputError(
            f"{found} in half size, expected at most {limit}: it is not smooth enough; smooth it, choose the form "
            "nifti, or write it all the same with --force"
        )
    warnings.warn(f"{found} in half size, so it will score differently", stacklevel=2)
