"""Runs every method on every pair: one row per result, appended as it comes; finished rows are never run again.

Upstream: `cases`, `plan`, `peers.running`. Downstream: `report.cohort`, which makes tables, figures and a page of it.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from corereg.errors import InputError
from corereg.evaluation.benchmark.peers.catalogue import Method
from corereg.evaluation.benchmark.peers.running import command_of, run_method
from corereg.evaluation.benchmark.plan import Plan, choose_methods, settings_hash, tuned_methods, with_own_settings
from corereg.evaluation.benchmark.rows import append_row, key_of, resume_rows
from corereg.evaluation.benchmark.working_point import WorkingPoint
from corereg.evaluation.cases import Case, Cases, LoadedCase, read_cases
from corereg.evaluation.field_files import read_field
from corereg.evaluation.score import Row, score_pair
from corereg.io.atomic import atomic_path, staging
from corereg.io.images.image import read_image, write_image
from corereg.io.images.nifti import is_nifti
from corereg.io.places import ensure_output_folder
from corereg.progress import Step
from corereg.provenance import machine, now

__all__ = ["ROWS", "Benchmark", "benchmark", "kept_field"]

ROWS, PROVENANCE, LOGS, WORKING_POINTS = "rows.jsonl", "provenance.json", "logs", "working_points.json"
LONGEST_NAME = 200
"""Longest name of a pair's files, in bytes; file systems allow 255 with the suffix."""
Progress = Callable[[str], None]


@dataclass(frozen=True)
class Benchmark:
    """The methods that were compared, on which pairs, and their results."""

    cases: Cases
    methods: tuple[Method, ...]
    rows: tuple[Row, ...]
    """One row for each method and pair that ran; `status` is "ok" or says what went wrong."""
    skipped: Mapping[str, str]
    """Name of a method -> why it could not run at all."""
    provenance: Mapping[str, Any]
    """Command, data set, settings, versions and machine, as in provenance.json."""

    def of(self, method: Method) -> list[Row]:
        """The successful rows of a method."""
        return [row for row in self.rows if row["method"] == method.name and row["status"] == "ok"]


def benchmark(
    dataset: str | Path | Cases,
    directory: str | Path,
    plan: Plan | None = None,
    *,
    tuning: Cases | None = None,
    own: Mapping[str, Any] | None = None,
    command: str = "",
    progress: Progress | None = None,
) -> Benchmark:
    """Run methods on the pairs of a data set.

    To resume, run into the same folder again: successful rows are kept, failed ones are retried.

    Args:
        dataset: a data set in any layout that `data.pairs` reads, or pairs that have been read; they need labels or
            landmarks.
        directory: receives rows.jsonl, logs and, at the end, provenance.json.
        plan: methods and settings.
        tuning: pairs on which `plan.match_sdlogj` is reached; by default the data set's validation pairs.
        own: settings of `corereg.register` for the methods of this package.
        command: the command line, for the provenance.
        progress: called with a line of text before each method and pair.

    Raises:
        InputError: the data set, the folder or all methods cannot be used. Raised before anything runs.
    """
    plan, progress = plan or Plan(), progress or (lambda stage: None)
    directory = Path(directory)
    cases = dataset if isinstance(dataset, Cases) else read_cases(Path(dataset), plan.split)
    path = cases.name if isinstance(dataset, Cases) else str(dataset)
    if not cases.scored:
        raise InputError(
            f"the {cases.split} pairs of {path} have neither labels nor landmarks, so methods cannot be compared; "
            "add label maps"
        )
    methods, skipped = choose_methods(plan)
    missing = [folder for folder in (directory, *directory.parents) if not folder.exists()]
    ensure_output_folder(directory)
    methods = tuple(with_own_settings(method, own or {}) for method in methods)
    matched: dict[str, WorkingPoint] = {}
    if plan.match_sdlogj is not None:
        tuning = tuning or (cases if cases.split == "validation" else read_cases(Path(path), "validation"))
        methods, matched = tuned_methods(tuning, cases, methods, plan, progress, remembered=directory / WORKING_POINTS)
    started = now()
    try:
        rows = _run_all(cases, methods, directory, plan, progress)
    except BaseException:
        for folder in (*directory.glob(f"{LOGS}/*"), directory / LOGS, *missing):
            with suppress(OSError):  # it holds finished results
                folder.rmdir()
        raise
    provenance = {
        "command": command,
        "dataset": {"name": cases.name, "path": path, "part": cases.split, "pairs": len(cases.cases)},
        "plan": plan.as_dict(),
        "methods": {m.name: _method_entry(m, rows, plan) for m in methods},
        "skipped": skipped,
        "matched": {name: found.as_dict() for name, found in matched.items()},
        "tuning": tuning.split if matched and tuning else None,
        "started": started,
        "finished": now(),
        "machine": machine(),
    }
    with atomic_path(directory / PROVENANCE) as staged:
        staged.write_text(json.dumps(provenance, indent=1, default=str) + "\n", encoding="utf-8")
    return Benchmark(cases, methods, tuple(rows), skipped, provenance)


def _run_all(cases: Cases, methods: Sequence[Method], directory: Path, plan: Plan, progress: Progress) -> list[Row]:
    """Run every method on every pair, unless an earlier run has a successful row; return old and new rows in order."""
    done = {key_of(row): row for row in resume_rows(directory / ROWS)}
    rows: list[Row] = []
    for number, case in enumerate(cases.cases, start=1):
        loaded = LoadedCase(case)
        for method in methods:
            row = done.get((method.name, settings_hash(method, plan), case.fixed.name, case.moving.name))
            if row is None or row["status"] != "ok":
                words = f"{method.title}: {case.name} ({number} of {len(cases.cases)})"
                progress(Step(words, len(rows), len(cases.cases) * len(methods)))
                row = _run(method, loaded, directory, plan)
                append_row(directory / ROWS, row)
            rows.append(row)
    return rows


def _run(method: Method, loaded: LoadedCase, directory: Path, plan: Plan) -> Row:
    """Run one method on one pair. Failures of the method are reported in the row's `status`."""
    case = loaded.case
    name = _file_name(case)
    log = directory / LOGS / method.name.replace(":", "-") / f"{name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    row: Row = {
        "method": method.name,
        "settings_hash": settings_hash(method, plan),
        "fixed": case.fixed.name,
        "moving": case.moving.name,
    }
    with staging(directory.resolve()) as folder:
        fixed, moving = (_nifti(scan.image, folder) for scan in (case.fixed, case.moving))
        out = folder / "field.nii.gz"
        try:
            run = run_method(
                method,
                fixed,
                moving,
                out,
                affine=plan.affine,
                threads=plan.threads,
                seed=plan.seed,
                budget_seconds=plan.budget_seconds,
                log=log,
            )
        except BaseException:  # an interruption
            log.unlink(missing_ok=True)
            raise
        row |= {"status": run.status, "tail": run.tail} | {
            key: value for key, value in asdict(run).items() if key not in ("status", "tail")
        }
        if run.seconds is None:
            row["seconds"] = run.process_seconds
        if not run.ok:
            return row
        try:
            row |= score_pair(loaded, read_field(out, *loaded.grids))
        except InputError as error:
            return row | {"status": "wrote a field that cannot be used", "tail": str(error)}
        if plan.keep_fields or case.name in plan.keep_fields_of:
            kept = kept_field(directory, method, case)
            kept.parent.mkdir(parents=True, exist_ok=True)
            shutil.move(out, kept)
    return row


def kept_field(directory: Path, method: Method, case: Case) -> Path:
    """Where the displacement field of a pair is, if it was kept."""
    return directory / "fields" / method.name.replace(":", "-") / f"{_file_name(case)}.nii.gz"


def _file_name(case: Case) -> str:
    """Name of a pair's log and field, without suffix; a hash if the scans' names are too long for a file."""
    name = case.field_names()[0]
    encoded = os.fsencode(name)
    return name if len(encoded) <= LONGEST_NAME else f"disp_{hashlib.sha256(encoded).hexdigest()}"


def _nifti(image: Path, folder: Path) -> Path:
    """The scan as a NIfTI file, which every tool reads; converted into `folder` if it is none."""
    if is_nifti(image):
        return image.resolve()
    path = folder / f"{image.name}.nii.gz"
    scan = read_image(image)
    write_image(path, scan.array, scan)
    return path


def _method_entry(method: Method, rows: Sequence[Row], plan: Plan) -> dict[str, Any]:
    """A method as provenance.json describes it."""
    versions = {row.get("version") for row in rows if row["method"] == method.name} - {None}
    places = (Path("FIXED"), Path("MOVING"), Path("OUT"))
    command = command_of(method, *places, affine=plan.affine, threads=plan.threads, seed=plan.seed)
    return {
        "title": method.title,
        "settings": method.settings,
        "packages": list(method.packages),
        "version": ", ".join(sorted(map(str, versions))) or None,
        "command": " ".join(command),
    }
