"""`corereg apply`: transforms at work."""

from pathlib import Path
from typing import Annotated

import typer

from corereg.cli.common import Out, app


@app.command()
def apply(
    transform: Annotated[Path, typer.Argument(help="transform.nii.gz, inverse_transform.nii.gz or an ITK field.")],
    source: Annotated[Path, typer.Argument(metavar="INPUT", help="Image, label map or points (.csv .fcsv .mrk.json).")],
    out: Out,
    labels: Annotated[bool, typer.Option("--labels", help="Nearest neighbour: no new labels.")] = False,
    reference: Annotated[Path | None, typer.Option(help="Image that defines the output grid.")] = None,
) -> None:
    """Warp an image or label map onto the transform's grid, or carry points from that grid's image to the other."""
    from corereg.io.files import apply_to_file

    apply_to_file(transform, source, out, labels=labels, reference=reference)
    print(out)
