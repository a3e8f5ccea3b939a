"""`corereg phantom`, `demo`, `warmup` and `info`: synthetic data, a tour of the package, its caches and versions."""

import time
from pathlib import Path
from typing import Annotated

import typer

from corereg.cli.common import command, command_line
from corereg.cli.messages import progress_bar, show, show_result


@command
def phantom(
    directory: Annotated[Path, typer.Argument(help="Folder to create, a Learn2Reg data set.")],
    subjects: Annotated[int, typer.Option(help="Number of patients.")] = 6,
    kind: Annotated[str, typer.Option(help="abdomen or chest.")] = "abdomen",
    spacing: Annotated[float, typer.Option(help="Voxel size in mm.")] = 3.0,
    seed: Annotated[int, typer.Option(help="Same seed, same cohort.")] = 0,
) -> None:
    """Make a labelled synthetic torso cohort with breathing pairs of exactly known motion."""
    from corereg.data.phantom import write_cohort
    from corereg.progress import Step

    with progress_bar() as progress:

        def made(done: int, total: int) -> None:
            progress(Step(f"{done} of {total} patients and pairs made", done, total))

        made(0, subjects)
        path = write_cohort(directory, subjects=subjects, kind=kind, spacing_mm=spacing, seed=seed, progress=made)
    show(str(path))
    show_result({"dataset": path})


@command
def demo(out: Annotated[Path, typer.Option("-o", "--out", help="Output folder.")] = Path("out/demo")) -> None:
    """Make phantom patients, register, evaluate, report and train, in a few minutes on a laptop."""
    from corereg.workflows.demo import run_demo

    with progress_bar(inner=True) as progress:
        lines = run_demo(out, command=command_line(), progress=progress)
    show("\n".join(lines))
    show_result({"folder": out, "lines": lines})


@command
def warmup() -> None:
    """Compile all kernels once, for images and nodes, by registering small phantoms; takes a few minutes."""
    from corereg.workflows.warmup import warm_up

    started = time.monotonic()
    with progress_bar() as progress:
        place = warm_up(progress)
    seconds = time.monotonic() - started
    show(f"kernels compiled in {seconds:.0f} s and kept in {place}")
    show_result({"seconds": seconds, "place": place})


@command
def info() -> None:
    """Print versions, devices and available models."""
    from corereg.workflows.info import describe, facts

    show(describe())
    show_result(facts)
