"""A challenge submission from a folder of fields: right names, right form, checked by reading it back.

Upstream: `cases`, `field_files`. Downstream: `cli.evaluate`.

Legend: disp_vox (3, I, J, K), voxels. The newer tasks take (I, J, K, 3) float32 NIfTI at full size, the older ones
(2020 and 2021) npz of float16 at half size, (3, I/2, J/2, K/2), its values still in voxels of the full size.
"""

import os
import shutil
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from corereg.data.layouts.learn2reg_writer import write_field
from corereg.errors import InputError
from corereg.evaluation.cases import Case, LoadedCase, read_cases
from corereg.evaluation.field_files import FieldFile, find_field, read_field
from corereg.io.atomic import ensure_output_folder

__all__ = ["FORMS", "NAMES", "write_submission"]

FORMS = {"nifti": ".nii.gz", "npz": ".npz"}
NAMES = ("both", "long", "short")
ZOOM_ORDER: Final = 2
"""Learn2Reg's writer of its older fields: `scipy.ndimage.zoom(component, 0.5, order=2)`."""
NIFTI_TOLERANCE_VOX, HALF_SIZE_TOLERANCE_VOX = 1e-4, 0.5
"""What may be lost on the way. Half size and float16 cost a smooth field 0.06 voxel at most; half a voxel says that the
field is not smooth, and that the submission would not score as it does."""
INNER = (slice(2, -2),) * 3
ARCHIVE = "submission.zip"


def write_submission(
    dataset: Path,
    fields: Path,
    directory: Path,
    *,
    form: str = "nifti",
    names: str = "both",
    part: str | None = None,
    progress: Callable[[str], None] | None = None,
) -> list[Path]:
    """Write the fields of all pairs as the challenge takes them, and submission.zip of them.

    Args:
        fields: as for `evaluate`.
        directory: made if it is not there; an earlier submission's files of the same names are replaced.
        form: "nifti" or "npz" (half size).
        names: "long" disp_0001_0000_0002_0000, "short" disp_0001_0002, or "both", the second a link to the first.

    Returns: the files, without the archive.
    Raises:
        InputError: names that the challenge cannot have, a missing or unusable field, an odd size at half size, or a
            field that does not survive its form. Nothing is written then.
    """
    if form not in FORMS or names not in NAMES:
        raise InputError(
            f"got form {form!r} and names {names!r}, expected one of {', '.join(FORMS)} and of {', '.join(NAMES)}"
        )
    cases = read_cases(dataset, part)
    files = {case: find_field(fields, case) for case in cases.cases}
    missing = [case for case, file in files.items() if file is None]
    if missing:
        raise InputError(
            f"got {fields} without {len(missing)} of {len(files)} fields, expected all, the first of them "
            f"{missing[0].field_names()[0]}; a submission must be complete"
        )
    ensure_output_folder(directory)
    staging = Path(tempfile.mkdtemp(prefix=".corereg-", dir=directory))
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
        for name in (*written, ARCHIVE):
            os.replace(staging / name, directory / name)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return [directory / name for name in written]


def _write(case: Case, file: Path, folder: Path, form: str, names: str) -> list[str]:
    """One field under its names, read back and compared."""
    if case.ids is None:
        raise InputError(
            f"got the pair {case.name}, expected scans named <task>_<case>_<modality> with four digits each, as a "
            "submission must name them; rename the scans"
        )
    long, short = (f"{name}{FORMS[form]}" for name in case.field_names())
    first = short if names == "short" else long
    grids = LoadedCase(case).grids
    field = read_field(file, *grids)
    if form == "nifti":
        write_field(folder / first, field.disp_vox.astype(np.float32))
    else:
        np.savez_compressed(folder / first, _half_size(field, file))
    back = read_field(folder / first, *grids).disp_vox
    # At half size scipy's zoom, and so the challenge's own reader, puts zeros into the outermost planes of some sizes.
    lost = float(np.abs(back - field.disp_vox)[(slice(None), *INNER)].max())
    if lost > (NIFTI_TOLERANCE_VOX if form == "nifti" else HALF_SIZE_TOLERANCE_VOX):
        raise InputError(
            f"got {file}, which differs by up to {lost:.2g} voxels once it is written as {form}, expected a field that "
            "is smooth enough for that form; smooth it, or take the other form"
        )
    if names != "both":
        return [first]
    try:
        os.link(folder / long, folder / short)
    except OSError:  # a file system without hard links
        shutil.copyfile(folder / long, folder / short)
    return [long, short]


def _half_size(field: FieldFile, file: Path) -> NDArray[Any]:
    """(3, I/2, J/2, K/2), float16."""
    shape = field.disp_vox.shape[1:]
    if any(size % 2 for size in shape):
        raise InputError(f"got {file} for {shape} voxels, expected even sizes for half of them; write it as nifti")
    disp_vox: NDArray[np.float32] = field.disp_vox.astype(np.float32)
    return np.stack([_halved(component) for component in disp_vox]).astype(np.float16)


def _halved(component: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(ndimage.zoom(component, 0.5, order=ZOOM_ORDER))
