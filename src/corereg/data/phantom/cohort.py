"""Phantom, stage 4 of 4, on disk: patients and breathing pairs with their fields, as a Learn2Reg data set."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from corereg.data.layouts.learn2reg_writer import (
    dataset_description,
    field_name,
    pair_entry,
    scan_entry,
    write_json,
    write_scan,
)
from corereg.data.phantom.images import LABELS, check_phantom, make_breathing_pair, make_subject
from corereg.errors import InputError
from corereg.io.atomic import output_folder, staging
from corereg.io.transforms.formats.learn2reg import write_disp_vox

__all__ = ["write_cohort"]

TASK = "Phantom"

MAX_SUBJECTS = 9999
"""Largest case number of four digits, as file names have them. The seeds of two cohorts are one more apart."""

MAX_BREATHING_PAIRS = 2

EXHALE, INHALE = 0, 1
"""Modality numbers in the file names of breathing pairs."""


def write_cohort(
    directory: str | os.PathLike[str],
    *,
    subjects: int = 6,
    kind: str = "abdomen",
    spacing_mm: float = 3.0,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write a cohort as a Learn2Reg data set and return the path of its dataset JSON.

    `imagesTr`, `labelsTr`: one scan per patient, Phantom_<case>_0000. `registration_val`: all pairs of the last third
    of the patients (at least two). `imagesTs`, `labelsTs`: the last two patients again, after breathing out (_0000,
    fixed) and in (_0001, moving); `registration_test` lists these pairs, and
    `fieldsTs/disp_<case>_0000_<case>_0001.nii.gz` holds the exact field of each. The folder appears once complete; the
    same arguments give the same bytes.

    Args:
        progress: called with the number of patients and pairs done, and their total.

    Raises:
        InputError: there are fewer than 2 or more than 9999 subjects, `make_subject` refuses an argument, or the
            directory is not empty, is a file or cannot be created.
    """
    if not 2 <= subjects <= MAX_SUBJECTS:
        raise InputError(f"got {subjects} phantom subjects, expected 2 to {MAX_SUBJECTS}; a pair needs two")
    check_phantom(seed, kind, spacing_mm)
    target = Path(directory).absolute()
    with _staged_folder(target) as folder:
        for name in ("imagesTr", "labelsTr", "imagesTs", "labelsTs", "fieldsTs"):
            (folder / name).mkdir()
        cases = range(1, subjects + 1)
        breathing_cases = cases[-MAX_BREATHING_PAIRS:]
        total = len(cases) + len(breathing_cases)
        report = progress or (lambda done, total: None)
        shape = (0, 0, 0)
        for done, case in enumerate(cases, 1):
            shape = _write_subject(folder, case, _subject_seed(seed, case), kind, spacing_mm)
            report(done, total)
        for done, case in enumerate(breathing_cases, len(cases) + 1):
            _write_pair(folder, case, _subject_seed(seed, case), kind, spacing_mm)
            report(done, total)
        content = _describe(kind, spacing_mm, shape, cases, breathing_cases)
        write_json(folder / f"{TASK}_dataset.json", content)
    return Path(directory) / f"{TASK}_dataset.json"


def _describe(
    kind: str, spacing_mm: float, shape: tuple[int, int, int], cases: range, breathing_cases: range
) -> dict[str, Any]:
    validation = cases[-max(2, len(cases) // 3) :]
    return dataset_description(
        TASK,
        description=f"synthetic {kind} CT, {spacing_mm:g} mm; inter-patient (Tr), breathing with known fields (Ts)",
        shape=shape,
        labels=LABELS[kind],
        modalities=2,
        training=[scan_entry("Tr", _scan(case, 0)) for case in cases],
        test=[scan_entry("Ts", _scan(case, phase)) for case in breathing_cases for phase in (EXHALE, INHALE)],
        validation_pairs=[
            pair_entry("Tr", _scan(fixed, 0), _scan(moving, 0)) for fixed, moving in combinations(validation, 2)
        ],
        test_pairs=[pair_entry("Ts", _scan(case, EXHALE), _scan(case, INHALE)) for case in breathing_cases],
    )


def _scan(case: int, modality: int) -> str:
    return f"{TASK}_{case:04d}_{modality:04d}"


def _subject_seed(seed: int, case: int) -> int:
    """Seed of a patient; no two cohorts share one."""
    return seed * (MAX_SUBJECTS + 1) + case


def _write_subject(folder: Path, case: int, seed: int, kind: str, spacing_mm: float) -> tuple[int, int, int]:
    image, labels, grid = make_subject(seed, kind, spacing_mm)
    write_scan(folder / "imagesTr" / f"{_scan(case, 0)}.nii.gz", image.astype(np.int16), grid)
    write_scan(folder / "labelsTr" / f"{_scan(case, 0)}.nii.gz", labels, grid)
    return grid.shape


def _write_pair(folder: Path, case: int, seed: int, kind: str, spacing_mm: float) -> None:
    pair = make_breathing_pair(seed, kind, spacing_mm)
    phases = ((EXHALE, pair.fixed, pair.fixed_labels), (INHALE, pair.moving, pair.moving_labels))
    for phase, image, labels in phases:
        write_scan(folder / "imagesTs" / f"{_scan(case, phase)}.nii.gz", image.astype(np.int16), pair.grid)
        write_scan(folder / "labelsTs" / f"{_scan(case, phase)}.nii.gz", labels, pair.grid)
    write_disp_vox(folder / "fieldsTs" / field_name(case, EXHALE, INHALE), pair.disp_vox)


@contextmanager
def _staged_folder(target: Path) -> Iterator[Path]:
    """A folder next to `target` that takes its name if the block succeeds, and is removed if it fails."""
    if target.is_file() or (target.is_dir() and any(target.iterdir())):
        problem = "is a file" if target.is_file() else "is not empty"
        raise InputError(f"the output folder {target} {problem}, expected a new or empty folder; choose another")
    with output_folder(target.parent), staging(target.parent) as made:
        # One level down, since only the user can enter the staging folder itself.
        folder = made / target.name
        folder.mkdir()
        yield folder
        if target.is_dir():
            target.rmdir()
        folder.rename(target)
