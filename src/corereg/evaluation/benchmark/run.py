"""Methods x pairs -> rows, as they come and never twice; then a table, figures and a report with their provenance.

Upstream: `cases`, `peers`. Downstream: `cohort`, which turns the rows into what people read.
"""

import json
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from corereg.errors import InputError
from corereg.evaluation.benchmark.peers.catalogue import Method
from corereg.evaluation.benchmark.peers.running import command_of, run_method
from corereg.evaluation.benchmark.plan import Plan, choose_methods, settings_hash, tuned_methods, with_settings
from corereg.evaluation.benchmark.working_point import Matched
from corereg.evaluation.cases import Cases, LoadedCase, read_cases
from corereg.evaluation.field_files import read_field
from corereg.evaluation.score import Row, score_pair
from corereg.io.atomic import ensure_output_folder
from corereg.io.images.image import read_image, write_image
from corereg.io.images.nifti import is_nifti
from corereg.io.json_files import finite
from corereg.provenance import machine, now

__all__ = ["ROWS", "Benchmark", "benchmark", "read_rows"]

ROWS, PROVENANCE = "rows.jsonl", "provenance.json"
Progress = Callable[[str], None]


@dataclass(frozen=True)
class Benchmark:
    """What was compared and what came out."""

    cases: Cases
    methods: tuple[Method, ...]
    rows: tuple[Row, ...]
    """One for each method and pair that was run; `status` is "ok" or says what went wrong."""
    skipped: Mapping[str, str]
    """Method -> why it could not be run at all."""
    provenance: Mapping[str, Any]

    def of(self, method: Method) -> list[Row]:
        """The rows of a method that went well."""
        return [row for row in self.rows if row["method"] == method.name and row["status"] == "ok"]


def benchmark(
    dataset: str | Path,
    directory: str | Path,
    plan: Plan | None = None,
    *,
    tuning: Cases | None = None,
    own: Mapping[str, Any] | None = None,
    command: str = "",
    progress: Progress | None = None,
) -> Benchmark:
    """Run methods over the pairs of a data set; pairs that an earlier run into the same folder scored are kept.

    Args:
        dataset: of any layout that `data.pairs` reads; the pairs need labels or landmarks.
        directory: gets rows.jsonl, logs, and at the end provenance.json.
        tuning: pairs for `match_sdlogj`; by default the data set's validation pairs.
        own: settings of `corereg.register` for this package's own methods.
        command: what the provenance calls the command.

    Raises:
        InputError: before anything is run, where the data set, the folder or a method cannot be used.
    """
    plan, say = plan or Plan(), progress or (lambda stage: None)
    dataset, directory = Path(dataset), Path(directory)
    cases = read_cases(dataset, plan.part)
    if not cases.scored:
        raise InputError(
            f"got {dataset}, whose {cases.part} pairs have neither labels nor landmarks, expected some to compare by; "
            "add labels"
        )
    methods, skipped = choose_methods(plan)
    ensure_output_folder(directory)
    methods = tuple(with_settings(method, own or {}) for method in methods)
    matched: dict[str, Matched] = {}
    if plan.match_sdlogj is not None:
        tuning = tuning or (cases if cases.part == "validation" else read_cases(dataset, "validation"))
        methods, matched = tuned_methods(tuning, cases, methods, plan, say)
    done = {_key(row): row for row in read_rows(directory / ROWS)}
    started, rows = now(), []
    for number, case in enumerate(cases.cases, start=1):
        loaded = LoadedCase(case)
        for method in methods:
            key = (method.name, settings_hash(method, plan), case.fixed.name, case.moving.name)
            row = done.get(key)
            if row is None or row["status"] != "ok":
                say(f"{method.title}: {case.name} ({number} of {len(cases.cases)})")
                row = _run(method, loaded, directory, plan)
                with (directory / ROWS).open("a", encoding="utf-8") as file:
                    file.write(json.dumps(finite(row), allow_nan=False) + "\n")
            rows.append(row)
    provenance = {
        "command": command,
        "dataset": {"name": cases.name, "path": str(dataset), "part": cases.part, "pairs": len(cases.cases)},
        "plan": {name: value for name, value in asdict(plan).items() if name != "templates"},
        "methods": {m.name: _method_words(m, rows, plan) for m in methods},
        "skipped": skipped,
        "matched": {name: asdict(found) for name, found in matched.items()},
        "tuning": tuning.part if matched and tuning else None,
        "started": started,
        "finished": now(),
        "machine": machine(),
    }
    (directory / PROVENANCE).write_text(json.dumps(provenance, indent=1, default=str) + "\n", encoding="utf-8")
    return Benchmark(cases, methods, tuple(rows), skipped, provenance)


def _run(method: Method, loaded: LoadedCase, directory: Path, plan: Plan) -> Row:
    """One method on one pair: its row, whatever happens."""
    case = loaded.case
    name = case.field_names()[0]
    log = directory / "logs" / method.name.replace(":", "-") / f"{name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    row: Row = {
        "method": method.name,
        "settings_hash": settings_hash(method, plan),
        "fixed": case.fixed.name,
        "moving": case.moving.name,
    }
    with tempfile.TemporaryDirectory(prefix=".corereg-", dir=directory) as scratch:
        folder = Path(scratch).resolve()
        fixed, moving = (_nifti(scan.image, folder) for scan in (case.fixed, case.moving))
        out = folder / "field.nii.gz"
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
        if plan.keep_fields:
            kept = directory / "fields" / method.name.replace(":", "-") / f"{name}.nii.gz"
            kept.parent.mkdir(parents=True, exist_ok=True)
            shutil.move(out, kept)
    return row


def _nifti(image: Path, folder: Path) -> Path:
    """The scan as a file that every tool reads."""
    if is_nifti(image):
        return image.resolve()
    path = folder / f"{image.name}.nii.gz"
    scan = read_image(image)
    write_image(path, scan.array, scan)
    return path


def _method_words(method: Method, rows: Sequence[Row], plan: Plan) -> dict[str, Any]:
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


def _key(row: Row) -> tuple[str, str, str, str]:
    return row["method"], row["settings_hash"], row["fixed"], row["moving"]


def read_rows(path: Path) -> list[Row]:
    """The rows of an earlier run; a last line that was cut short is left out, and run again."""
    rows = []
    for line in path.read_text("utf-8").splitlines() if path.is_file() else []:
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return rows
