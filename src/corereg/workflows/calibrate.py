"""Thresholds of the verdict for a user's own scans, from pairs that the user knows to be right.

Upstream: `batch`. Downstream: `method.quality.calibration`.
"""

import math
import os
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

from typing_extensions import Unpack

from corereg.errors import InputError, number_of
from corereg.io.places import check_output
from corereg.method.quality.calibration import Calibration, calibrated, check_count, fewest_pairs
from corereg.method.quality.thresholds import write_thresholds
from corereg.method.quality.verdict import NEEDED
from corereg.method.register_settings import RegisterSettings
from corereg.provenance import versions
from corereg.workflows.batch.pairs import Pair, pair_source
from corereg.workflows.batch.plan import Shard
from corereg.workflows.batch.rows import OK, read_rows
from corereg.workflows.batch.run import REGISTER, batch

__all__ = ["calibrate"]

FEW = 2.0
"""Warn if the true rate of false alarms may be this many times the requested one."""


def calibrate(
    pairs: str | os.PathLike[str] | Iterable[Pair],
    path: str | os.PathLike[str],
    *,
    false_alarms: float = 0.05,
    directory: str | os.PathLike[str] | None = None,
    jobs: int | None = None,
    threads: int | None = None,
    all_to: str | os.PathLike[str] | None = None,
    every_pair: bool = False,
    split: str | None = None,
    force: bool = False,
    command: str = "",
    progress: Callable[[str], None] | None = None,
    method: str = REGISTER,
    **settings: Unpack[RegisterSettings],
) -> Calibration:
    """Find the thresholds by which right pairs get the verdict "fail" at a stated rate, and write them to a file.

    Args:
        pairs, all_to, every_pair, split: right pairs, as `batch` takes them; or the folder of a finished batch.
        path: the file to write, for the setting `thresholds`.
        false_alarms: share of right pairs that may fail.
        directory: folder in which the pairs are registered, kept to resume; by default a temporary one.
        jobs, threads: see `batch`.
        force: replace an existing file.
        command: what the file calls the command.
        progress: called with a line of text after each pair.
        method: see `batch`.
        **settings: those that later registrations will have, see `corereg.register`.

    Raises:
        InputError: before the first pair, if there are too few pairs, or they, the settings or the file cannot be used.
    """
    if not 0 < false_alarms < 1:
        raise InputError(f"got --false-alarms {false_alarms:g}, expected a share between 0 and 1, such as 0.05")
    path = check_output(path, force=force)
    finished = Path(pairs) if isinstance(pairs, str | os.PathLike) and (Path(pairs) / Shard().rows).is_file() else None
    if finished is not None:
        given = [name for name, value in settings.items() if value is not None]
        if given or directory is not None:
            what = f"--{given[0].replace('_', '-')}" if given else "a folder to register in"
            raise InputError(f"got {what} for {finished}, whose pairs are registered already; leave it out")
        rows = finished / Shard().rows
        found = _measures(rows)
    else:
        given_pairs = pairs if isinstance(pairs, str | os.PathLike) else list(pairs)
        source = pair_source(given_pairs, all_to=all_to, every_pair=every_pair, split=split)
        needed = fewest_pairs(false_alarms)
        check_count(sum(1 for _ in islice(source(), needed)), false_alarms)
        with _folder(directory) as folder:
            done = batch(
                given_pairs,
                folder,
                jobs=jobs,
                threads=threads,
                all_to=all_to,
                every_pair=every_pair,
                split=split,
                keep=(),
                page=False,
                command=command,
                progress=progress,
                method=method,
                **settings,
            )
            found = _measures(done.rows)
    calibration = calibrated(found, false_alarms)
    if calibration.false_alarms_at_most > FEW * false_alarms:
        warnings.warn(
            f"{calibration.pairs} pairs are few for {false_alarms:.1%} of false alarms: in truth there may be "
            f"{calibration.false_alarms_at_most:.1%}; add right pairs",
            stacklevel=2,
        )
    about = {
        "false_alarms": false_alarms,
        "false_alarms_at_most": calibration.false_alarms_at_most,
        "pairs": calibration.pairs,
        "failed": calibration.failed,
        "warned": calibration.warned,
        "command": command,
        "versions": versions(),
    }
    write_thresholds(path, calibration.thresholds, about)
    return calibration


@contextmanager
def _folder(given: str | os.PathLike[str] | None) -> Iterator[Path]:
    if given is not None:
        yield Path(given)
        return
    with tempfile.TemporaryDirectory(prefix="corereg-calibrate-") as folder:
        yield Path(folder)


def _measures(path: Path) -> list[dict[str, float]]:
    """The quality measures in the rows of a batch; failed pairs are left out with a warning."""
    found, failed = [], 0
    for row in read_rows(path):
        if row["status"] != OK:
            failed += 1
            continue
        missing = next((name for name in NEEDED if name not in row), None)
        if missing:
            raise InputError(
                f"got {path}, whose pair {row['name']} has no {missing}, expected the measures of registered images; "
                "register the pairs again"
            )
        found.append({name: _number(row, name) for name in NEEDED})
    if failed:
        warnings.warn(f"{number_of(failed, 'pair')} failed and left out; see `error` in {path}", stacklevel=3)
    return found


def _number(row: Mapping[str, Any], name: str) -> float:
    value = row[name]
    if value is not None and not isinstance(value, int | float):
        raise InputError(f"got {str(value)[:80]!r} as {name} of the pair {row['name']}, expected a number; correct it")
    return math.nan if value is None else float(value)
