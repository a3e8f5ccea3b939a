"""`corereg apply` and `corereg convert`: transforms at work."""

from pathlib import Path
from typing import Annotated

import typer

from corereg.cli.common import Out, app, say
from corereg.errors import InputError

FORMAT_NAMES = "itk, itk-field, ants, learn2reg, learn2reg-half, niftyreg, niftyreg-displacement, fsl or numpy"

TransformFile = Annotated[
    Path, typer.Argument(metavar="TRANSFORM", help="Of any format, see `corereg convert`; of ANTs, the files' prefix.")
]
Fixed = Annotated[Path | None, typer.Option(help="Fixed image, for a format that does not hold its grid.")]
Moving = Annotated[Path | None, typer.Option(help="Moving image, likewise, or to invert onto.")]
From = Annotated[str | None, typer.Option("--from", help="Format of TRANSFORM, where the file does not tell.")]
Inverse = Annotated[bool, typer.Option("--inverse", help="The other direction.")]


@app.command()
def apply(
    transform: TransformFile,
    source: Annotated[
        Path | None,
        typer.Argument(
            metavar="[INPUT]", help="Image, label map, series, points (.csv .fcsv .mrk.json) or mesh (.vtk .stl .ply)."
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option("-o", "--out", help="Output file.", show_default=False)] = None,
    then: Annotated[list[Path] | None, typer.Option(help="Transform to warp the result by; repeat for more.")] = None,
    labels: Annotated[bool, typer.Option("--labels", help="A label map: no new labels.")] = False,
    interpolation: Annotated[
        str | None,
        typer.Option(help="nearest, linear, bspline or sinc; with --labels nearest or linear (smoother outlines)."),
    ] = None,
    reference: Annotated[Path | None, typer.Option(help="Image that defines the output grid.")] = None,
    inverse: Inverse = False,
    coordinates: Annotated[
        str | None, typer.Option(help="ras, lps or voxel (Learn2Reg), for points and meshes that do not say it.")
    ] = None,
    jacobian: Annotated[Path | None, typer.Option(help="Write det J here: the local volume ratio.")] = None,
    fixed: Fixed = None,
    moving: Moving = None,
    source_format: From = None,
) -> None:
    """Warp an image onto the transform's grid, or carry points and meshes from that grid's image to the other."""
    if (source is None) != (out is None) or (source is None and jacobian is None):
        raise InputError("got an INPUT without -o or -o without an INPUT, expected both (or --jacobian FILE); add it")
    from corereg.io.transforms.apply import ImageOptions, apply_to_file, load_chain, write_jacobian

    chain = load_chain(
        [transform, *(then or [])], fixed=fixed, moving=moving, inverse=inverse, source_format=source_format
    )
    if source is not None and out is not None:
        options = ImageOptions(labels=labels, interpolation=interpolation, reference=reference)
        for remark in apply_to_file(chain, source, out, options, coordinates=coordinates):
            say(f"corereg: {remark}")
        print(out)
    if jacobian is not None:
        write_jacobian(chain, jacobian, reference)
        print(jacobian)


@app.command()
def convert(
    transform: TransformFile,
    out: Out,
    to: Annotated[
        str | None, typer.Option(help=f"{FORMAT_NAMES}. By default itk for .h5 and .tfm, itk-field for .nrrd and .mha.")
    ] = None,
    source_format: From = None,
    fixed: Fixed = None,
    moving: Moving = None,
    inverse: Inverse = False,
    only: Annotated[list[str] | None, typer.Option(help="Name of a part to keep; repeat for more.")] = None,
    without: Annotated[list[str] | None, typer.Option(help="Name of a part to leave out; repeat for more.")] = None,
) -> None:
    """Bring a transform to another format; what the format cannot hold is said first."""
    from corereg.io.transforms.convert import convert_transform

    convert_transform(
        transform,
        out,
        to=to,
        source_format=source_format,
        fixed=fixed,
        moving=moving,
        inverse=inverse,
        only=only or (),
        without=without or (),
        say=lambda line: say(f"corereg: {line}"),
    )
    print(out)
