"""`corereg evaluate`, `benchmark`, `peers` and `reproduce`: how good it is, and beside what."""

from pathlib import Path
from typing import Annotated, Any

import typer

from corereg.cli.common import app, command_line, progress_line, say
from corereg.errors import InputError

DatasetPath = Annotated[Path, typer.Argument(metavar="DATASET", help="Dataset JSON, its folder, or a CSV of pairs.")]
Part = Annotated[str | None, typer.Option("--pairs", help="validation or test; by default the test pairs if labelled.")]


@app.command()
def evaluate(
    dataset: DatasetPath,
    fields: Annotated[Path, typer.Argument(help="Folder of displacement fields named disp_<fixed>_<moving>.")],
    csv: Annotated[Path | None, typer.Option(help="Write one line for each pair.")] = None,
    json: Annotated[Path | None, typer.Option(help="Write everything.")] = None,
    partial: Annotated[bool, typer.Option("--partial", help="Score what is there, list what is not.")] = False,
    against: Annotated[Path | None, typer.Option(help="A second folder of fields to compare with.")] = None,
    pairs: Part = None,
    check: Annotated[bool, typer.Option(help="Look for mistaken units, axes and pairs.")] = True,
    submission: Annotated[Path | None, typer.Option(help="Write a challenge submission of FIELDS there.")] = None,
    submission_form: Annotated[str, typer.Option(help="nifti, or npz (half size: tasks of 2020, 2021).")] = "nifti",
    submission_names: Annotated[str, typer.Option(help="long, short or both.")] = "both",
) -> None:
    """Score displacement FIELDS on the pairs of a data set, by the formulas of the Learn2Reg challenge."""
    from corereg.evaluation.evaluate import evaluate as score
    from corereg.report.tables import evaluation_table, write_csv

    with progress_line() as progress:
        found = score(dataset, fields, against=against, part=pairs, partial=partial, check=check, progress=progress)
        if csv is not None:
            write_csv(csv, found.rows)
        if json is not None:
            found.write_json(json)
    _print(evaluation_table(found))
    for scored in (found, found.against):
        for name, reason in ({} if scored is None else scored.left_out).items():
            say(f"corereg: left out {name}: {reason}")
        for name, reason in ({} if scored is None else scored.suspicions).items():
            say(f"corereg: warning: the field of {name} is doubtful: {reason}")
    if submission is not None:
        from corereg.evaluation.submission import write_submission

        with progress_line() as progress:
            written = write_submission(
                dataset,
                fields,
                submission,
                form=submission_form,
                names=submission_names,
                part=pairs,
                progress=progress,
            )
        print(f"{submission}: {len(written)} files, read back and checked, and submission.zip")
    doubtful = len(found.suspicions) + (0 if found.against is None else len(found.against.suspicions))
    if doubtful:
        raise InputError(
            f"got {doubtful} doubtful fields (named above), expected displacements in voxels of the fixed grid (or ITK "
            "fields in millimetres) of the pairs that they are named after; correct them, or say --no-check"
        )


@app.command()
def benchmark(
    dataset: DatasetPath,
    out: Annotated[Path, typer.Option("-o", "--out", help="Output folder; run again to go on.", show_default=False)],
    methods: Annotated[str, typer.Option(help="Comma-separated names; see `corereg peers`.")] = (
        "corereg,ants-syn,elastix,greedy,convexadam"
    ),
    model: Annotated[list[str] | None, typer.Option(help="Model of corereg, a row each; may be repeated.")] = None,
    peers: Annotated[Path | None, typer.Option(help="YAML with your own commands as methods.")] = None,
    pairs: Part = None,
    affine: Annotated[str, typer.Option(help="none: as the scans lie; auto: each tool's own affine first.")] = "none",
    budget: Annotated[float, typer.Option(help="Seconds for each pair and method.")] = 600.0,
    threads: Annotated[int | None, typer.Option(help="For each method; by default all cores.")] = None,
    seed: Annotated[int, typer.Option(help="Of every method that takes one.")] = 1,
    match_sdlogj: Annotated[float | None, typer.Option(help="Tune R of corereg to it on validation pairs.")] = None,
    keep_fields: Annotated[bool, typer.Option("--keep-fields", help="Keep each displacement field.")] = False,
) -> None:
    """Run registration methods over the pairs of a data set; writes rows, a table, figures and a report."""
    import os

    from corereg.evaluation.benchmark.plan import Plan
    from corereg.evaluation.benchmark.run import benchmark as compare
    from corereg.report.cohort import write_benchmark
    from corereg.report.tables import benchmark_table

    if affine not in ("none", "auto"):
        raise InputError(f"got --affine {affine}, expected none or auto; choose one")
    plan = Plan(
        methods=tuple(name.strip() for name in methods.split(",") if name.strip()),
        models=tuple(model or ()),
        templates=peers,
        part=pairs,
        affine=affine,
        budget_seconds=budget,
        threads=threads or os.cpu_count() or 1,
        seed=seed,
        match_sdlogj=match_sdlogj,
        keep_fields=keep_fields,
    )
    with progress_line() as progress:
        found = compare(dataset, out, plan, command=command_line(), progress=progress)
        progress("writing")
        write_benchmark(found, out)
    _print(benchmark_table(found))
    for name, reason in found.skipped.items():
        say(f"corereg: skipped {name}: {reason}")
    for row in found.rows:
        if row["status"] != "ok":
            say(f"corereg: {row['method']} on {row['fixed']} <- {row['moving']}: {row['status']}")
    print(f"{out}: report.html, table.md, rows.csv, figures, provenance.json")


@app.command()
def peers(
    action: Annotated[str, typer.Argument(help="list or install.")] = "list",
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME]...", help="What to install.")] = None,
) -> None:
    """List the registration tools to compare with, or install some, each into an environment of its own."""
    from corereg.evaluation.benchmark.peers.catalogue import METHODS, UNAVAILABLE, find_method
    from corereg.evaluation.benchmark.peers.environments import install, is_installed, peers_folder

    if action not in ("list", "install"):
        raise InputError(f"got `corereg peers {action}`, expected list or install; choose one")
    if action == "install":
        if not names:
            raise InputError(f"got no name to install, expected some of {', '.join(METHODS)}; name them")
        wanted = [find_method(name) for name in names]
        for method in wanted:
            with progress_line() as progress:
                install(method, progress)
            print(f"{method.name}: installed")
        return
    for method in METHODS.values():
        state = "installed" if is_installed(method) else f"not installed: corereg peers install {method.name}"
        print(f"{method.name:12} {state}\n{'':12} {method.settings}")
    for name, reason in UNAVAILABLE.items():
        print(f"{name:12} no runner: {reason}")
    print(f"environments in {peers_folder()}")


@app.command()
def reproduce(
    protocol: Annotated[str, typer.Argument(help="abdomen-ct or chest-ct.")],
    dataset: DatasetPath,
    out: Annotated[Path, typer.Option("-o", "--out", help="Output folder; run again to go on.", show_default=False)],
    tables: Annotated[str, typer.Option(help="1 methods, 2 objectives, 3 views; e.g. 1,2,3.")] = "1",
    methods: Annotated[str, typer.Option(help="Others to score beside; see `corereg peers`.")] = "",
    budget: Annotated[float, typer.Option(help="Seconds for each pair and method.")] = 600.0,
    set_: Annotated[list[str] | None, typer.Option("--set", help="Setting of the training: key=value.")] = None,
) -> None:
    """Train and score as the paper does, on its data, and put the published numbers beside: days without a GPU."""
    import os

    from corereg.evaluation.benchmark.plan import Plan
    from corereg.training.config import parse_assignments
    from corereg.workflows.reproduce import reproduce as run

    try:
        wanted = tuple(int(number) for number in tables.split(","))
    except ValueError:
        raise InputError(f"got --tables {tables}, expected numbers like 1,2,3; correct it") from None
    plan = Plan(
        methods=("corereg", *(name.strip() for name in methods.split(",") if name.strip())),
        budget_seconds=budget,
        threads=os.cpu_count() or 1,
    )
    with progress_line() as progress:
        report = run(
            protocol,
            dataset,
            out,
            tables=wanted,
            plan=plan,
            settings=parse_assignments(set_ or []),
            command=command_line(),
            progress=progress,
        )
    print(report.read_text("utf-8"))


def _print(table: Any) -> None:
    """A rich table, as wide as the terminal; in a file or a pipe as wide as it needs to be."""
    from rich.console import Console

    console = Console()
    if not console.is_terminal:
        console = Console(width=200)
    console.print(table)
