"""Surface meshes: .vtk, .stl and .ply, read and written by VTK (the extra `mesh`).

The formats do not say their coordinate system. 3D Slicer writes `SPACE=LPS` into the header or a comment, which is
honoured and kept; without it the caller must give the system, which is never guessed.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from corereg.errors import InputError
from corereg.io.atomic import atomic_path
from corereg.io.points.systems import SIGNS, agreed_system, coordinate_system
from corereg.lazy import vtk_module

__all__ = ["MESH_SUFFIXES", "Mesh", "read_mesh", "vtk_io", "write_mesh"]

MESH_SUFFIXES = (".vtk", ".stl", ".ply")

CLASSES = {".vtk": ("vtkIOLegacy", "PolyData"), ".stl": ("vtkIOGeometry", "STL"), ".ply": ("vtkIOPLY", "PLY")}

STATED = re.compile(r"SPACE=(RAS|LPS)")


@dataclass(frozen=True, eq=False)
class Mesh:
    """A surface.

    Args:
        coords_mm: (N, 3), its vertices in RAS+ millimetres.
        surface: the vtkPolyData that they came with.
        system: coordinate system of the file, RAS or LPS.
    """

    coords_mm: NDArray[np.float64]
    surface: Any
    system: str


def read_mesh(path: Path, *, coordinates: str | None = None) -> Mesh:
    """Read a surface.

    Args:
        coordinates: "ras" or "lps", for a file that does not say it.

    Raises:
        InputError: missing, unreadable, no surface, or without or with a contradictory coordinate system.
    """
    if not path.is_file():
        raise InputError(f"got {path}, which is no file, expected a surface mesh; check the path")
    reader = vtk_io(path, "Reader")
    reader.SetFileName(str(path))
    reader.AddObserver("ErrorEvent", lambda *_: None)  # VTK would print it; a missing surface shows it as well
    reader.Update()
    surface = reader.GetOutput()
    if surface is None or not surface.GetNumberOfPoints():
        raise InputError(f"got {path} without a surface in it, expected triangles or polygons; export it again")
    stated = STATED.search(_header(path, reader))
    given = coordinate_system(coordinates, "the argument coordinates") if coordinates else None
    cure = "write SPACE=LPS (3D Slicer, ITK) or SPACE=RAS (FreeSurfer, nibabel) into its header"
    system = agreed_system(stated[1] if stated else None, given, str(path), cure)
    support = vtk_module("util.numpy_support")
    coords = support.vtk_to_numpy(surface.GetPoints().GetData()).astype(np.float64)
    return Mesh(coords * SIGNS[system], surface, system)


def write_mesh(path: Path, mesh: Mesh, coords_mm: NDArray[np.float64]) -> None:
    """Write a surface with other positions (N, 3), RAS+ millimetres, in its own coordinate system.

    Raises:
        InputError: unknown extension, or a folder that is missing or not writable.
    """
    writer = vtk_io(path, "Writer")
    support = vtk_module("util.numpy_support")
    surface = mesh.surface.NewInstance()
    surface.DeepCopy(mesh.surface)
    values = np.ascontiguousarray(coords_mm * SIGNS[mesh.system], dtype=np.float32)
    surface.GetPoints().SetData(support.numpy_to_vtk(values, deep=True))
    for data in (surface.GetPointData(), surface.GetCellData()):
        data.SetNormals(None)  # they belong to the surface before it moved
    note = f"corereg SPACE={mesh.system}"
    writer.AddComment(note) if path.suffix.lower() == ".ply" else writer.SetHeader(note)
    writer.SetFileTypeToBinary()
    writer.SetInputData(surface)
    with atomic_path(path) as staged:
        writer.SetFileName(str(staged))
        if not writer.Write():
            raise OSError(f"{path} could not be written")


def vtk_io(path: Path, role: str) -> Any:
    """VTK's reader or writer of a file, by its extension.

    Raises:
        InputError: unknown extension, or VTK is not installed.
    """
    suffix = path.suffix.lower()
    if suffix not in CLASSES:
        raise InputError(f"got {path}, expected a mesh ({', '.join(CLASSES)}); convert or rename it")
    module, kind = CLASSES[suffix]
    return getattr(vtk_module(module), f"vtk{kind}{role}")()


def _header(path: Path, reader: Any) -> str:
    if path.suffix.lower() != ".ply":
        return str(reader.GetHeader() or "")
    comments = reader.GetComments()
    return "\n".join(comments.GetValue(n) for n in range(comments.GetNumberOfValues()))
