"""`corereg calibrate`. The options of the method's settings are those of `register`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from corereg.cli.common import AllTo, EveryPair, Force, Split, command, command_line
from corereg.cli.messages import log, progress_bar, show, show_result
from corereg.cli.register import with_settings


@command
@with_settings
def calibrate(
    pairs: Annotated[Path, typer.Argument(help="Right pairs, as `corereg batch` takes them, or a finished batch.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="JSON for --thresholds.", show_default=False)],
    false_alarms: Annotated[float, typer.Option(help='Share of right pairs that may get the verdict "fail".')] = 0.05,
    directory: Annotated[
        Path | None,
        typer.Option("--batch", help="Folder in which PAIRS are registered, kept to resume; by default none is kept."),
    ] = None,
    all_to: AllTo = None,
    every_pair: EveryPair = False,
    split: Split = None,
    jobs: Annotated[int | None, typer.Option(help="Workers; each takes the memory of a registration.")] = None,
    threads: Annotated[
        int | None, typer.Option(help="Threads of each worker; by default the cores are shared out.")
    ] = None,
    force: Force = False,
    **settings: Any,
) -> None:
    """Learn from right PAIRS at which values the verdict on such scans should warn and fail."""
    from corereg.method.quality.thresholds import SHIPPED
    from corereg.workflows.calibrate import calibrate as run

    with progress_bar() as progress:
        found = run(
            pairs,
            out,
            false_alarms=false_alarms,
            directory=directory,
            jobs=jobs,
            threads=threads,
            all_to=all_to,
            every_pair=every_pair,
            split=split,
            force=force,
            command=command_line(),
            progress=progress,
            **settings,
        )
    for name, each in found.thresholds.items():
        board = SHIPPED[name]
        log(
            f"corereg: {name}: warn above {each.warn:.3g}, fail above {each.fail:.3g} "
            f"(on board {board.warn:g} and {board.fail:g})"
        )
    show(
        f"{out}: from {found.pairs} right pairs, of which {found.failed} fail and {found.warned} warn; at most "
        f"{found.false_alarms_at_most:.1%} false alarms"
    )
    show_result(
        {
            "file": out,
            "pairs": found.pairs,
            "failed": found.failed,
            "warned": found.warned,
            "false_alarms_at_most": found.false_alarms_at_most,
            "thresholds": {name: each._asdict() for name, each in found.thresholds.items()},
        }
    )
