"""Points in and out: 3D Slicer's .fcsv and .mrk.json, and .csv. Inside the package a point is RAS+ millimetres."""

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from corereg.errors import InputError
from corereg.geometry.grid import Grid
from corereg.io.atomic import atomic_path
from corereg.io.images.checks import one_line
from corereg.io.points.point_files import PARSERS, PointFile, new_point_file
from corereg.io.points.systems import DIGITS, coordinate_system
from corereg.io.points.tables import parse_numbers

__all__ = [
    "POINT_SUFFIXES",
    "Points",
    "read_points",
    "read_voxel_points",
    "read_voxel_table",
    "write_points",
    "write_voxel_points",
]

POINT_SUFFIXES = tuple(PARSERS)


@dataclass(frozen=True, eq=False)
class Points:
    """Landmarks.

    Args:
        coords_mm: (N, 3) in RAS+ millimetres.
        labels: one name for each point, or None.
        source: the file that they came from, so that they can be written back in its form; or None.
        suffix: the format of that file.
    """

    coords_mm: NDArray[np.float64]
    labels: list[str] | None = None
    source: PointFile | None = None
    suffix: str | None = None

    def moved_to(self, coords_mm: NDArray[Any]) -> "Points":
        """The same points at other positions, (N, 3) RAS+ millimetres.

        Raises:
            InputError: not one position for each point.
        """
        coords_mm = np.array(coords_mm, dtype=np.float64)
        if coords_mm.shape != self.coords_mm.shape:
            raise InputError(
                f"got positions of shape {coords_mm.shape}, expected {self.coords_mm.shape}; give one for each point"
            )
        return replace(self, coords_mm=coords_mm)


def read_points(path: str | os.PathLike[str], *, coordinates: str | None = None) -> Points:
    """Read points from .fcsv, .mrk.json or .csv.

    A .csv says its coordinate system in a first line `# CoordinateSystem = RAS` (or LPS), or in its column names:
    x_ras, y_ras, z_ras (or x_lps, ...), or r, a, s (or l, p, s) as in Slicer's tables. Nothing is guessed. Cells are
    divided by commas, semicolons or tabs.

    Args:
        coordinates: "ras" or "lps", for a file that does not say it.

    Raises:
        InputError: missing, unreadable, without or with a contradictory coordinate system, or without points.
    """
    path = Path(path)
    suffix = _suffix(path)
    given = coordinate_system(coordinates, "the argument coordinates") if coordinates else None
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise InputError(f"got {path}, which does not exist, expected a file of points; check the path") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"got {path}, which is not readable text ({error}), expected points; export it again"
        ) from None
    source = PARSERS[suffix](text, str(path), given)
    coords_mm = source.coords_mm()
    if not len(coords_mm):
        raise InputError(f"got {path} without a point in it, expected at least one; check the file")
    return Points(coords_mm, source.labels(), source, suffix)


def write_points(path: str | os.PathLike[str], points: Points, *, like: Points | None = None) -> None:
    """Write points to .fcsv, .mrk.json or .csv. The file appears when it is complete.

    Args:
        like: points whose file is written again with the new positions; without it, that of `points`. In another
            format, coordinate system and labels are kept. Points without a file are written in RAS to .csv and in LPS
            to Slicer's formats.

    Raises:
        InputError: unknown extension, `like` has another number of points, or the folder is missing or not writable.
    """
    path = Path(path)
    suffix = _suffix(path)
    like = (like or points).moved_to(points.coords_mm)
    target = like.source
    if target is None or like.suffix != suffix:
        labels = like.labels or [f"F-{n + 1}" for n in range(len(like.coords_mm))]
        target = new_point_file(suffix, labels, target.system if target else None)
    with atomic_path(path) as staged:
        staged.write_text(target.text(like.coords_mm), encoding="utf-8", newline="\n")


def read_voxel_points(path: Path, grid: Grid) -> NDArray[np.float64]:
    """(N, 3), RAS+ millimetres, of Learn2Reg's tables: three columns of an image's voxel coordinates, without a header.

    Raises:
        InputError: something else.
    """
    return grid.to_world(read_voxel_table(path))


def read_voxel_table(path: Path) -> NDArray[np.float64]:
    """The voxel coordinates (N, 3) of such a table.

    Raises:
        InputError: the file cannot be read, or is not a table of three finite numbers a line.
    """
    try:
        coords_vox = parse_numbers(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise InputError(
            f"got {path} ({one_line(error)}), expected lines of x,y,z in voxels and no header; check the file"
        ) from None
    if coords_vox.shape[1:] != (3,) or not coords_vox.size or not np.isfinite(coords_vox).all():
        raise InputError(f"got {path} of {coords_vox.shape}, expected lines of three finite numbers; check the file")
    return coords_vox


def write_voxel_points(path: Path, coords_mm: NDArray[np.float64], grid: Grid) -> None:
    """The same back, in voxel coordinates of `grid`. The file appears when it is complete.

    Raises:
        InputError: another extension than .csv, or a folder that is missing or not writable.
    """
    if path.suffix.lower() != ".csv":
        raise InputError(f"got the output {path} for voxel coordinates, expected a name ending in .csv; rename it")
    with atomic_path(path) as staged:
        np.savetxt(staged, grid.to_voxel(coords_mm), fmt=f"%{DIGITS}", delimiter=",")


def _suffix(path: Path) -> str:
    for suffix in POINT_SUFFIXES:
        if path.name.lower().endswith(suffix):
            return suffix
    raise InputError(f"got {path}, expected a file of points ({', '.join(POINT_SUFFIXES)}); convert or rename it")
