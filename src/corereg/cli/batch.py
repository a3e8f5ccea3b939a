"""`corereg batch`. The options of the method's settings are those of `register`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from corereg.cli.common import AllTo, EveryPair, Split, Strict, command, command_line
from corereg.cli.endings import BAD_VERDICT, FAILURE
from corereg.cli.messages import log, progress_bar, show, show_result
from corereg.cli.register import with_settings
from corereg.errors import number_of
from corereg.method.quality.quality import FAIL, VERDICTS
from corereg.workflows.outputs import DEFAULT_OUTPUTS


@command
@with_settings
def batch(
    pairs: Annotated[
        Path, typer.Argument(help="CSV, JSON or JSON lines with fixed and moving, a data set, or scans to pair.")
    ],
    out: Annotated[Path, typer.Option("-o", "--out", help="Output folder; rerun to resume.", show_default=False)],
    all_to: AllTo = None,
    every_pair: EveryPair = False,
    split: Split = None,
    partial: Annotated[
        bool,
        typer.Option("--partial", help="Let pairs with missing files fail instead of refusing to start."),
    ] = False,
    jobs: Annotated[
        int | None,
        typer.Option(help="Workers; each takes the memory of a registration. By default 1; on Ray, all that fit."),
    ] = None,
    threads: Annotated[
        int | None, typer.Option(help="Threads of each worker; by default the cores are shared out; on Ray, 1.")
    ] = None,
    shard: Annotated[str | None, typer.Option(metavar="I/N", help="Only every N-th pair, from the I-th.")] = None,
    ray: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="Work on a Ray cluster: HOST:PORT, auto, or local for this machine."),
    ] = None,
    ray_gpus: Annotated[float | None, typer.Option(help="GPUs of each worker there, such as 0.25.")] = None,
    ray_memory: Annotated[float | None, typer.Option(help="Memory that each worker reserves there, in GB.")] = None,
    retries: Annotated[int, typer.Option(help="Further attempts at a pair that fails.")] = 1,
    time_limit: Annotated[float | None, typer.Option(help="Seconds for an attempt at a pair.")] = None,
    keep: Annotated[
        str,
        typer.Option(help="Comma-separated outputs to write, next to result.json; compact: the transform as npz."),
    ] = ",".join(DEFAULT_OUTPUTS),
    submission: Annotated[
        str | None,
        typer.Option(metavar="FORM", help="Write a Learn2Reg submission too: nifti, or npz of half the size."),
    ] = None,
    bids_names: Annotated[
        bool, typer.Option("--bids-names", help="Link the outputs into bids/, a BIDS derivative data set, too.")
    ] = False,
    label_names: Annotated[
        Path | None,
        typer.Option(help="JSON with the names of the structures, for the reports; by default those of the data set."),
    ] = None,
    labels_use_image_grid: Annotated[
        bool,
        typer.Option("--labels-use-image-grid", help="Trust the images' headers where label maps' differ."),
    ] = False,
    page: Annotated[bool, typer.Option(help="Write report.html, the page about all pairs.")] = True,
    strict: Strict = False,
    **settings: Any,
) -> None:
    """Register many pairs, each into its own folder; a row of numbers for each. A failure stops no other pair."""
    from corereg.workflows.batch.run import batch as register_all

    with progress_bar() as progress:
        found = register_all(
            pairs,
            out,
            all_to=all_to,
            every_pair=every_pair,
            split=split,
            partial=partial,
            jobs=jobs,
            threads=threads,
            shard=shard,
            ray=ray,
            ray_gpus=ray_gpus,
            ray_memory=ray_memory,
            retries=retries,
            time_limit=time_limit,
            keep=keep,
            submission=submission,
            bids_names=bids_names,
            label_names=label_names,
            labels_use_image_grid=labels_use_image_grid,
            page=page,
            command=command_line(),
            progress=progress,
            **settings,
        )
    resumed = f", {found.resumed} of them by an earlier run" if found.resumed else ""
    judged = "".join(f", {found.verdicts[verdict]} {verdict}" for verdict in VERDICTS if found.verdicts.get(verdict))
    show(f"{found.rows}: {found.pairs - found.failed} of {found.pairs} pairs registered{resumed}{judged}")
    show_result(
        {
            "folder": found.directory,
            "rows": found.rows,
            "pairs": found.pairs,
            "resumed": found.resumed,
            "failed": found.failed,
            "verdicts": dict(found.verdicts),
        }
    )
    if found.failed:
        failed = number_of(found.failed, "pair")
        log(f"corereg: {failed} failed, as `error` in their rows says; rerun to try them again", always=True)
        raise typer.Exit(FAILURE)
    if strict and found.verdicts.get(FAIL):
        raise typer.Exit(BAD_VERDICT)
