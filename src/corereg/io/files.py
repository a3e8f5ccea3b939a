"""A transform applied to a file: images, label maps and points, by what the file is."""

from pathlib import Path

from corereg.errors import InputError
from corereg.io.images import write_image
from corereg.io.points import POINT_SUFFIXES, read_points, write_points
from corereg.io.transforms import Transform

__all__ = ["apply_to_file"]


def apply_to_file(
    transform: Path, source: Path, out: Path, *, labels: bool = False, reference: Path | None = None
) -> None:
    """Apply a transform file to a file.

    Images are resampled onto the transform's own grid. Points go the other way, as in ITK: positions on the image that
    the transform's grid belongs to become positions on the other image.

    Args:
        labels: the image is a label map.
        reference: image that defines the output grid instead.

    Raises:
        InputError: a file that cannot be used, or options that do not fit it.
    """
    parent = out.parent
    if not parent.is_dir():
        raise InputError(f"got the output {out} in a folder that is not there; make it first: mkdir -p '{parent}'")
    loaded = Transform.load(transform)
    if not source.name.lower().endswith(POINT_SUFFIXES):
        warped = loaded.apply(source, labels=labels, reference=reference)
        write_image(out, warped.array, warped)
        return
    if labels or reference:
        raise InputError(f"got --labels or --reference with the points {source}, expected neither; leave them out")
    points = read_points(source)
    write_points(out, points.moved_to(loaded.apply_points(points.coords_mm)))
