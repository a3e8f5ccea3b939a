"""`corereg register`."""

from pathlib import Path
from typing import Annotated

import typer

from corereg.cli.common import Out, app, command_line, progress_line
from corereg.errors import InputError


@app.command()
def register(
    fixed: Annotated[Path, typer.Argument(help="Image that defines the output grid: a file or a DICOM folder.")],
    moving: Annotated[Path, typer.Argument(help="Image that is resampled onto it.")],
    out: Out,
    model: Annotated[str | None, typer.Option(help="mind, random, or a .safetensors file.")] = None,
    modality: Annotated[str, typer.Option(help="auto, ct, ct-abdomen or mr.")] = "auto",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    precision: Annotated[str, typer.Option(help="Of the network: auto, fp32, bf16 or fp16.")] = "auto",
    memory: Annotated[
        float | None, typer.Option(help="Largest memory to plan for, GB; by default what is free.")
    ] = None,
    affine: Annotated[str, typer.Option(help="auto, or none to trust the headers.")] = "auto",
    spacing: Annotated[float | None, typer.Option(help="Of the working grid, mm; by default from the scans.")] = None,
    passes: Annotated[str | None, typer.Option(help="Strides of the coarse passes, e.g. 8,4 or 8,8.")] = None,
    refine: Annotated[
        str, typer.Option(help="default, or paper: as published (8,8; 50 steps, rate 1, R 1).")
    ] = "default",
    refine_steps: Annotated[int | None, typer.Option(help="Steps of the instance optimisation; 0 skips it.")] = None,
    regularisation: Annotated[float | None, typer.Option(help="R: larger is smoother.")] = None,
    volume_preservation: Annotated[
        float | None, typer.Option(help="Weight of volume change beside R (default 1); 0 as in the paper.")
    ] = None,
    target_sdlogj: Annotated[float | None, typer.Option(help="Search R for this SDlogJ.")] = None,
    symmetric: Annotated[
        bool | None,
        typer.Option("--symmetric/--one-way", help="Both ways at once (default): next to no folds, twice the time."),
    ] = None,
    fine: Annotated[
        bool | None,
        typer.Option("--fine/--no-fine", help="Refine on the full grid too; by default up to 2 million voxels."),
    ] = None,
    parametrisation: Annotated[
        str | None, typer.Option(help="displacement (default), or diffeomorphic: a flow, which cannot fold.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Same seed, same result.")] = 0,
    fixed_mask: Annotated[Path | None, typer.Option(help="Only what lies inside counts.")] = None,
    moving_mask: Annotated[Path | None, typer.Option(help="The same for the moving image.")] = None,
    moving_labels: Annotated[Path | None, typer.Option(help="Label map to warp as well.")] = None,
    fixed_labels: Annotated[Path | None, typer.Option(help="Label map to compare it with.")] = None,
    report: Annotated[bool, typer.Option(help="Write report.html.")] = True,
) -> None:
    """Register MOVING onto FIXED; writes warped image, transforms, numbers and a report into a folder."""
    if regularisation is not None and target_sdlogj is not None:
        raise InputError("got --regularisation and --target-sdlogj, expected one of them; the target searches R itself")
    from corereg.workflows.register import register_to_folder

    with progress_line() as progress:
        result = register_to_folder(
            fixed,
            moving,
            out,
            fixed_labels=fixed_labels,
            moving_labels=moving_labels,
            report=report,
            command=command_line(),
            progress=progress,
            model=model,
            modality=modality,
            device=device,
            precision=precision,
            memory=memory,
            affine=affine,
            spacing=spacing,
            passes=None if passes is None else _strides(passes),
            refine=refine,
            refine_steps=refine_steps,
            regularisation=regularisation,
            volume_preservation=volume_preservation,
            target_sdlogj=target_sdlogj,
            symmetric=symmetric,
            fine=fine,
            parametrisation=parametrisation,
            seed=seed,
            fixed_mask=fixed_mask,
            moving_mask=moving_mask,
        )
    print(
        f"{out}: SDlogJ {result.metrics['sdlogj']:.3f}, folds {result.metrics['fold_percent']:.3f} %, "
        f"inverse error {result.inverse_error.mean:.2f} mm (mean), {sum(result.seconds.values()):.1f} s"
    )


def _strides(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise InputError(f"got passes {text!r}, expected strides like 8,4 or 8,8") from None
