"""`corereg register`. The options of the method's settings come from `method/config.py`."""

from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from corereg.cli.common import Force, Out, Strict, command, command_line
from corereg.cli.deferred import light_imports
from corereg.cli.endings import BAD_VERDICT
from corereg.cli.messages import elapsed, log, progress_bar, show, show_result
from corereg.method.config import MODELS, register_options, with_keywords
from corereg.method.quality.quality import FAIL, WARN
from corereg.settings import Setting, allowed, kinds_in
from corereg.workflows.outputs import DEFAULT_OUTPUTS, OUTPUTS, RESULT

__all__ = ["with_settings"]


def _option(setting: Setting) -> Any:
    """The option of a setting. Values stay texts: they are checked where those of YAML files are."""
    choices = [kind for kind in kinds_in(setting.hint) if isinstance(kind, str)]
    default = None if setting.kind is bool else setting.default
    expected = f"one of {allowed(setting.hint)}" if setting.kind is Literal else allowed(setting.hint)
    option = typer.Option(
        setting.flag,
        help=setting.meaning
        + (f" {expected.capitalize()}." if choices else "")
        + ("" if default is None else f" Default: {default}."),
        metavar={int: "<int>", float: "<float>"}.get(setting.kind),
        show_default=False,
        rich_help_panel="Settings",
        autocompletion=_completion(MODELS if setting.name == "model" else choices),
    )
    return Annotated[bool | None if setting.kind is bool else str | None, option]


def _completion(words: Iterable[str]) -> Callable[[str], list[str]]:
    """Complete one of these words in the shell."""

    def complete(incomplete: str) -> list[str]:
        return [word for word in words if word.startswith(incomplete)]

    return complete


@cache
def _options() -> dict[str, tuple[Any, None]]:
    return {setting.name: (_option(setting), None) for setting in register_options()}


def with_settings(command: Any) -> Any:
    """Give a command that ends in `**settings` the options of the method's settings."""
    return with_keywords(command, _options())


@command
@with_settings
def register(
    fixed: Annotated[Path, typer.Argument(help="Image that defines the output grid: a file or a DICOM folder.")],
    moving: Annotated[Path, typer.Argument(help="Image that is resampled onto it.")],
    out: Out,
    fixed_mask: Annotated[Path | None, typer.Option(help="Mask: only what lies inside counts.")] = None,
    moving_mask: Annotated[Path | None, typer.Option(help="The same for the moving image.")] = None,
    initial: Annotated[
        Path | None, typer.Option(help="Transform to start from, in any format that `corereg convert` reads.")
    ] = None,
    moving_labels: Annotated[Path | None, typer.Option(help="Label map to warp as well.")] = None,
    fixed_labels: Annotated[Path | None, typer.Option(help="Label map to compare it with.")] = None,
    fixed_points: Annotated[
        Path | None,
        typer.Option(help="Landmarks, .csv, .fcsv or .mrk.json; with --moving-points. They guide and measure."),
    ] = None,
    moving_points: Annotated[Path | None, typer.Option(help="Their partners, in the same order.")] = None,
    rigid_labels: Annotated[
        Path | None, typer.Option(help="Label map of FIXED whose structures must not deform: bones, a tumour.")
    ] = None,
    more_fixed: Annotated[
        list[Path] | None,
        typer.Option("--fixed", help="Further image of the fixed side, such as T2 with T1; each with a --moving."),
    ] = None,
    more_moving: Annotated[
        list[Path] | None, typer.Option("--moving", help="The same for the moving side, in the same order.")
    ] = None,
    label_names: Annotated[
        Path | None, typer.Option(help='JSON with the names of the structures, such as {"1": "liver"}.')
    ] = None,
    labels_use_image_grid: Annotated[
        bool,
        typer.Option("--labels-use-image-grid", help="Trust the image's header where its label map's differs."),
    ] = False,
    fixed_series: Annotated[str | None, typer.Option(help="Series Instance UID, if FIXED is a DICOM folder.")] = None,
    moving_series: Annotated[str | None, typer.Option(help="The same for the moving image.")] = None,
    report: Annotated[bool, typer.Option(help="Write report.html.")] = True,
    threads: Annotated[int | None, typer.Option(help="Threads to compute with; by default all cores.")] = None,
    force: Force = False,
    strict: Strict = False,
    **settings: Any,
) -> None:
    """Register MOVING onto FIXED; writes warped image, transforms, numbers and a report into a folder."""
    with light_imports():
        from corereg.io.json_files import load_json
        from corereg.method.wording import affine_words, grid_words, metric_words, modality_words
        from corereg.workflows.register import register_to_folder

    with progress_bar(inner=True) as progress:
        result = register_to_folder(
            fixed,
            moving,
            out,
            fixed_labels=fixed_labels,
            moving_labels=moving_labels,
            fixed_mask=fixed_mask,
            moving_mask=moving_mask,
            initial=initial,
            fixed_points=fixed_points,
            moving_points=moving_points,
            rigid_labels=rigid_labels,
            fixed_channels=more_fixed or (),
            moving_channels=more_moving or (),
            label_names=label_names,
            labels_use_image_grid=labels_use_image_grid,
            fixed_series=fixed_series,
            moving_series=moving_series,
            keep=[name for name in DEFAULT_OUTPUTS if report or name != "report"],
            threads=threads,
            force=force,
            command=command_line(),
            progress=progress,
            **settings,
        )
    for remark in (*result.fixed.remarks, *result.moving.remarks):
        log(f"corereg: {remark}")
    if result.quality.verdict == WARN:  # a failure has been warned of
        log(f"corereg: look at this pair: {'; '.join(result.quality.reasons)}")
    done = f"{modality_words(result.intensities)}, affine {affine_words(result.alignment)}"
    grid, measured = grid_words(result.refined.grid), metric_words(result.metrics)
    shown, verdict = out / OUTPUTS["report"] if report else out, result.quality.verdict
    show(f"{shown}: {verdict.upper()}, {done}, grid {grid}, {measured}, {elapsed():.1f} s")
    show_result(lambda: load_json(out / RESULT))
    if strict and verdict == FAIL:
        raise typer.Exit(BAD_VERDICT)
