"""Apply transforms to a file: an image, a label map, a series, points or a mesh."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from corereg.errors import InputError
from corereg.geometry.inverse_error import share_of
from corereg.io.images.dicom.label_objects import is_segmentation
from corereg.io.images.dicom.segmentation import write_segmentation
from corereg.io.images.image import Image, as_image, write_image
from corereg.io.images.reference import as_reference
from corereg.io.images.series import read_series, write_series
from corereg.io.points.meshes import MESH_SUFFIXES, read_mesh, write_mesh
from corereg.io.points.points import POINT_SUFFIXES, read_points, read_voxel_points, write_points, write_voxel_points
from corereg.io.transforms.transform import Transform

__all__ = ["ImageOptions", "apply_to_file", "load_chain", "write_jacobian"]

DICOM_SUFFIX = ".dcm"

FEW_VALUES, LABELS_RANGE = 32, 50_000
"""Different values, and distance between the smallest and largest, up to which an image of integers may be labels."""

EXTRAPOLATED = "lie beyond the grid of a displacement, whose edge value was used there"


@dataclass(frozen=True, kw_only=True)
class ImageOptions:
    """How an image is resampled; none of it applies to points."""

    labels: bool = False
    interpolation: str | None = None
    reference: Path | None = None
    """Image that defines the output grid; only its header counts."""
    outside: float | None = None
    """Value where the image has none; by default the smallest value of a CT, and 0 for anything else."""
    series: str | None = None
    """Series Instance UID, for a DICOM folder."""


def load_chain(
    paths: Sequence[Path],
    *,
    fixed: Path | None = None,
    moving: Path | None = None,
    inverse: bool = False,
    source_format: str | None = None,
) -> Transform:
    """Load transform files, in the order in which they warp an image, as one transform.

    Args:
        fixed: image whose grid is the output grid of the last transform, if its file does not hold it.
        moving: image that the first transform warps, if its file does not hold it; the output grid of the inverse.
        inverse: return the other direction of the whole chain.
        source_format: the format of all files, if they alone do not tell.

    Raises:
        InputError: a file cannot be used.
    """
    images = {
        name: None if path is None else as_reference(path) for name, path in (("fixed", fixed), ("moving", moving))
    }
    loaded = [
        Transform.load(
            path,
            fixed=images["fixed"] if path is paths[-1] else None,
            moving=images["moving"] if path is paths[0] else None,
            source_format=source_format,
        )
        for path in paths
    ]
    chain = reduce(Transform.then, loaded)
    return chain.inverse() if inverse else chain


def apply_to_file(
    transform: Transform, source: Path, out: Path, options: ImageOptions, *, coordinates: str | None = None
) -> list[str]:
    """Apply a transform to a file.

    Images are resampled onto the transform's own grid. Points and meshes go the other way, as in ITK: positions on the
    image that the transform's grid belongs to become positions on the other image.

    Args:
        coordinates: ras, lps or (for a .csv) voxel, for points and meshes whose file does not say.

    Returns: remarks for the user: what was extrapolated, and which DICOM series was read.

    Raises:
        InputError: a file cannot be used, or the options do not fit it.
    """
    parent = out.parent
    if not parent.is_dir():
        raise InputError(f"got the output {out} in a folder that does not exist; make it first: mkdir -p '{parent}'")
    if not source.name.lower().endswith((*POINT_SUFFIXES, *MESH_SUFFIXES)):
        if coordinates:
            raise InputError(
                f"got --coordinates for the image {source}; it is only for points and meshes, so leave it out"
            )
        return _apply_to_image(transform, source, out, options)
    if options != ImageOptions():
        raise InputError(
            f"got --labels, --interpolation, --reference, --outside or --series for the points {source}; they are only "
            "for images, so leave them out"
        )
    if coordinates == "voxel":
        start = read_voxel_points(source, transform.fixed_grid)
        write_voxel_points(out, transform.apply_points(start), transform.moving_grid)
    elif source.name.lower().endswith(MESH_SUFFIXES):
        mesh = read_mesh(source, coordinates=coordinates)
        start = mesh.coords_mm
        write_mesh(out, mesh, transform.apply_points(start))
    else:
        points = read_points(source, coordinates=coordinates)
        start = points.coords_mm
        write_points(out, points.moved_to(transform.apply_points(start)))
    beyond = int(transform.extrapolated(start).sum())
    return [f"{beyond} of {len(start)} points {EXTRAPOLATED}"] if beyond else []


def write_jacobian(transform: Transform, out: Path, reference: Path | None = None) -> None:
    """Write det J of a transform, the local volume ratio of all parts together, on its grid or that of an image.

    Raises:
        InputError: a file cannot be used or written.
    """
    like = transform.fixed if reference is None else as_reference(reference)
    grid = like.grid if isinstance(like, Image) else transform.fixed_grid
    write_image(out, transform.jacobian_determinant(grid), grid if like is None else like)


def _write_segmentation(out: Path, warped: Image, like: Any, source: Path, options: ImageOptions) -> None:
    if not options.labels:
        raise InputError(f"got the output {out} for an image, expected one for a label map; add --labels or rename it")
    files = like.files if isinstance(like, Image) else ()
    if not files:
        raise InputError(
            f"got the output {out}, expected the DICOM series that the segmentation belongs to; add --reference FOLDER"
        )
    write_segmentation(out, warped.array, warped.grid, files, source if is_segmentation(source) else None)


def _like_labels(array: NDArray[Any]) -> bool:
    """Whether an image holds so few different values, all of them whole numbers, that it may be a label map."""
    if array.dtype.kind not in "biu":
        return False
    low, high = int(array.min()), int(array.max())
    if low == high or high - low > LABELS_RANGE:
        return False
    return int(np.count_nonzero(np.bincount((array.astype(np.int64) - low).ravel()))) <= FEW_VALUES


def _apply_to_image(transform: Transform, source: Path, out: Path, options: ImageOptions) -> list[str]:
    like = transform.fixed if options.reference is None else as_reference(options.reference)
    settings: dict[str, Any] = {
        "labels": options.labels,
        "interpolation": options.interpolation,
        "outside": options.outside,
    }
    series = read_series(source)
    remarks: list[str] = []
    if series is None:
        grid = transform.moving_grid if options.labels and transform.moving is not None else None
        image = as_image(source, labels=options.labels, series=options.series, blank=True, like=grid)
        remarks += image.remarks
        if not options.labels and options.interpolation != "nearest" and _like_labels(image.array):
            remarks.append(
                f"{source} holds few whole numbers, as a label map does, and is interpolated; --labels keeps them"
            )
        warped = transform.resampled(image, like, **settings)
        if out.suffix.lower() == DICOM_SUFFIX:
            _write_segmentation(out, warped, like, source, options)
        else:
            write_image(out, warped.array, warped)
    else:
        frames = [transform.resampled(frame, like, **settings) for frame in series.frames(labels=options.labels)]
        warped = frames[0]
        values = np.stack([frame.array for frame in frames], -1).reshape(*warped.grid.shape, *series.further)
        write_series(out, values, warped, series)
    share = share_of(transform.beyond, warped.grid)
    return [*remarks, f"{100 * share:.2g} % of the voxels {EXTRAPOLATED}"] if share else remarks
