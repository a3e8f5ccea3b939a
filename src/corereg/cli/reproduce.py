"""`corereg reproduce`."""

from pathlib import Path
from typing import Annotated

import typer

from corereg.cli.common import command, command_line
from corereg.cli.evaluate import DatasetPath, SkipMissing
from corereg.cli.messages import log, progress_bar, show, show_result
from corereg.errors import InputError


@command
def reproduce(
    protocol: Annotated[str, typer.Argument(help="abdomen-ct or chest-ct.")],
    dataset: DatasetPath,
    out: Annotated[Path, typer.Option("-o", "--out", help="Output folder; rerun to resume.", show_default=False)],
    tables: Annotated[str, typer.Option(help="1 methods, 2 objectives, 3 views; e.g. 1,2,3.")] = "1",
    methods: Annotated[str, typer.Option(help="Other methods to score; see `corereg peers`.")] = "",
    peers: Annotated[Path | None, typer.Option(help="YAML file with your own commands as methods.")] = None,
    skip_missing: SkipMissing = False,
    budget: Annotated[float, typer.Option(help="Time limit per pair and method in seconds.")] = 600.0,
    threads: Annotated[int | None, typer.Option(help="Threads of each method; by default all cores.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="Training setting key=value; repeatable.")] = None,
    runs: Annotated[str, typer.Option(help="Only train these models, e.g. joint,registration; then stop.")] = "",
    device: Annotated[str, typer.Option(help="Where to train: auto, cpu, cuda or mps.")] = "auto",
    devices: Annotated[int, typer.Option(help="Processes or GPUs to train on.")] = 1,
    metadata: Annotated[Path | None, typer.Option(help="RAD-ChestCT's CSV of patients, if not in the folder.")] = None,
    labels: Annotated[
        Path | None, typer.Option(help="RAD-ChestCT: folder of TotalSegmentator's output, one entry per scan.")
    ] = None,
    totalsegmentator: Annotated[
        int | None, typer.Option(help="TotalSegmentator's version, 1 or 2, if it wrote label maps (--ml).")
    ] = None,
) -> None:
    """Train and score as the paper does, on its data, with the published numbers alongside.

    Takes two to three weeks for all tables on two CPU cores; docs/how-to/reproduce.md has times and memory.
    """
    import os

    from corereg.evaluation.benchmark.plan import Plan
    from corereg.settings import read_settings
    from corereg.workflows.reproduce import reproduce as run

    try:
        wanted = tuple(int(number) for number in tables.split(","))
    except ValueError:
        raise InputError(f"got --tables {tables}, expected numbers like 1,2,3; correct it") from None
    plan = Plan(
        methods=("corereg", *(name.strip() for name in methods.split(",") if name.strip())),
        templates=peers,
        skip_missing=skip_missing,
        budget_seconds=budget,
        threads=os.cpu_count() or 1 if threads is None else threads,
    )
    with progress_bar() as progress:
        report = run(
            protocol,
            dataset,
            out,
            tables=wanted,
            plan=plan,
            settings=read_settings(None, set_ or []),
            only=tuple(name.strip() for name in runs.split(",") if name.strip()),
            metadata=metadata,
            segmentations=labels,
            totalsegmentator=totalsegmentator,
            device=device,
            devices=devices,
            command=command_line(),
            progress=progress,
            log=lambda line: log(f"corereg: {line}"),
        )
    show(f"trained: {runs}" if report is None else report.read_text("utf-8"))
    show_result({"folder": out, "report": report, "trained": runs})
