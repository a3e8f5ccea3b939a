"""Turns a folder of fields into a challenge submission: the required names and form, verified by reading it back.

Upstream: `cases`, `field_files`. Downstream: `cli.evaluate`.

Legend: disp_vox (3, I, J, K), voxels. Newer Learn2Reg tasks take NIfTI files of (I, J, K, 3), float32. Those of 2020
and 2021 take npz files of (3, I/2, J/2, K/2), float16: half the size, but displacements in voxels of the full size.
"""

import os
import shutil
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from corereg.errors import InputError
from corereg.evaluation.cases import Case, LoadedCase, read_cases
from corereg.evaluation.field_files import find_field, read_field
from corereg.io.atomic import ensure_output_folder
from corereg.io.transforms.formats.learn2reg import write_disp_vox, write_half_disp_vox

__all__ = ["FORMS", "NAMES", "write_submission"]

FORMS = {"nifti": ".nii.gz", "npz": ".npz"}
NAMES = ("both", "long", "short")
NIFTI_TOLERANCE_VOX, HALF_SIZE_TOLERANCE_VOX = 1e-4, 0.5
"""Largest change that a form may cause. Half size and float16 change a smooth field by at most 0.06 voxels; a change of
half a voxel means that the field is not smooth, and that the submission would score differently."""
INNER = (slice(2, -2),) * 3
"""Voxels compared: scipy's zoom, and so the challenge's own reader, zeroes the outermost planes of some sizes."""
ARCHIVE = "submission.zip"


def write_submission(
    dataset: Path,
    fields: Path,
    directory: Path,
    *,
    form: str = "nifti",
    names: str = "both",
    split: str | None = None,
    progress: Callable[[str], None] | None = None,
) -> list[Path]:
    """Write the fields of all pairs in the challenge's form, and submission.zip with all of them.

    Args:
        fields: folder of fields, as for `evaluate`.
        directory: created if missing; files of the same names are replaced.
        form: "nifti", or "npz" (half size).
        names: "long" (disp_0001_0000_0002_0000), "short" (disp_0001_0002), or "both": the second links to the first.
        split: "validation" or "test"; see `read_cases`.
        progress: called with a line of text before each pair.

    Returns: the files, without the archive.
    Raises:
        InputError: the scans are not named as the challenge requires, a field is missing or unusable, the grid has an
            odd size (npz), or a field changes too much in this form. Nothing is written then.
    """
    if form not in FORMS or names not in NAMES:
        raise InputError(
            f"got form {form!r} and names {names!r}, expected {' or '.join(FORMS)} and one of {', '.join(NAMES)}"
        )
    cases = read_cases(dataset, split)
    files = {case: find_field(fields, case) for case in cases.cases}
    missing = [case for case, file in files.items() if file is None]
    if missing:
        raise InputError(
            f"{fields} lacks {len(missing)} of {len(files)} fields, such as {missing[0].field_names()[0]}; a "
            "submission must be complete"
        )
    staging = _staging_for(directory)
    try:
        written: list[str] = []
        for number, (case, file) in enumerate(files.items(), start=1):
            if progress:
                progress(f"{case.name} ({number} of {len(files)})")
            assert file is not None
            written += _write(case, file, staging, form, names)
        with zipfile.ZipFile(staging / ARCHIVE, "w", zipfile.ZIP_STORED) as archive:
            for name in written:
                archive.write(staging / name, name)
        ensure_output_folder(directory)
        for name in (*written, ARCHIVE):
            os.replace(staging / name, directory / name)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return [directory / name for name in written]


def _staging_for(directory: Path) -> Path:
    """A temporary folder on the file system of `directory`, which is created only when the submission is complete."""
    existing = next(folder for folder in (directory, *directory.absolute().parents) if folder.exists())
    return Path(tempfile.mkdtemp(prefix=".corereg-", dir=ensure_output_folder(existing)))


def _write(case: Case, file: Path, folder: Path, form: str, names: str) -> list[str]:
    """Write one field under its names, read it back and compare."""
    if case.ids is None:
        raise InputError(
            f"got the pair {case.name}, but a submission needs scans named <task>_<case>_<modality>, with four digits "
            "for case and modality; rename the scans"
        )
    long, short = (f"{name}{FORMS[form]}" for name in case.field_names())
    first = short if names == "short" else long
    grids = LoadedCase(case).grids
    field = read_field(file, *grids)
    disp_vox: NDArray[np.float32] = field.disp_vox.astype(np.float32)
    (write_disp_vox if form == "nifti" else write_half_disp_vox)(folder / first, disp_vox)
    back = read_field(folder / first, *grids).disp_vox
    lost = float(np.abs(back - field.disp_vox)[(slice(None), *INNER)].max())
    if lost > (NIFTI_TOLERANCE_VOX if form == "nifti" else HALF_SIZE_TOLERANCE_VOX):
        raise InputError(
            f"{file} changes by up to {lost:.2g} voxels when written as {form}; it is not smooth enough for this form; "
            "smooth it, or choose the other form"
        )
    if names != "both":
        return [first]
    try:
        os.link(folder / long, folder / short)
    except OSError:  # a file system without hard links
        shutil.copyfile(folder / long, folder / short)
    return [long, short]
