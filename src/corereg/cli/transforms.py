"""`corereg apply` and `corereg convert`."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from corereg.cli.common import Force, Out, command
from corereg.cli.messages import log, show, show_result
from corereg.errors import InputError

FORMAT_NAMES = (
    "itk, itk-field, ants, learn2reg, learn2reg-half, niftyreg, niftyreg-displacement, fsl, elastix, lta, dicom, "
    "ome-zarr or numpy"
)

TransformFile = Annotated[
    Path,
    typer.Argument(
        metavar="TRANSFORM", help="Transform in any format of `corereg convert`; for ANTs the files' prefix."
    ),
]
Fixed = Annotated[Path | None, typer.Option(help="Fixed image, for formats that do not store its grid.")]
Moving = Annotated[Path | None, typer.Option(help="Moving image, for such formats or to invert onto its grid.")]
From = Annotated[str | None, typer.Option("--from", help="Format of TRANSFORM, if the file does not say.")]
Inverse = Annotated[bool, typer.Option("--inverse", help="Use the opposite direction.")]


@contextmanager
def _options_named() -> Iterator[None]:
    """Errors about transforms say by which options of these commands they are cured."""
    try:
        yield
    except InputError as error:
        if not error.options:
            raise
        raise InputError(f"{error} ({error.options})") from error


@command
@_options_named()
def apply(
    transform: TransformFile,
    source: Annotated[
        Path | None,
        typer.Argument(
            metavar="[INPUT]", help="Image, label map, series, points (.csv .fcsv .mrk.json) or mesh (.vtk .stl .ply)."
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option("-o", "--out", help="Output file.", show_default=False)] = None,
    then: Annotated[list[Path] | None, typer.Option(help="Transform to apply next; may be repeated.")] = None,
    labels: Annotated[bool, typer.Option("--labels", help="INPUT is a label map: make no new labels.")] = False,
    interpolation: Annotated[
        str | None,
        typer.Option(help="nearest, linear, bspline or sinc; with --labels, nearest or linear (smoother outlines)."),
    ] = None,
    reference: Annotated[Path | None, typer.Option(help="Image that defines the output grid.")] = None,
    outside: Annotated[
        float | None, typer.Option(help="Value outside INPUT's field of view; default 0, for CT its smallest value.")
    ] = None,
    series: Annotated[str | None, typer.Option(help="Series Instance UID, if INPUT is a DICOM folder.")] = None,
    inverse: Inverse = False,
    coordinates: Annotated[
        str | None, typer.Option(help="ras, lps or voxel (Learn2Reg), for points and meshes that do not say.")
    ] = None,
    jacobian: Annotated[Path | None, typer.Option(help="File for det J, the local volume ratio.")] = None,
    fixed: Fixed = None,
    moving: Moving = None,
    source_format: From = None,
    force: Force = False,
) -> None:
    """Warp an image onto the transform's grid, or map points and meshes from the fixed to the moving image."""
    if (source is None) != (out is None) or (source is None and jacobian is None):
        raise InputError("expected INPUT together with -o, or --jacobian FILE, or all three; add what is missing")
    from corereg.io.images.image import check_image_name
    from corereg.io.places import check_distinct, check_output
    from corereg.io.transforms.apply import ImageOptions, apply_to_file, load_chain, write_jacobian

    chained = [transform, *(then or [])]
    check_distinct([out, jacobian], [source, *chained, reference, fixed, moving])
    if jacobian is not None:
        check_image_name(jacobian)
    for path in (out, jacobian):
        if path is not None:
            check_output(path, force=force)
    chain = load_chain(chained, fixed=fixed, moving=moving, inverse=inverse, source_format=source_format)
    remarks: Sequence[str] = ()
    if source is not None and out is not None:
        options = ImageOptions(
            labels=labels, interpolation=interpolation, reference=reference, outside=outside, series=series
        )
        remarks = apply_to_file(chain, source, out, options, coordinates=coordinates)
        for remark in remarks:
            log(f"corereg: {remark}")
        show(str(out))
    if jacobian is not None:
        write_jacobian(chain, jacobian, reference)
        show(str(jacobian))
    show_result({"output": out, "jacobian": jacobian, "remarks": remarks})


@command
@_options_named()
def convert(
    transform: TransformFile,
    out: Out,
    to: Annotated[
        str | None,
        typer.Option(
            help=f"{FORMAT_NAMES}. Default: itk for .h5 and .tfm, itk-field for .nrrd and .mha, ome-zarr for .zarr."
        ),
    ] = None,
    source_format: From = None,
    fixed: Fixed = None,
    moving: Moving = None,
    inverse: Inverse = False,
    only: Annotated[list[str] | None, typer.Option(help="Name of a part to keep; may be repeated.")] = None,
    without: Annotated[list[str] | None, typer.Option(help="Name of a part to leave out; may be repeated.")] = None,
    fixed_frame: Annotated[
        str | None, typer.Option(help="Frame of Reference UID of the fixed image, for dicom; else --fixed FOLDER.")
    ] = None,
    moving_frame: Annotated[
        str | None, typer.Option(help="Frame of Reference UID of the moving image, for dicom; else --moving FOLDER.")
    ] = None,
    force: Force = False,
) -> None:
    """Convert a transform to another format; reports what the format cannot hold before writing."""
    from corereg.io.transforms.convert import check_converted, convert_transform, files_of

    check_converted(out, to, inputs=[transform, fixed, moving], force=force)
    remarks: list[str] = []

    def remark(line: str) -> None:
        remarks.append(line)
        log(f"corereg: {line}")

    written = convert_transform(
        transform,
        out,
        to=to,
        source_format=source_format,
        fixed=fixed,
        moving=moving,
        inverse=inverse,
        only=only or (),
        without=without or (),
        frames=(fixed_frame, moving_frame),
        log=remark,
    )
    for path in files_of(out, to):
        show(str(path))
    show_result({"output": out, "parts": written.names, "remarks": remarks})
