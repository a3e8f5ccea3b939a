"""Many pairs: checked all at once, registered by workers, remembered by rows. One run after the other resumes.

Upstream: `pairs`, `plan`. Downstream: `tasks`, `rows`, `page`.
"""

import math
import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from typing_extensions import Unpack

from corereg.data.label_names import read_label_names
from corereg.errors import InputError, number_of
from corereg.io.atomic import output_folder
from corereg.method.config import RegisterConfig, with_register_options
from corereg.method.quality.thresholds import read_thresholds
from corereg.method.register_settings import RegisterSettings
from corereg.progress import Step
from corereg.provenance import usable_cores
from corereg.workflows.batch.actors import ActorTeam, Cluster, connected
from corereg.workflows.batch.bids_names import checked_names, write_bids
from corereg.workflows.batch.pairs import Pair, Source, known_label_names, pair_source
from corereg.workflows.batch.plan import Shard, check_names, check_pairs, check_submission
from corereg.workflows.batch.processes import ProcessTeam, running
from corereg.workflows.batch.remembered import check_same_settings, remember_settings
from corereg.workflows.batch.rows import OK, RowFile, locked, read_rows, resume, write_parquet
from corereg.workflows.batch.tasks import Crew, Task, Team, run_tasks
from corereg.workflows.outputs import DEFAULT_OUTPUTS

__all__ = ["Batch", "batch"]

REGISTER = "corereg.workflows.batch.one_pair:register_pair"
WRITE_PAGE = "corereg.workflows.batch.page:write_page"
WRITE_FIELDS = "corereg.workflows.batch.challenge:write_fields"


@dataclass(frozen=True, slots=True)
class Batch:
    """What became of the pairs of a batch, or of its shard."""

    directory: Path
    pairs: int
    resumed: int
    """Pairs that an earlier run had done."""
    failed: int
    rows: Path
    """The file of rows."""
    verdicts: Mapping[str, int]
    """How many registered pairs have the verdict "fail", "warn" and "pass"."""


def batch(
    pairs: str | os.PathLike[str] | Iterable[Pair],
    directory: str | os.PathLike[str],
    *,
    jobs: int | None = None,
    threads: int | None = None,
    shard: str | None = None,
    ray: str | None = None,
    ray_gpus: float | None = None,
    ray_memory: float | None = None,
    retries: int = 1,
    time_limit: float | None = None,
    keep: str | Iterable[str] = DEFAULT_OUTPUTS,
    partial: bool = False,
    all_to: str | os.PathLike[str] | None = None,
    every_pair: bool = False,
    split: str | None = None,
    submission: str | None = None,
    bids_names: bool = False,
    label_names: str | os.PathLike[str] | None = None,
    labels_use_image_grid: bool = False,
    page: bool = True,
    command: str = "",
    progress: Callable[[str], None] | None = None,
    method: str = REGISTER,
    **settings: Unpack[RegisterSettings],
) -> Batch:
    """Register many pairs, each into a folder of its own, as `corereg register` does.

    To resume, run the same into the same folder: pairs that are done are skipped, failed ones are tried again.

    Args:
        pairs, all_to, every_pair, split: the pairs, see `pairs.pair_source`.
        directory: receives <name>/, rows.jsonl, report.html and, if pyarrow is installed, rows.parquet.
        jobs: workers, each a process, by default 1; with `ray`, as many as the cluster has room for.
        threads: threads of each worker; by default the cores are shared out; with `ray`, 1.
        shard: "i/n" registers every n-th pair, so that n runs share the work; each has its own file of rows.
        ray: address of a Ray cluster whose nodes do the work: HOST:PORT, "auto", or "local" for one of this machine.
        ray_gpus: GPUs of each worker there, such as 0.25; by default 1 for the device cuda, else none.
        ray_memory: memory that each worker reserves there, in GB.
        retries: further attempts after a failure, unless the input was refused.
        time_limit: seconds for an attempt.
        keep: names of `OUTPUTS` to write, in addition to result.json.
        partial: let the pairs whose files are missing fail, instead of refusing to start.
        submission: "nifti" or "npz" also writes submission/, the fields of a Learn2Reg data set in that form.
        bids_names: link the outputs into bids/ by the names of a BIDS derivative data set, too.
        label_names: a JSON with the names of structures, for the reports; by default those of the data set.
        labels_use_image_grid: see `register_to_folder`.
        page: whether to write report.html; a shard writes none.
        command: the command line, for results and pages.
        progress: called with a line of text after each pair.
        method: "module:function" called instead of `register_pair`.
        **settings: single settings, see `corereg.register`.

    Raises:
        InputError: before the first pair, if the pairs, the settings or the folder cannot be used. A pair that fails
            later is a row.
    """
    config = with_register_options(RegisterConfig(), settings)
    read_thresholds(config.thresholds)
    _check_numbers(jobs, threads, retries, time_limit)
    cluster = _cluster(ray, ray_gpus, ray_memory, threads, config)
    progress = progress or (lambda line: None)
    part, kept, directory = Shard.parse(shard), check_names(keep), Path(directory)
    content = check_same_settings(directory, config, kept)
    source = pair_source(pairs, all_to=all_to, every_pair=every_pair, split=split)
    if bids_names:
        source = checked_names(source)
    made = pairs if all_to is None and not every_pair else "scans that are paired here"
    dataset = None if submission is None else check_submission(made, submission, split, part, kept)
    known = check_pairs(source, part, settings, partial=partial)
    crew = Crew(
        method=method,
        retries=retries,
        time_limit_s=time_limit,
        options={
            "keep": kept,
            "threads": cluster.cores if cluster else threads or max(1, usable_cores() // (jobs or 1)),
            "label_names": read_label_names(Path(label_names)) if label_names else known_label_names(pairs),
            "labels_use_image_grid": labels_use_image_grid,
            "command": command,
            "settings": dict(settings),
        },
    )
    with _team(crew, cluster, jobs) as team, output_folder(directory), locked(directory, part):
        remember_settings(directory, content)
        done = resume(directory, part, known)
        resumed = len(done & known.own)
        rows = directory / part.rows
        tasks = _tasks(source, part, done, directory) if resumed < len(known.own) else iter(())
        failed = _run(tasks, team, retries, rows, len(known.own), resumed, progress)
        if part.of == 1:
            write_parquet(directory)
            if page:
                progress("writing the page")
                _elsewhere("page", WRITE_PAGE, directory, rows, command)
            if bids_names:
                write_bids(directory, rows)
            if dataset is not None and failed:
                warnings.warn(
                    f"{number_of(failed, 'pair')} failed, so no submission was made of the others", stacklevel=2
                )
            elif dataset is not None:
                progress("writing the submission")
                _elsewhere("submission", WRITE_FIELDS, *dataset, directory, submission)
        verdicts = Counter(row["verdict"] for row in read_rows(rows) if row.get("verdict"))
    return Batch(directory, len(known.own), resumed, failed, rows, verdicts)


@contextmanager
def _team(crew: Crew, cluster: Cluster | None, jobs: int | None) -> Iterator[Team]:
    if cluster is None:
        yield ProcessTeam(crew, jobs or 1)
        return
    with connected(cluster):
        yield ActorTeam(crew, cluster, jobs)


def _run(
    tasks: Iterator[Task],
    team: Team,
    retries: int,
    path: Path,
    total: int,
    done: int,
    progress: Callable[[str], None],
) -> int:
    """Run the tasks and append a row for each; return the number of failures."""
    failed = 0
    with closing(RowFile(path)) as file, closing(run_tasks(tasks, team, retries=retries)) as outcomes:
        for task, outcome in outcomes:
            pair, ok = task.pair, outcome["status"] == OK
            file.append(
                {
                    "name": pair.name,
                    "key": pair.key(),
                    "fixed": str(pair.fixed),
                    "moving": str(pair.moving),
                    "attempts": task.attempt,
                    **outcome,
                }
            )
            done += ok
            failed += not ok
            words = f"{done} of {total} pairs done" + (f", {failed} failed" if failed else "")
            progress(Step(words, done + failed, total))
    return failed


def _tasks(source: Source, part: Shard, done: set[int], directory: Path) -> Iterator[Task]:
    for index, pair in enumerate(source()):
        if part.holds(index) and hash(pair.key()) not in done:
            yield Task(pair, directory / pair.name)


def _elsewhere(what: str, function: str, *arguments: object) -> None:
    """Write a page or a submission in a process of its own, for which the driver's libraries do not suffice."""
    with running(function, *arguments) as process:
        process.join()
    if process.exitcode:
        warnings.warn(f"the rows are complete, but no {what} could be made of them (see above)", stacklevel=3)


def _cluster(
    address: str | None, gpus: float | None, memory_gb: float | None, threads: int | None, config: RegisterConfig
) -> Cluster | None:
    for name, value in (("--ray-gpus", gpus), ("--ray-memory", memory_gb)):
        if value is not None and address is None:
            raise InputError(f"got {name} without --ray, expected the address of a cluster; add --ray")
        if value is not None and not 0 < value < math.inf:
            raise InputError(f"got {name} {value:g}, expected a positive number; correct it")
    if address is None:
        return None
    gpus = float(config.device == "cuda") if gpus is None else gpus
    return Cluster(address=address, cores=threads or 1, gpus=gpus, memory_gb=memory_gb)


def _check_numbers(jobs: int | None, threads: int | None, retries: int, time_limit: float | None) -> None:
    for name, value, least in (("jobs", jobs, 1), ("threads", threads, 1), ("retries", retries, 0)):
        if value is not None and value < least:
            raise InputError(f"got {value} {name}, expected at least {least}; correct it")
    if time_limit is not None and not 0 < time_limit < math.inf:
        raise InputError(f"got a time limit of {time_limit:g} s, expected a positive number of seconds; correct it")
