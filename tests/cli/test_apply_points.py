"""`corereg apply` to points and meshes."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose
from numpy.typing import NDArray

from corereg.geometry.displacement import Displacement
from corereg.io.images.itk import LPS_RAS
from corereg.io.transforms.transform import Transform
from helpers.commands import Command, one_line
from helpers.refusals import refusal
from helpers.scenes import centred_grid
from helpers.transforms import MOVING, wavy

FIXED = centred_grid((26, 24, 30), (4.0, 4.2, 3.0), "oblique")

LPS = LPS_RAS[:3, :3]


def test_voxel_points_of_learn2reg_go_from_fixed_to_moving_voxels(tmp_path: Path, h5: Path, command: Command) -> None:
    start = np.random.default_rng(0).uniform(5, 20, (20, 3))
    np.savetxt(tmp_path / "in.csv", start, delimiter=",")
    done = command("apply", h5, tmp_path / "in.csv", "-o", tmp_path / "out.csv", "--coordinates", "voxel")
    assert done.status == 0, done.err
    expected = MOVING.to_voxel(wavy(FIXED).apply_points(FIXED.to_world(start)))
    assert_allclose(np.loadtxt(tmp_path / "out.csv", delimiter=","), expected, atol=1e-3)
    back = command(
        *("apply", h5, tmp_path / "out.csv", "-o", tmp_path / "back.csv", "--coordinates", "voxel", "--inverse")
    )
    assert back.status == 0, back.err
    assert_allclose(np.loadtxt(tmp_path / "back.csv", delimiter=","), start, atol=0.1)


def test_extrapolated_points_are_counted(tmp_path: Path, h5: Path, command: Command) -> None:
    rows = ["# CoordinateSystem = RAS", "0,0,0", "10,5,0", "500,0,0", "0,-400,0"]
    (tmp_path / "in.csv").write_text("\n".join(rows))
    done = command("apply", h5, tmp_path / "in.csv", "-o", tmp_path / "out.csv")
    assert done.status == 0
    assert "2 of 4 points lie beyond the grid of a displacement" in done.err
    field = wavy(FIXED).parts[0]
    assert isinstance(field, Displacement)
    far = np.array([[500.0, 0.0, 0.0]])
    edge = field.grid.to_voxel(far).clip(0, np.array(field.grid.shape) - 1)
    held = Transform((field,), FIXED).apply_points(field.grid.to_world(edge)) - field.grid.to_world(edge)
    assert_allclose(wavy(FIXED).named("deformation").apply_points(far), far + held, atol=1e-4)


def triangles() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    points = np.random.default_rng(0).uniform(-40, 40, (12, 3)).astype(np.float32)
    return points, np.arange(12).reshape(4, 3)


def mesh_file(path: Path, header: str) -> NDArray[np.float32]:
    """Four triangles, as VTK writes them."""
    pytest.importorskip("vtkmodules")
    from vtkmodules.util.numpy_support import numpy_to_vtk
    from vtkmodules.vtkCommonCore import vtkPoints
    from vtkmodules.vtkCommonDataModel import vtkCellArray, vtkPolyData

    from corereg.io.points.meshes import vtk_io

    coords, cells = triangles()
    points, polygons, surface = vtkPoints(), vtkCellArray(), vtkPolyData()
    points.SetData(numpy_to_vtk(coords, deep=True))
    for cell in cells:
        polygons.InsertNextCell(3, cell.tolist())
    surface.SetPoints(points)
    surface.SetPolys(polygons)
    writer: Any = vtk_io(path, "Writer")
    writer.SetFileName(str(path))
    writer.SetInputData(surface)
    if path.suffix == ".ply":
        writer.AddComment(header)
    else:
        writer.SetHeader(header)
    writer.Write()
    return coords


def vertices(path: Path, system: str) -> NDArray[np.float64]:
    from corereg.io.points.meshes import read_mesh

    return read_mesh(path, coordinates=system).coords_mm


@pytest.mark.parametrize("suffix", [".vtk", ".stl", ".ply"])
@pytest.mark.parametrize("system", ["RAS", "LPS"])
def test_meshes_move_as_their_vertices_do(
    tmp_path: Path,
    h5: Path,
    command: Command,
    suffix: str,
    system: str,
) -> None:
    coords = mesh_file(tmp_path / f"in{suffix}", "a mesh") * (1 if system == "RAS" else np.diag(LPS))
    arguments = ("apply", h5, tmp_path / f"in{suffix}", "-o", tmp_path / f"out{suffix}")
    assert "--coordinates" in one_line(command(*arguments))
    assert not (tmp_path / f"out{suffix}").exists()
    done = command(*arguments, "--coordinates", system.lower())
    assert done.status == 0, done.err
    moved = vertices(tmp_path / f"out{suffix}", system)
    expected = wavy(FIXED).apply_points(coords.astype(np.float64))
    order = [np.lexsort(np.round(values, 2).T) for values in (moved, expected)]
    assert_allclose(moved[order[0]], expected[order[1]], atol=1e-3)


@pytest.mark.parametrize("suffix", [".vtk", ".stl", ".ply"])
def test_mesh_that_says_its_coordinates_is_believed(tmp_path: Path, suffix: str) -> None:
    from corereg.io.points.meshes import read_mesh

    coords = mesh_file(tmp_path / f"in{suffix}", "3D Slicer output. SPACE=LPS")
    mesh = read_mesh(tmp_path / f"in{suffix}")
    assert mesh.system == "LPS"
    assert_allclose(np.sort(mesh.coords_mm, 0), np.sort(coords @ LPS, 0), atol=1e-3)
    assert "says LPS, and RAS beside it" in refusal(read_mesh, tmp_path / f"in{suffix}", coordinates="ras")
