"""`corereg train`."""

from pathlib import Path
from typing import Annotated

import typer

from corereg.cli.common import Out, app, progress_line, say

INTERRUPTED = 143


@app.command()
def train(
    dataset: Annotated[
        Path, typer.Argument(help="Learn2Reg JSON, nnU-Net or RAD-ChestCT folder, folder of images, or CSV of pairs.")
    ],
    out: Out,
    recipe: Annotated[str, typer.Option(help="default, abdomen-ct, chest-ct, head-neck-ct or tiny.")] = "default",
    config: Annotated[Path | None, typer.Option(help="YAML file of settings, on top of the recipe.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="One setting: key=value; may be repeated.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the folder's checkpoint.")] = False,
    more_stages: Annotated[int, typer.Option(help="Add so many cycles to a finished run.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    devices: Annotated[int, typer.Option(help="Processes, or GPUs, on each node.")] = 1,
    nodes: Annotated[int, typer.Option(help="Nodes; Slurm's and torchrun's environments are understood.")] = 1,
    cache: Annotated[Path | None, typer.Option(help="Folder of the prepared scans, for several runs.")] = None,
    metadata: Annotated[Path | None, typer.Option(help="RAD-ChestCT: CSV of patients.")] = None,
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Also write event files.")] = False,
    show_config: Annotated[bool, typer.Option("--show-config", help="Print the settings and stop.")] = False,
) -> None:
    """Train CoRe on unlabelled scans; writes a run folder with model.safetensors for --model."""
    from corereg.training.config import as_settings, parse_assignments, read_settings, with_settings
    from corereg.training.loop import Interrupted
    from corereg.training.recipes import get_recipe
    from corereg.training.train import train as train_model

    settings = (read_settings(config) if config else {}) | parse_assignments(set_ or [])
    if show_config:
        import yaml

        print(yaml.safe_dump(as_settings(with_settings(get_recipe(recipe), settings)), sort_keys=False), end="")
        return
    try:
        with progress_line() as progress:
            result = train_model(
                dataset,
                out,
                recipe=recipe,
                settings=settings,
                resume=resume,
                more_stages=more_stages,
                device=device,
                devices=devices,
                nodes=nodes,
                cache=cache,
                metadata=metadata,
                tensorboard=tensorboard,
                progress=progress,
                log=say,
            )
    except Interrupted:
        say(f"corereg: asked to stop; the checkpoint is written: go on with corereg train {dataset} -o {out} --resume")
        raise typer.Exit(INTERRUPTED) from None
    figures = ", ".join(f"{key} {value:.4g}" for key, value in result.metrics.items())
    print(f"{result.model}: {figures}")
