"""OME-Zarr 0.6: a transformation of its own (RFC 5), whose displacements are a multiscale image (RFC 4 orientations).

A position is intrinsic to its image: the voxel index times the spacing, plus a translation, with x, y and z along the
array's axes. The translation is the LPS position of the first voxel, as ITK's tools write it. A displacement leads from
the intrinsic position on the fixed image to that on the moving image. So it depends on both grids, and the store holds
the fixed one alone. An orientation names a side of the patient, and so it places grids along the patient's axes only.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from corereg.errors import InputError
from corereg.geometry.grid import Grid, Matrix
from corereg.io.atomic import atomic_tree
from corereg.io.images.checks import one_line
from corereg.io.images.itk import LPS_RAS
from corereg.io.images.ome_zarr import DIRECTIONS, MM_PER_UNIT, USUAL, is_ome_zarr, whole_array
from corereg.io.places import refuse_to_replace, temporary_folder_in
from corereg.io.transforms.formats.common import offsets, stored_offsets
from corereg.io.transforms.formats.stored import Located, StoredTransform, grid_of
from corereg.lazy import zarr

__all__ = ["STORE_SUFFIXES", "check_store", "read_ome_zarr_transform", "write_ome_zarr_transform"]

STORE_SUFFIXES = (".ome.zarr", ".zarr")

VERSION, FIELD, LEVEL, INTRINSIC = "0.6", "field", "0", "intrinsic"

SIDES = {direction: side for side, direction in DIRECTIONS.items()}

TURNED = 1e-5
"""How far the cosines of an axis along the patient's may be from 0 and 1: 0.01 mm at a metre."""

CHUNK = 64
"""Voxels along each axis: 3 MB."""


def write_ome_zarr_transform(path: Path, stored: StoredTransform) -> None:
    """Write the transform as one field on the fixed grid.

    Raises:
        InputError: a grid is unknown or oblique, zarr is not installed, or `path` is something else than a Zarr store.
    """
    library = zarr()
    check_store(path)
    grids = {"fixed": stored.fixed_grid, "moving": grid_of(stored.moving, "moving", path)}
    axes = {name: _axes(grid, name, path) for name, grid in grids.items()}
    fixed = grids["fixed"]
    values = offsets(stored, _frame(fixed), _frame(grids["moving"]))
    field = np.ascontiguousarray(values.T[::-1])  # (I, J, K, xyz) becomes (zyx, K, J, I)
    component = {"name": "c", "type": "displacement", "discrete": True}
    placed = [
        {"type": "scale", "scale": [1.0, *fixed.spacing[::-1]]},
        {"type": "translation", "translation": [0.0, *_frame_of_voxels(fixed)[2::-1, 3].tolist()]},
    ]
    level = {"input": {"path": LEVEL}, "output": {"name": INTRINSIC}, "type": "sequence", "transformations": placed}
    image = {
        "name": FIELD,
        "coordinateSystems": [{"name": INTRINSIC, "axes": [component, *axes["fixed"]]}],
        "datasets": [{"path": LEVEL, "coordinateTransformations": [level]}],
    }
    transformation = {
        **{"type": "displacements", "path": FIELD, "interpolation": "linear"},
        **{"input": {"name": "fixed"}, "output": {"name": "moving"}},
    }
    document = {
        "coordinateSystems": [{"name": name, "axes": listed} for name, listed in axes.items()],
        "coordinateTransformations": [transformation],
    }
    with atomic_tree(path) as staged:
        root = library.open_group(str(staged), mode="w", zarr_format=3)
        root.attrs["ome"] = {"version": VERSION, **document}
        group = root.create_group(FIELD)
        group.attrs["ome"] = {"version": VERSION, "multiscales": [image]}
        chunks = (3, *(min(CHUNK, size) for size in field.shape[1:]))
        group.create_array(LEVEL, data=field, chunks=chunks, dimension_names=["c", "z", "y", "x"])


def read_ome_zarr_transform(path: Path, fixed: Located | None, moving: Located | None) -> StoredTransform:
    """Read a store of one displacement field.

    Raises:
        InputError: zarr is not installed, the store holds something else, or the moving image is missing.
    """
    library = zarr()
    try:
        root = library.open_group(str(path), mode="r")
        (transformation,) = root.attrs["ome"]["coordinateTransformations"]
        if transformation["type"] != "displacements":
            raise InputError(f"got {path} of {transformation['type']}, expected displacements; resample them first")
        group = root[transformation["path"]]
        image = group.attrs["ome"]["multiscales"][0]
        field = whole_array(group[image["datasets"][0]["path"]], path)
        affine = _placed(image, path)
    except InputError:
        raise
    except Exception as error:  # zarr raises whatever a damaged store leads it to
        raise InputError(
            f"got {path}, which cannot be read as an OME-Zarr transformation ({type(error).__name__}: "
            f"{one_line(error)}); write it again"
        ) from None
    if field.ndim != 4 or len(field) != 3:
        raise InputError(f"got {path} of shape {field.shape}, expected (3, z, y, x): a displacement field")
    grid = Grid(field.shape[:0:-1], affine)
    frames = _frame(grid), _frame(grid_of(moving, "moving", path))
    return stored_offsets(field[::-1].T, fixed or grid, moving, frames, path)


def check_store(path: Path, *, force: bool = True) -> None:
    """Check that a store can be written there, before the work whose result it is to hold.

    Args:
        force: whether an existing store may be replaced.

    Raises:
        InputError: there is a file or another folder, or a store that must not be replaced; or the folder above is
            missing or not writable.
    """
    if path.exists() and not is_ome_zarr(path):
        raise InputError(f"got the output {path}, which exists and is no Zarr store; choose another name")
    if not force:
        refuse_to_replace(path.parent, [path.name])
    temporary_folder_in(path.parent).rmdir()


def _frame(grid: Grid) -> Matrix:
    """(4, 4), RAS+ millimetres to intrinsic positions."""
    return np.asarray(_frame_of_voxels(grid) @ grid.inverse_affine)


def _frame_of_voxels(grid: Grid) -> Matrix:
    """(4, 4), voxel indices to intrinsic positions."""
    matrix = np.diag([*grid.spacing, 1.0])
    matrix[:3, 3] = (LPS_RAS @ grid.affine)[:3, 3] + 0.0
    return matrix


def _axes(grid: Grid, name: str, path: Path) -> list[dict[str, Any]]:
    """The axes z, y and x with the sides of the patient between which they run."""
    cosines = grid.linear / grid.spacing
    nearest = np.round(cosines)
    if np.abs(cosines - nearest).max() > TURNED or not np.allclose(nearest.T @ nearest, np.eye(3)):
        raise InputError(
            f"got {path} for an oblique {name} grid, expected axes along the patient's: OME-Zarr names no others; "
            f"choose another format, or resample the {name} image before the registration"
        )
    axes = []
    for letter, column in zip("xyz", nearest.T, strict=True):
        world = int(np.abs(column).argmax())
        orientation = {"type": "anatomical", "value": SIDES[world, int(column[world])]}
        axes.append({"name": letter, "type": "space", "unit": "millimeter", "orientation": orientation})
    return axes[::-1]


def _placed(image: Mapping[str, Any], path: Path) -> Matrix:
    """The voxel-to-RAS affine of the finest level."""
    axes = image["coordinateSystems"][0]["axes"]
    if [axis["name"] for axis in axes[1:]] != ["z", "y", "x"] or axes[0]["type"] != "displacement":
        raise InputError(f"got {path}, whose field has other axes, expected displacement, z, y, x; write it again")
    if any(MM_PER_UNIT[axis.get("unit", "millimeter")] != 1 for axis in axes[1:]):
        raise InputError(f"got {path} in another unit, expected millimetres; write it again")
    (step,) = image["datasets"][0]["coordinateTransformations"]
    found = {one["type"]: one[one["type"]][:0:-1] for one in step.get("transformations", [step])}
    if not found.keys() <= {"scale", "translation"}:
        raise InputError(f"got {path}, whose grid has a {', '.join(found)}, expected scale and translation")
    affine = np.zeros((4, 4))
    for column, axis in enumerate(axes[:0:-1]):
        world, sign = DIRECTIONS[axis.get("orientation", {}).get("value", USUAL[axis["name"]])]
        affine[world, column] = sign * found["scale"][column]
    affine[:, 3] = LPS_RAS @ [*found.get("translation", (0.0, 0.0, 0.0)), 1.0]
    return affine
