"""Convert transform files from one format to another, and say what a format cannot hold."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from corereg.errors import InputError
from corereg.geometry.displacement import Displacement
from corereg.io.places import check_distinct, check_output, refuse_to_replace
from corereg.io.transforms.formats.itk import H5_SUFFIXES
from corereg.io.transforms.formats.ome_zarr import check_store
from corereg.io.transforms.formats.registry import FORMATS, check_format, format_of_name
from corereg.io.transforms.transform import Transform

__all__ = ["check_converted", "convert_transform", "files_of", "shortcomings"]


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
    frames: tuple[str | None, str | None] = (None, None),
    log: Callable[[str], None] | None = None,
) -> Transform:
    """Convert a transform file to another format.

    Args:
        to: a key of `FORMATS`; by default the one that the name of `out` implies.
        source_format, fixed, moving: as for `Transform.load`.
        inverse: convert the other direction.
        only, without: names of parts to keep or to leave out.
        frames: Frame of Reference UIDs of the fixed and the moving image, for DICOM, if `fixed` and `moving` are no
            DICOM series.
        log: called, before anything is written, with a line for each thing that the format cannot hold.

    Returns: the transform that was written.

    Raises:
        InputError: a file, format or part cannot be used, or a grid is missing.
    """
    source, out = Path(source), Path(out)
    to = check_converted(out, to)
    transform = Transform.load(source, fixed=fixed, moving=moving, source_format=source_format)
    if only:
        transform = transform.named(*only)
    if without:
        transform = transform.without(*without)
    if not transform.parts and (only or without):
        raise InputError(
            f"got the parts {', '.join(only)} to keep and {', '.join(without)} to leave out of {source}, which leaves "
            "nothing to convert; keep at least one part"
        )
    if inverse:
        transform = transform.inverse()
    for line in shortcomings(transform, to, out.name):
        (log or (lambda line: None))(line)
    FORMATS[to].write(out, replace(transform.stored(), frames=frames[::-1] if inverse else frames))
    return transform


def check_converted(out: Path, to: str | None, *, inputs: Iterable[Path | None] = (), force: bool = True) -> str:
    """Check that an output can be written, before anything is read.

    Args:
        inputs: files that it must not take the place of; each may be the prefix of several (ANTs).
        force: whether other existing files may be replaced.

    Returns: the format.

    Raises:
        InputError: it cannot, or a file that it would replace exists.
    """
    name = to or _format_of_name(out)
    form = check_format(name)
    given = [path for path in inputs if path is not None]
    parts = [path.parent / part for path in given for part in FORMATS["ants"].others(path.name)]
    check_distinct([out, *(out.parent / part for part in form.others(out.name))], [*given, *parts])
    if form.folder:
        check_store(out, force=force)
    elif form.suffixes:
        check_output(out, force=force)
    if form.suffixes and not out.name.lower().endswith(form.suffixes):
        raise InputError(
            f"got the output {out} for {name}, expected a name ending in {' or '.join(form.suffixes)}; rename it"
        )
    if not force:
        refuse_to_replace(out.parent, form.others(out.name))
    return name


def files_of(out: Path, to: str | None) -> list[Path]:
    """The files by which a conversion to this output is read again, once it is done."""
    form = FORMATS[to or _format_of_name(out)]
    if form.suffixes:
        return [out]
    return [path for name in form.others(out.name) if (path := out.parent / name).exists()]


def shortcomings(transform: Transform, to: str, name: str) -> list[str]:
    """What a format loses in a file of this name, and what its user must know: one line each."""
    form, lines = FORMATS[to], []
    fields = sum(isinstance(part, Displacement) for part in transform.parts)
    if (form.one_field and len(transform.parts) > 1) or (to == "ants" and fields > 1):
        held = "one warp before one affine" if to == "ants" else "one field"
        lines.append(f"{to} holds {held}: the parts {', '.join(transform.names)} are composed into it")
    of_text = to == "itk" and not name.lower().endswith(H5_SUFFIXES)
    if transform.backward is not None and (form.one_field or (of_text and fields)):
        held = "a text file of itk" if of_text else to
        lines.append(f"{held} holds one direction: convert again with --inverse for the other")
    return [*lines, *([f"{to}: {form.remark}"] if form.remark else [])]


def _format_of_name(out: Path) -> str:
    name = format_of_name(out)
    if name is None:
        raise InputError(f"got the output {out}, whose name does not imply a format; add --to {'|'.join(FORMATS)}")
    return name
