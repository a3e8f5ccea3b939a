"""A folder of displacement fields -> a row of numbers for each pair, and what they say together.

Upstream: `cases`, `field_files`, `score`. Downstream: `cli.evaluate`.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from corereg.errors import InputError
from corereg.evaluation.cases import Case, Cases, LoadedCase, read_cases
from corereg.evaluation.field_checks import suspicion
from corereg.evaluation.field_files import FieldFile, find_field, read_field
from corereg.evaluation.measures import MEASURES, summaries, values
from corereg.evaluation.metrics import inverse_consistency_mm
from corereg.evaluation.score import Row, score_pair
from corereg.evaluation.statistics import Comparison, Summary, compare
from corereg.io.atomic import atomic_path
from corereg.io.json_files import finite

__all__ = ["Evaluation", "evaluate"]

NAMED = 3
"""How many missing fields a message names."""


@dataclass(frozen=True)
class Evaluation:
    """Fields scored on the pairs of a data set."""

    cases: Cases
    rows: tuple[Row, ...]
    """One for each pair that was scored."""
    left_out: Mapping[str, str]
    """Pair -> why it has no row."""
    suspicions: Mapping[str, str]
    """Pair -> why its field is probably not what it is taken for."""
    against: "Evaluation | None" = None

    @cached_property
    def summary(self) -> dict[str, Summary]:
        """Each measure over the pairs."""
        return summaries(self.rows)

    @cached_property
    def comparisons(self) -> dict[str, Comparison]:
        """This minus the other set of fields, over the pairs that both have."""
        if self.against is None:
            return {}
        others = {(row["fixed"], row["moving"]): row for row in self.against.rows}
        pairs = [(row, others[key]) for row in self.rows if (key := (row["fixed"], row["moving"])) in others]
        first, second = ([pair[side] for pair in pairs] for side in (0, 1))
        names = [name for name, measure in MEASURES.items() if measure.better and name in self.summary]
        return {name: compare(values(first, name), values(second, name)) for name in names}

    def as_dict(self) -> dict[str, Any]:
        """All of it as plain numbers, for JSON."""
        plain: dict[str, Any] = {
            "dataset": self.cases.name,
            "part": self.cases.part,
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
        """Everything; null for what is not known or infinite."""
        with atomic_path(path) as staged:
            staged.write_text(json.dumps(finite(self.as_dict()), indent=1, allow_nan=False) + "\n", encoding="utf-8")


def evaluate(
    dataset: str | Path,
    fields: str | Path,
    *,
    against: str | Path | None = None,
    part: str | None = None,
    partial: bool = False,
    check: bool = True,
    progress: Callable[[str], None] | None = None,
) -> Evaluation:
    """Score a folder of displacement fields by the challenge's formulas.

    Args:
        dataset: of any layout that `data.pairs` reads.
        fields: `disp_<fixed>_<moving>` files with the challenge's long or short names, in any form that `read_field`
            knows.
        against: a second folder, to compare with.
        part: "validation" or "test"; see `read_cases`.
        partial: score the pairs whose fields are there and can be used, and list the others.
        check: look for fields that cannot be what they are taken for (mistaken units, those of another pair).

    Raises:
        InputError: no data set, no folder, or, unless `partial`, a missing or unusable field.
    """
    cases = read_cases(Path(dataset), part)
    folders = [Path(folder) for folder in (fields, against) if folder is not None]
    for folder in folders:
        if not folder.is_dir():
            raise InputError(f"got {folder}, which is no folder, expected one with displacement fields; check the path")
    first, *second = (_evaluate(cases, folder, partial=partial, check=check, progress=progress) for folder in folders)
    return replace(first, against=second[0] if second else None)


def _evaluate(
    cases: Cases, folder: Path, *, partial: bool, check: bool, progress: Callable[[str], None] | None
) -> Evaluation:
    say = progress or (lambda stage: None)
    files = {case: find_field(folder, case) for case in cases.cases}
    missing = [case for case, file in files.items() if file is None]
    if len(missing) == len(files) or (missing and not partial):
        raise InputError(_missing_words(folder, missing, len(files)))
    left_out = {case.name: f"no field {_expected(case)}" for case in missing}
    rows, suspicions = [], {}
    for count, (case, file) in enumerate(files.items(), start=1):
        if file is None:
            continue
        say(f"{case.name} ({count} of {len(files)})")
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
        rows.append(row | {"field": str(file)})
        doubt = suspicion(pair, field, [other for other in cases.cases if other != case]) if check else None
        if doubt:
            suspicions[case.name] = doubt
    if not rows:
        raise InputError(f"got no usable field in {folder} ({next(iter(left_out.values()))}), expected one; check them")
    return Evaluation(cases, tuple(rows), left_out, suspicions)


def _add_inverse_error(row: Row, pair: LoadedCase, field: FieldFile, folder: Path) -> None:
    """Where the folder has the opposite field too, and both scans one grid: how well they undo each other."""
    fixed, moving = pair.grids
    back = find_field(folder, Case(pair.case.moving, pair.case.fixed))
    if back is not None and fixed == moving:
        opposite = read_field(back, moving, fixed)
        row["inverse_mm"] = float(inverse_consistency_mm(field.own_vox, opposite.own_vox, fixed.spacing).mean())


def _expected(case: Case) -> str:
    return " or ".join(case.field_names())


def _missing_words(folder: Path, missing: Sequence[Case], total: int) -> str:
    named = "; ".join(_expected(case) for case in missing[:NAMED])
    more = f" and {len(missing) - NAMED} more" if len(missing) > NAMED else ""
    cure = "make them, or score the others with --partial" if len(missing) < total else "check the folder and the names"
    return f"got {folder} without {len(missing)} of {total} fields, expected {named}{more}; {cure}"
