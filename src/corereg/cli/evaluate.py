"""`corereg evaluate`, `benchmark` and `peers`: how good displacement fields are, and how registration tools compare."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from corereg.cli.common import command, command_line
from corereg.cli.messages import choose, elapsed, log, progress_bar, show, show_result
from corereg.errors import InputError

if TYPE_CHECKING:
    from corereg.evaluation.evaluate import Evaluation

STDOUT = Path("-")

DatasetPath = Annotated[Path, typer.Argument(metavar="DATASET", help="Dataset JSON, its folder, or a CSV of pairs.")]
Split = Annotated[
    str | None, typer.Option("--pairs", help="validation or test; by default the test pairs if they are labelled.")
]


SkipMissing = Annotated[
    bool,
    typer.Option("--skip-missing", help="Skip methods that are not installed instead of refusing to start."),
]


@command
def evaluate(
    dataset: DatasetPath,
    fields: Annotated[
        Path, typer.Argument(help="Folder or zip file of displacement fields named disp_<fixed>_<moving>.")
    ],
    csv: Annotated[Path | None, typer.Option(help="Write a CSV with one line per pair.")] = None,
    json: Annotated[Path | None, typer.Option(help="Write all results as JSON; without a name, on stdout.")] = None,
    partial: Annotated[
        bool, typer.Option("--partial", help="Score the fields that exist and list the others.")
    ] = False,
    against: Annotated[Path | None, typer.Option(help="Second folder of fields, to compare with.")] = None,
    pairs: Split = None,
    check: Annotated[bool, typer.Option(help="Look for mistaken units, axes and pairs.")] = True,
    submission: Annotated[Path | None, typer.Option(help="Folder for a challenge submission of FIELDS.")] = None,
    submission_form: Annotated[
        str, typer.Option(help="nifti, or npz (half size, for tasks of 2020 and 2021).")
    ] = "nifti",
    submission_names: Annotated[str, typer.Option(help="long, short or both.")] = "both",
    force: Annotated[
        bool,
        typer.Option("--force", help="Replace existing results; submit fields that change too much at half the size."),
    ] = False,
) -> None:
    """Score displacement FIELDS on the pairs of a data set by the formulas of the Learn2Reg challenge."""
    from corereg.evaluation.evaluate import evaluate as score
    from corereg.evaluation.submission import ARCHIVE, check_submission, write_submission
    from corereg.io.places import check_distinct, check_output, refuse_to_replace
    from corereg.report.tables import evaluation_table, write_csv

    if json == STDOUT:
        choose(json=True)
        json = None
    scored = [path for folder in (fields, against) if folder is not None for path in (folder, *folder.glob("disp_*"))]
    check_distinct([csv, json], [dataset, *scored])
    for path in (csv, json):
        if path is not None:
            check_output(path, force=force)
    if submission is not None:
        check_submission(submission, submission_form, submission_names)
        if not force:
            refuse_to_replace(submission, [ARCHIVE])
    with progress_bar() as progress:
        found = score(dataset, fields, against=against, split=pairs, partial=partial, check=check, progress=progress)
        if csv is not None:
            write_csv(csv, found.rows)
        if json is not None:
            found.write_json(json)
    show(evaluation_table(found))
    show_result(found.as_dict)
    doubtful = sum(_log_doubts(scored) for scored in (found, found.against) if scored is not None)
    if submission is not None:
        with progress_bar() as progress:
            written = write_submission(
                dataset,
                fields,
                submission,
                form=submission_form,
                names=submission_names,
                split=pairs,
                force=force,
                progress=progress,
            )
        show(f"{submission}: submission.zip and {len(written)} files, read back and checked")
    if doubtful:
        raise InputError(
            f"{doubtful} fields (named above) are doubtful, expected displacements of the pairs that they are named "
            "after, in voxels of the fixed grid (or ITK fields in millimetres); correct them, or use --no-check"
        )


@command
def benchmark(
    dataset: DatasetPath,
    out: Annotated[Path, typer.Option("-o", "--out", help="Output folder; rerun to resume.", show_default=False)],
    methods: Annotated[str, typer.Option(help="Comma-separated names; see `corereg peers`.")] = (
        "corereg,ants-syn,elastix,greedy,convexadam"
    ),
    model: Annotated[list[str] | None, typer.Option(help="Model of corereg, one row each; may be repeated.")] = None,
    peers: Annotated[Path | None, typer.Option(help="YAML file with your own commands as methods.")] = None,
    skip_missing: SkipMissing = False,
    pairs: Split = None,
    affine: Annotated[
        str, typer.Option(help="none: start from the headers; auto: each tool's affine step first.")
    ] = "none",
    budget: Annotated[float, typer.Option(help="Time limit per pair and method in seconds.")] = 600.0,
    threads: Annotated[int | None, typer.Option(help="Threads of each method; by default all cores.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of every method that takes one.")] = 1,
    match_sdlogj: Annotated[
        float | None, typer.Option(help="SDlogJ to tune corereg's R to on validation pairs.")
    ] = None,
    keep_fields: Annotated[bool, typer.Option("--keep-fields", help="Keep the displacement fields.")] = False,
) -> None:
    """Run registration methods on the pairs of a data set; writes rows, a table, figures and a report."""
    import os

    from corereg.evaluation.benchmark.plan import Plan
    from corereg.evaluation.benchmark.run import benchmark as compare
    from corereg.progress import duration
    from corereg.report.cohort import write_benchmark
    from corereg.report.tables import benchmark_table

    plan = Plan(
        methods=tuple(name.strip() for name in methods.split(",") if name.strip()),
        models=tuple(model or ()),
        templates=peers,
        skip_missing=skip_missing,
        split=pairs,
        affine=affine,
        budget_seconds=budget,
        threads=os.cpu_count() or 1 if threads is None else threads,
        seed=seed,
        match_sdlogj=match_sdlogj,
        keep_fields=keep_fields,
    )
    with progress_bar() as progress:
        found = compare(dataset, out, plan, command=command_line(), progress=progress)
        progress("writing")
        write_benchmark(found, out)
    show(benchmark_table(found))
    for name, reason in found.skipped.items():
        log(f"corereg: skipped {name}: {reason}")
    for row in found.rows:
        if row["status"] != "ok":
            log(f"corereg: {row['method']} on {row['fixed']} <- {row['moving']}: {row['status']}")
    show(f"{out}: report.html, table.md, rows.csv, figures, provenance.json; {duration(elapsed())}")
    show_result({"folder": out, "skipped": found.skipped, "rows": found.rows})


@command
def peers(
    action: Annotated[str, typer.Argument(help="list or install.")] = "list",
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME]...", help="Tools to install.")] = None,
) -> None:
    """List the registration tools to compare with, or install some, each into its own environment."""
    from corereg.evaluation.benchmark.peers.catalogue import METHODS, UNAVAILABLE, find_method
    from corereg.evaluation.benchmark.peers.environments import install, is_installed, peers_folder

    if action not in ("list", "install"):
        raise InputError(f"got `corereg peers {action}`, expected list or install; choose one")
    if action == "install":
        if not names:
            raise InputError(f"got no tool to install, expected some of {', '.join(METHODS)}; name them")
        wanted = [find_method(name) for name in names]
        for method in wanted:
            with progress_bar() as progress:
                install(method, progress)
            show(f"{method.name}: installed")
        show_result({"installed": names})
        return
    for method in METHODS.values():
        state = "installed" if is_installed(method) else f"not installed: corereg peers install {method.name}"
        show(f"{method.name:12} {state}\n{'':12} {method.settings}")
    for name, reason in UNAVAILABLE.items():
        show(f"{name:12} no runner: {reason}")
    show(f"environments in {peers_folder()}")
    show_result(
        {
            "methods": {m.name: {"installed": is_installed(m), "settings": m.settings} for m in METHODS.values()},
            "unavailable": UNAVAILABLE,
            "environments": peers_folder(),
        }
    )


def _log_doubts(scored: "Evaluation") -> int:
    """Name the fields that were left out and those that are doubtful; return the number of the latter."""
    for name, reason in scored.left_out.items():
        log(f"corereg: left out {name}: {reason}")
    for name, reason in scored.suspicions.items():
        log(f"corereg: warning: the field of {name} is doubtful: {reason}", always=True)
    return len(scored.suspicions)
