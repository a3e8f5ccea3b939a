"""`corereg register`. The options of the method's settings come from `method/config.py`."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from corereg.cli.common import Out, app, command_line, log, progress_line
from corereg.method.config import register_options, with_keywords
from corereg.settings import Setting, allowed
from corereg.workflows.outputs import OUTPUTS

__all__ = ["with_settings"]


def _option(setting: Setting) -> Any:
    """The option of a setting. Values stay texts: they are checked where those of YAML files are."""
    option = typer.Option(
        setting.flag,
        help=f"{setting.meaning} One of {allowed(setting.hint)}." if setting.kind is Literal else setting.meaning,
        metavar={int: "<int>", float: "<float>"}.get(setting.kind),
        show_default=False if setting.default is None else str(setting.default),
    )
    return Annotated[bool | None if setting.kind is bool else str | None, option]


def with_settings(command: Any) -> Any:
    """Give a command that ends in `**settings` the options of the method's settings."""
    return with_keywords(command, {setting.name: (_option(setting), None) for setting in register_options()})


@app.command()
@with_settings
def register(
    fixed: Annotated[Path, typer.Argument(help="Image that defines the output grid: a file or a DICOM folder.")],
    moving: Annotated[Path, typer.Argument(help="Image that is resampled onto it.")],
    out: Out,
    fixed_mask: Annotated[Path | None, typer.Option(help="Mask: only what lies inside counts.")] = None,
    moving_mask: Annotated[Path | None, typer.Option(help="The same for the moving image.")] = None,
    moving_labels: Annotated[Path | None, typer.Option(help="Label map to warp as well.")] = None,
    fixed_labels: Annotated[Path | None, typer.Option(help="Label map to compare it with.")] = None,
    labels_use_image_grid: Annotated[
        bool, typer.Option("--labels-use-image-grid", help="Trust the image's header where its label map's differs.")
    ] = False,
    fixed_series: Annotated[str | None, typer.Option(help="Series Instance UID, if FIXED is a DICOM folder.")] = None,
    moving_series: Annotated[str | None, typer.Option(help="The same for the moving image.")] = None,
    report: Annotated[bool, typer.Option(help="Write report.html.")] = True,
    threads: Annotated[int | None, typer.Option(help="Threads to compute with; by default all cores.")] = None,
    **settings: Any,
) -> None:
    """Register MOVING onto FIXED; writes warped image, transforms, numbers and a report into a folder."""
    from corereg.workflows.register import register_to_folder

    with progress_line() as progress:
        result = register_to_folder(
            fixed,
            moving,
            out,
            fixed_labels=fixed_labels,
            moving_labels=moving_labels,
            fixed_mask=fixed_mask,
            moving_mask=moving_mask,
            labels_use_image_grid=labels_use_image_grid,
            fixed_series=fixed_series,
            moving_series=moving_series,
            keep=[name for name in OUTPUTS if report or name != "report"],
            threads=threads,
            command=command_line(),
            progress=progress,
            **settings,
        )
    for remark in (*result.fixed.remarks, *result.moving.remarks):
        log(f"corereg: {remark}")
    modalities = " and ".join(dict.fromkeys(each.modality.upper() for each in result.intensities))
    print(
        f"{out}: {modalities}, SDlogJ {result.metrics['sdlogj']:.3f}, folds {result.metrics['fold_percent']:.3f} %, "
        f"inverse error {result.inverse_error.mean:.2f} mm (mean), {sum(result.seconds.values()):.1f} s"
    )
