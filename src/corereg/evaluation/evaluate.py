"""Score a folder of displacement fields: one row of measures per pair, their summary, and a second folder to compare.

Upstream: `cases`, `field_files`, `score`. Downstream: `cli.evaluate`, `report.tables`.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from corereg.errors import InputError
from corereg.evaluation.archives import opened_fields
from corereg.evaluation.cases import Case, Cases, LoadedCase, read_cases
from corereg.evaluation.field_checks import diagnose_field
from corereg.evaluation.field_files import FieldFile, find_field, read_field
from corereg.evaluation.measures import MEASURES, compare_rows, summaries
from corereg.evaluation.metrics import inverse_consistency_mm
from corereg.evaluation.score import Row, score_pair
from corereg.evaluation.statistics import Comparison, Summary
from corereg.io.atomic import atomic_path
from corereg.io.json_files import finite
from corereg.progress import Step

__all__ = ["Evaluation", "evaluate"]

LISTED_FIELDS = 3
"""How many missing fields an error message lists."""


@dataclass(frozen=True)
class Evaluation:
    """Scores of a set of fields on the pairs of a data set."""

    cases: Cases
    rows: tuple[Row, ...]
    """One row per scored pair."""
    left_out: Mapping[str, str]
    """Name of a pair -> why it was not scored."""
    suspicions: Mapping[str, str]
    """Name of a pair -> why its field is probably misread, as `diagnose_field` puts it."""
    against: "Evaluation | None" = None
    """A second set of fields on the same pairs, for comparison."""

    @cached_property
    def summary(self) -> dict[str, Summary]:
        """Summary of each measure over the pairs."""
        return summaries(self.rows)

    @cached_property
    def comparisons(self) -> dict[str, Comparison]:
        """Paired difference of each measure, these fields minus `against`, over the pairs that both have."""
        if self.against is None:
            return {}
        names = [name for name, measure in MEASURES.items() if measure.better and name in self.summary]
        return {name: compare_rows(self.rows, self.against.rows, name) for name in names}

    def as_dict(self) -> dict[str, Any]:
        """Everything as plain numbers and text, for JSON."""
        plain: dict[str, Any] = {
            "dataset": self.cases.name,
            "part": self.cases.split,
            "labels": {str(label): name for label, name in self.cases.label_names.items()},
            "summary": {name: asdict(summary) for name, summary in self.summary.items()},
            "left_out": dict(self.left_out),
            "suspicions": dict(self.suspicions),
            "rows": list(self.rows),
        }
        if self.against is not None:
            plain["against"] = self.against.as_dict()
            plain["comparisons"] = {name: asdict(comparison) for name, comparison in self.comparisons.items()}
        return plain

    def write_json(self, path: Path) -> None:
        """Write everything as JSON; NaN and infinities become null."""
        with atomic_path(path) as staged:
            staged.write_text(json.dumps(finite(self.as_dict()), indent=1, allow_nan=False) + "\n", encoding="utf-8")


def evaluate(
    dataset: str | Path,
    fields: str | Path,
    *,
    against: str | Path | None = None,
    split: str | None = None,
    partial: bool = False,
    check: bool = True,
    progress: Callable[[str], None] | None = None,
) -> Evaluation:
    """Score a folder of displacement fields, or a submission's zip file, by the formulas of the Learn2Reg challenge.

    Args:
        dataset: a data set in any layout that `data.pairs` reads.
        fields: folder or zip file of fields named disp_<fixed>_<moving>, with the challenge's long or short names, in
            any format that `read_field` accepts.
        against: a second folder of fields to compare with.
        split: "validation" or "test"; see `read_cases`.
        partial: score the pairs whose fields exist and can be read, and list the others in `left_out`.
        check: look for fields that are probably misread (wrong unit, axis order, direction or pair).
        progress: called with a line of text before each pair.

    Raises:
        InputError: the data set or a folder is missing or, unless `partial`, a field is missing or unusable.
    """
    cases = read_cases(Path(dataset), split)
    given = [Path(each) for each in (fields, against) if each is not None]
    with ExitStack() as stack:
        folders = [stack.enter_context(opened_fields(path)) for path in given]
        first, *second = (
            _evaluate(cases, folder, path, partial=partial, check=check, progress=progress)
            for folder, path in zip(folders, given, strict=True)
        )
    return replace(first, against=second[0] if second else None)


def _evaluate(
    cases: Cases, folder: Path, given: Path, *, partial: bool, check: bool, progress: Callable[[str], None] | None
) -> Evaluation:
    progress = progress or (lambda stage: None)
    files = {case: find_field(folder, case) for case in cases.cases}
    missing = [case for case, file in files.items() if file is None]
    if len(missing) == len(files) or (missing and not partial):
        raise InputError(_missing_fields(given, missing, len(files)))
    left_out = {case.name: f"no field {_expected(case)}" for case in missing}
    rows, suspicions = [], {}
    for count, (case, file) in enumerate(files.items(), start=1):
        if file is None:
            continue
        progress(Step(f"{case.name} ({count} of {len(files)})", count - 1, len(files)))
        pair = LoadedCase(case)
        try:
            field = read_field(file, *pair.grids)
            row = score_pair(pair, field)
            _add_inverse_error(row, pair, field, folder)
        except InputError as error:
            if not partial:
                raise
            left_out[case.name] = str(error)
            continue
        rows.append(row | {"field": str(given / file.relative_to(folder))})
        diagnosis = diagnose_field(pair, field, [other for other in cases.cases if other != case]) if check else None
        if diagnosis:
            suspicions[case.name] = diagnosis
    if not rows:
        raise InputError(f"no field in {given} can be used ({next(iter(left_out.values()))}); check the files")
    return Evaluation(cases, tuple(rows), left_out, suspicions)


def _add_inverse_error(row: Row, pair: LoadedCase, field: FieldFile, folder: Path) -> None:
    """Add the inverse consistency error, if the folder holds the opposite field too and both scans share a grid."""
    fixed, moving = pair.grids
    back = find_field(folder, Case(pair.case.moving, pair.case.fixed))
    if back is not None and fixed == moving:
        opposite = read_field(back, moving, fixed)
        row["inverse_mm"] = float(inverse_consistency_mm(field.own_vox, opposite.own_vox, fixed.spacing).mean())


def _expected(case: Case) -> str:
    return " or ".join(case.field_names())


def _missing_fields(folder: Path, missing: Sequence[Case], total: int) -> str:
    listed = "; ".join(_expected(case) for case in missing[:LISTED_FIELDS])
    more = f" and {len(missing) - LISTED_FIELDS} more" if len(missing) > LISTED_FIELDS else ""
    cure = "add them, or score the others with --partial" if len(missing) < total else "check the folder and file names"
    return f"got {folder} without {len(missing)} of {total} fields, expected {listed}{more}; {cure}"
