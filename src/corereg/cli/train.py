"""`corereg train`."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from corereg.cli.common import Command, Out, command
from corereg.cli.messages import elapsed, log, progress_bar, show, show_result

LABELS, LISTED = "--labels", "listed"


class _Train(Command):
    """A command whose option --labels may stand without a value, for the maps that the data set lists."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        for place in [n for n, argument in enumerate(args) if argument == LABELS]:
            if place + 1 == len(args) or args[place + 1].startswith("-"):
                args = [*args[: place + 1], LISTED, *args[place + 1 :]]
                break
        return super().parse_args(ctx, args)


@partial(command, cls=_Train)
def train(
    dataset: Annotated[
        Path, typer.Argument(help="Learn2Reg JSON, nnU-Net or RAD-ChestCT folder, folder of images, or CSV of pairs.")
    ],
    out: Out,
    recipe: Annotated[
        str,
        typer.Option(
            help="default, abdomen-ct, any-contrast, chest-ct, head-neck-ct, head-neck-ct-labels, lumir, nlst, "
            "thorax-cbct or tiny."
        ),
    ] = "default",
    config: Annotated[Path | None, typer.Option(help="YAML file of settings, on top of the recipe.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="Setting key=value; may be repeated.")] = None,
    labels: Annotated[
        str | None,
        typer.Option(
            LABELS,
            help="Learn from label maps too: those in this folder, named like their scans, or without a folder those "
            "that the data set lists.",
            metavar="<folder>",
        ),
    ] = None,
    val_fraction: Annotated[
        float | None, typer.Option(help="Share of the training scans to validate on instead, if none are listed.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue from the checkpoint in the folder.")] = False,
    more_stages: Annotated[int, typer.Option(help="Cycles to add to a finished run.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    devices: Annotated[int, typer.Option(help="Processes or GPUs per node.")] = 1,
    nodes: Annotated[int, typer.Option(help="Number of nodes; Slurm and torchrun environments are understood.")] = 1,
    cache: Annotated[Path | None, typer.Option(help="Folder of prepared scans that several runs can share.")] = None,
    metadata: Annotated[Path | None, typer.Option(help="RAD-ChestCT's CSV of patients, if not in the folder.")] = None,
    logger: Annotated[str | None, typer.Option(help="Also log to tensorboard, wandb, mlflow or csv.")] = None,
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="The same as --logger tensorboard.")] = False,
    show_config: Annotated[bool, typer.Option("--show-config", help="Print the settings and stop.")] = False,
) -> None:
    """Train on scans, unlabelled or with --labels; writes a run folder with model.safetensors for --model."""
    from corereg.errors import Interrupted
    from corereg.progress import duration
    from corereg.settings import read_settings, with_settings
    from corereg.training.recipes import get_recipe
    from corereg.training.train import train as train_model

    settings = read_settings(config, set_ or [])
    if val_fraction is not None:
        settings["val_fraction"] = val_fraction
    if show_config:
        from corereg.training.config_file import commented_yaml

        print(commented_yaml(with_settings(get_recipe(recipe), settings)), end="")
        return
    try:
        with progress_bar() as progress:
            result = train_model(
                dataset,
                out,
                recipe=recipe,
                settings=settings,
                labels=labels == LISTED or labels or False,
                resume=resume,
                more_stages=more_stages,
                device=device,
                devices=devices,
                nodes=nodes,
                cache=cache,
                metadata=metadata,
                logger=logger or ("tensorboard" if tensorboard else None),
                progress=progress,
                log=log,
            )
    except Interrupted as stopped:
        log(
            f"corereg: stopped; the checkpoint is written. Resume with: corereg train {dataset} -o {out} --resume",
            always=True,
        )
        raise typer.Exit(stopped.exit_status) from None
    if result.best:
        show(f"{result.best}: after cycle {result.best_cycle}, which measured best{_figures(result.best_metrics)}")
    show(f"{result.model}: after the last cycle{_figures(result.metrics)}, {duration(elapsed())}")
    show_result(
        {
            "folder": result.folder,
            "model": result.model,
            "metrics": dict(result.metrics),
            "best": result.best,
            "best_cycle": result.best_cycle,
            "best_metrics": dict(result.best_metrics),
        }
    )


def _figures(metrics: Mapping[str, float]) -> str:
    return "".join(f", {key} {value:.4g}" for key, value in metrics.items() if value is not None)
