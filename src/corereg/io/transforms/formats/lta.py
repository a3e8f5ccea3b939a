"""FreeSurfer: .lta, a text file of one matrix from the source (moving) volume to the destination (fixed) volume.

The matrix maps RAS to RAS millimetres (type 1) or voxels to voxels (type 0). The geometry of both volumes follows it:
sizes, spacings, the directions of the axes, and the RAS position of the middle, which lies at voxel size / 2.
"""

import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from corereg.errors import InputError
from corereg.geometry.chain import check_matrix
from corereg.geometry.grid import Grid, Matrix
from corereg.geometry.positions import inverse_matrix
from corereg.io.atomic import atomic_path
from corereg.io.images.checks import plausible_grid
from corereg.io.transforms.formats.common import one_matrix
from corereg.io.transforms.formats.itk_records import stated_numbers
from corereg.io.transforms.formats.stored import Located, StoredTransform, grid_of

__all__ = ["read_lta", "write_lta"]

VOXEL_TO_VOXEL, RAS_TO_RAS = 0, 1

LARGEST_BYTES = 100_000
"""A transform takes one or two thousand."""

AXES = ("xras", "yras", "zras")

CURE = "convert it first: lta_convert --inlta IN.lta --outlta OUT.lta --ltaras2ras"


def write_lta(path: Path, stored: StoredTransform) -> None:
    """Write the product of all parts, RAS to RAS.

    Raises:
        InputError: a part is a displacement.
    """
    rows = inverse_matrix(one_matrix(stored, path))
    lines = [f"type      = {RAS_TO_RAS} # LINEAR_RAS_TO_RAS", "nxforms   = 1"]
    lines += ["mean      = 0.0000 0.0000 0.0000", "sigma     = 1.0000", "1 4 4", *map(_numbers, rows)]
    for name, image in (("src", stored.moving), ("dst", stored.fixed)):
        lines += [f"{name} volume info", *_volume_info(image)]
    with atomic_path(path) as staged:
        staged.write_text("\n".join(lines) + "\n", encoding="ascii")


def read_lta(path: Path, fixed: Located | None, moving: Located | None) -> StoredTransform:
    """Read a matrix, RAS to RAS or voxel to voxel, and both grids where the file states them.

    Raises:
        InputError: it is damaged, holds another kind or number of matrices, or lacks a grid that its matrix needs.
    """
    if path.stat().st_size > LARGEST_BYTES:
        raise InputError(f"got {path}, which is too large for a linear transform of FreeSurfer; check the file")
    head, *volumes = re.split(r"^\s*(src|dst) volume info.*$", path.read_text("latin-1"), flags=re.MULTILINE)
    grids = {name: _grid(_fields(text), path) for name, text in zip(volumes[::2], volumes[1::2], strict=True)}
    kind, matrix = _fields(head).get("type", "none"), _matrix(head, path)
    fixed, moving = fixed or grids.get("dst"), moving or grids.get("src")
    if kind == str(VOXEL_TO_VOXEL):
        source = grids.get("src") or grid_of(moving, "moving", path)
        destination = grids.get("dst") or grid_of(fixed, "fixed", path)
        with np.errstate(over="ignore", invalid="ignore"):
            matrix = _checked(destination.affine @ matrix @ source.inverse_affine, path)
    elif kind != str(RAS_TO_RAS):
        raise InputError(
            f"got {path} of type {kind}, expected {VOXEL_TO_VOXEL} (voxel to voxel) or {RAS_TO_RAS} (RAS to RAS); "
            f"{CURE}"
        )
    return StoredTransform((inverse_matrix(matrix),), fixed, moving)


def _fields(text: str) -> dict[str, str]:
    lines = (line.partition("#")[0].partition("=") for line in text.splitlines())
    return {key.strip(): value.strip() for key, equals, value in lines if equals}


def _matrix(head: str, path: Path) -> Matrix:
    found = re.findall(r"^\s*1\s+4\s+4\s*$((?:\s*\n[^\n=]*){4})", head, flags=re.MULTILINE)
    values = stated_numbers(found[0], path) if len(found) == 1 else np.empty(0)
    if values.size != 16 or _fields(head).get("nxforms", "1") != "1":
        raise InputError(
            f"got {path}, expected an .lta file of FreeSurfer with one 4x4 matrix; write it again with lta_convert"
        )
    return _checked(values.reshape(4, 4), path)


def _checked(matrix: Matrix, path: Path) -> Matrix:
    try:
        check_matrix(matrix)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    return matrix


def _grid(fields: dict[str, str], path: Path) -> Grid | None:
    """The grid of a volume; None if the file marks it as unknown."""
    if fields.get("valid") != "1":
        return None
    stated = {name: stated_numbers(fields.get(name, ""), path) for name in ("volume", "voxelsize", *AXES, "cras")}
    if any(values.size != 3 or not np.isfinite(values).all() for values in stated.values()):
        raise InputError(f"got {path} with an incomplete volume info, expected sizes and directions; write it again")
    affine = np.eye(4)
    with np.errstate(over="ignore", invalid="ignore"):  # what overflows is not plausible
        affine[:3, :3] = np.stack([stated[name] for name in AXES], axis=1) * stated["voxelsize"]
        affine[:3, 3] = stated["cras"] - affine[:3, :3] @ (stated["volume"] / 2)
    i, j, k = (int(n) for n in np.clip(stated["volume"], 0, 2**31))
    return plausible_grid((i, j, k), affine, str(path))


def _volume_info(image: Located | None) -> list[str]:
    if image is None:
        return ["valid = 0  # volume info invalid"]
    grid = grid_of(image, "fixed")
    directions = (grid.linear / grid.spacing).T
    return [
        "valid = 1  # volume info valid",
        "filename = unknown",
        f"volume = {' '.join(map(str, grid.shape))}",
        f"voxelsize = {_numbers(np.array(grid.spacing))}",
        *(f"{name}   = {_numbers(axis)}" for name, axis in zip(AXES, directions, strict=True)),
        f"cras   = {_numbers(grid.to_world(np.array(grid.shape) / 2))}",
    ]


def _numbers(values: NDArray[np.float64]) -> str:
    return " ".join(f"{value:.15e}" for value in values)
