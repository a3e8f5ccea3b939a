"""Transforms from file to file: which format a file is in, what a format cannot hold, the way from one to another."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from corereg.errors import InputError
from corereg.geometry.displacement import Displacement
from corereg.io.transforms.formats.itk import (
    COMPOSITE_SUFFIXES,
)
from corereg.io.transforms.formats.registry import FORMATS, read_transform
from corereg.io.transforms.transform import Transform

__all__ = ["convert_transform", "shortcomings"]


def convert_transform(
    source: str | Path,
    out: str | Path,
    *,
    to: str | None = None,
    source_format: str | None = None,
    fixed: Any = None,
    moving: Any = None,
    inverse: bool = False,
    only: Sequence[str] = (),
    without: Sequence[str] = (),
    say: Callable[[str], None] | None = None,
) -> Transform:
    """Bring a transform file to another format.

    Args:
        to: a key of `FORMATS`; by default what the name of `out` tells.
        source_format, fixed, moving: as for `read_transform`.
        inverse: convert the other direction.
        only, without: names of parts to keep or to leave out.
        say: called, before anything is written, with a line for each thing that the format cannot hold.

    Returns: what was written.

    Raises:
        InputError: a file, format or part that cannot be used, or a grid is missing.
    """
    source, out = Path(source), Path(out)
    to = to or _format_of_name(out)
    _check_output(out, to)
    transform = read_transform(source, fixed=fixed, moving=moving, source_format=source_format)
    if only:
        transform = transform.named(*only)
    if without:
        transform = transform.without(*without)
    if inverse:
        transform = transform.inverse()
    for line in shortcomings(transform, to):
        (say or (lambda line: None))(line)
    FORMATS[to].write(out, transform)
    return transform


def shortcomings(transform: Transform, to: str) -> list[str]:
    """What is lost in a format, and what its reader must know: a line each."""
    form, lines = FORMATS[to], []
    fields = sum(isinstance(part, Displacement) for part in transform.parts)
    if (form.one_field and len(transform.parts) > 1) or (to == "ants" and fields > 1):
        held = "one warp before one affine" if to == "ants" else "one displacement field"
        lines.append(f"{to} holds {held}: the parts {', '.join(transform.names)} are composed into it")
    if form.one_field and transform.backward is not None:
        lines.append(f"{to} holds one direction: convert again with --inverse for the other")
    return [*lines, *([f"{to}: {form.remark}"] if form.remark else [])]


def _format_of_name(out: Path) -> str:
    name = out.name.lower()
    if name.endswith(COMPOSITE_SUFFIXES):
        return "itk"
    if name.endswith((".nrrd", ".mha", ".mhd")):
        return "itk-field"
    raise InputError(f"got the output {out} without a format, expected one of {', '.join(FORMATS)}; add --to")


def _check_output(out: Path, to: str) -> None:
    if to not in FORMATS:
        raise InputError(f"got the format {to}, expected one of {', '.join(FORMATS)}; correct it")
    suffixes = FORMATS[to].suffixes
    if suffixes and not out.name.lower().endswith(suffixes):
        raise InputError(f"got the output {out} for {to}, expected a name ending in {' or '.join(suffixes)}; rename it")
