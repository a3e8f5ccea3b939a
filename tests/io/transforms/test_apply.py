"""`corereg apply`: every kind of file through a transform, by every interpolation, and what is said of it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import SimpleITK
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates

from corereg.geometry.displacement import Displacement
from corereg.geometry.grid import Grid
from corereg.io.images.image import Image, read_image, write_image
from corereg.io.images.itk import LPS_RAS, to_sitk
from corereg.io.transforms.transform import Transform
from helpers.commands import Command, one_line
from helpers.refusals import refusal
from helpers.scenes import centred_grid, scan, voxels_mm
from helpers.transforms import MOVING, RANGE_HU, away_from_border, label_map, small_affine, wavy

FIXED = centred_grid((26, 24, 30), (4.0, 4.2, 3.0), "oblique")
LPS = LPS_RAS[:3, :3]


def matches_vox(transform: Transform, grid: Grid = FIXED, moving: Grid = MOVING) -> NDArray[np.float64]:
    """(I, J, K, 3), where the voxels of a grid lie among those of the moving image."""
    return moving.to_voxel(transform.apply_points(voxels_mm(grid)))


def test_cubic_splines_are_those_of_scipy() -> None:
    moving, transform = scan(MOVING), wavy(FIXED)
    ours = transform.apply(moving, interpolation="bspline").array
    coords = np.moveaxis(matches_vox(transform), -1, 0)
    expected = map_coordinates(moving.array.astype(np.float64), coords, order=3, mode="mirror")
    inner = away_from_border(transform, MOVING)
    assert np.abs(ours - expected)[inner].max() < 1e-4 * RANGE_HU
    assert ours.dtype == np.float32


SINC_RADIUS = 5


def windowed_sinc(values: NDArray[Any], position: NDArray[np.float64]) -> float:
    """A loop over the voxels around, edges held; weights sinc(t) * (0.54 + 0.46 cos(pi t / radius))."""
    low, total = np.floor(position).astype(int), 0.0
    steps = np.arange(1 - SINC_RADIUS, SINC_RADIUS + 1)
    distance = position[:, None] - (low[:, None] + steps)
    weights = np.sinc(distance) * (0.54 + 0.46 * np.cos(np.pi * distance / SINC_RADIUS))
    for a, wa in zip(steps, weights[0], strict=True):
        for b, wb in zip(steps, weights[1], strict=True):
            for c, wc in zip(steps, weights[2], strict=True):
                at = np.clip(low + np.array([a, b, c]), 0, np.array(values.shape) - 1)
                total += wa * wb * wc * values[tuple(at)]
    return total


def test_sinc_is_a_hamming_window_of_five_voxels() -> None:
    moving, transform = scan(MOVING), wavy(FIXED)
    ours = transform.apply(moving, interpolation="sinc").array
    coords = matches_vox(transform)
    for index in np.argwhere(away_from_border(transform, MOVING))[::997]:
        expected = windowed_sinc(moving.array, coords[tuple(index)])
        assert abs(ours[tuple(index)] - expected) < 1e-4 * RANGE_HU


def test_nearest_keeps_values_and_type_of_an_image() -> None:
    moving = Image(scan(MOVING).array.astype(np.int16), MOVING)
    warped = wavy(FIXED).apply(moving, interpolation="nearest", outside=-3000.0).array
    assert warped.dtype == np.int16
    assert set(np.unique(warped)) <= {-3000, *np.unique(moving.array)}
    assert (warped == -3000).any()


@pytest.mark.parametrize("interpolation", ["nearest", "linear", "bspline", "sinc"])
def test_identity_changes_no_voxel_by_any_interpolation(interpolation: str) -> None:
    moving = scan(MOVING)
    same = Transform((np.eye(4),), fixed=MOVING).apply(moving, interpolation=interpolation)
    assert_allclose(same.array, moving.array, atol=1e-5 * RANGE_HU, rtol=0)


def test_smooth_labels_are_the_strongest_of_their_interpolated_indicators() -> None:
    labels, transform = label_map(MOVING, np.uint8), wavy(FIXED)
    ours = transform.apply(labels, labels=True, interpolation="linear").array
    assert ours.dtype == np.uint8
    known = np.unique(labels.array)
    coords = np.moveaxis(matches_vox(transform), -1, 0)
    votes = np.stack([map_coordinates((labels.array == n).astype(float), coords, order=1) for n in known])
    ranked = np.sort(votes, axis=0)
    clear = away_from_border(transform, MOVING) & (ranked[-1] - ranked[-2] > 1e-3)
    assert clear.mean() > 0.3
    assert_array_equal(ours[clear], known[votes.argmax(0)][clear])
    nearest = transform.apply(labels, labels=True).array
    assert 0 < (ours != nearest)[clear].mean() < 0.2


@pytest.mark.parametrize(("labels", "interpolation"), [(True, "bspline"), (True, "sinc"), (False, "lanczos")])
def test_interpolations_that_are_not_there_are_refused(labels: bool, interpolation: str) -> None:
    image = label_map(MOVING, np.uint8)
    assert "expected nearest" in refusal(wavy(FIXED).apply, image, labels=labels, interpolation=interpolation)


@pytest.mark.parametrize("outside", [-1.0, 0.5, 300.0])
def test_value_outside_that_the_type_cannot_hold_is_refused(outside: float) -> None:
    assert "can hold" in refusal(wavy(FIXED).apply, label_map(MOVING, np.uint8), labels=True, outside=outside)


def test_voxels_without_a_match_take_the_smallest_value_by_every_interpolation() -> None:
    away, moving = np.eye(4), scan(MOVING)
    away[0, 3] = 1000
    for interpolation in ("nearest", "linear", "bspline", "sinc"):
        warped = Transform((away,), fixed=FIXED).apply(moving, interpolation=interpolation)
        assert (warped.array == moving.array.min()).all()


@pytest.fixture
def h5(tmp_path: Path) -> Path:
    wavy(FIXED).save(tmp_path / "transform.h5")
    return tmp_path / "transform.h5"


def series_file(path: Path, dtype: type, further: tuple[int, ...]) -> NDArray[Any]:
    rng = np.random.default_rng(0)
    frames = [scan(MOVING).array * share for share in rng.uniform(0, 1, int(np.prod(further)) - 1)]
    values = np.stack([*frames, np.zeros(MOVING.shape)], -1).reshape(*MOVING.shape, *further).astype(dtype)
    image = nibabel.Nifti1Image(values, MOVING.affine)
    image.header.set_xyzt_units("mm", "sec")
    image.header["pixdim"][4] = 2.5
    image.header["toffset"] = 1.5
    image.to_filename(path)
    return values


@pytest.mark.parametrize("further", [(4,), (1, 3), (2, 2)])
def test_series_is_warped_frame_by_frame(tmp_path: Path, h5: Path, further: tuple[int, ...], command: Command) -> None:
    values = series_file(tmp_path / "series.nii.gz", np.float32, further)
    done = command("apply", h5, tmp_path / "series.nii.gz", "-o", tmp_path / "out.nii.gz")
    assert done.status == 0, done.err
    out = nibabel.load(tmp_path / "out.nii.gz")
    assert out.shape == (*FIXED.shape, *further)
    assert_allclose(out.affine, FIXED.affine, atol=1e-4)
    assert out.header.get_xyzt_units() == ("mm", "sec")
    assert out.header["pixdim"][4] == 2.5
    assert out.header["toffset"] == 1.5
    assert int(out.header["intent_code"]) == 0
    transform = Transform.load(h5)
    for at in np.ndindex(further):
        frame = values[(..., *at)]
        expected = transform.apply(Image(frame, MOVING)).array if frame.any() else 0
        assert_allclose(out.get_fdata()[(..., *at)], expected, atol=1e-2)


def test_vector_image_is_warped_channel_by_channel(tmp_path: Path, h5: Path, command: Command) -> None:
    values = np.stack([scan(MOVING).array, 2 * scan(MOVING).array - 1], -1)
    SimpleITK.WriteImage(to_sitk(values, MOVING), str(tmp_path / "vectors.nrrd"))
    assert command("apply", h5, tmp_path / "vectors.nrrd", "-o", tmp_path / "out.mha").status == 0
    out = SimpleITK.ReadImage(str(tmp_path / "out.mha"))
    assert out.GetNumberOfComponentsPerPixel() == 2
    transform, written = Transform.load(h5), SimpleITK.GetArrayFromImage(out).transpose(2, 1, 0, 3)
    for channel in range(2):
        expected = transform.apply(Image(np.ascontiguousarray(values[..., channel]), MOVING)).array
        assert_allclose(written[..., channel], expected, atol=1e-3)


def test_vector_image_of_itk_is_written_as_nifti(tmp_path: Path, h5: Path, command: Command) -> None:
    values = np.stack([scan(MOVING).array, -scan(MOVING).array], -1)
    SimpleITK.WriteImage(to_sitk(values, MOVING), str(tmp_path / "vectors.mha"))
    assert command("apply", h5, tmp_path / "vectors.mha", "-o", tmp_path / "out.nii.gz").status == 0
    out = nibabel.load(tmp_path / "out.nii.gz")
    assert out.shape == (*FIXED.shape, 2)
    assert_allclose(out.get_fdata()[..., 0], wavy(FIXED).apply(scan(MOVING)).array, atol=0.05)


def test_series_of_labels_keeps_its_type(tmp_path: Path, h5: Path, command: Command) -> None:
    labels = np.stack([label_map(MOVING, np.int16).array, np.zeros(MOVING.shape, np.int16)], -1)
    nibabel.Nifti1Image(labels, MOVING.affine).to_filename(tmp_path / "labels.nii.gz")
    assert command("apply", h5, tmp_path / "labels.nii.gz", "-o", tmp_path / "out.nii.gz", "--labels").status == 0
    out = nibabel.load(tmp_path / "out.nii.gz")
    assert out.get_data_dtype() == np.int16
    assert set(np.unique(np.asarray(out.dataobj))) == set(np.unique(labels))


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


def test_extrapolated_share_of_an_image_is_said(tmp_path: Path, h5: Path, command: Command) -> None:
    wide = centred_grid((40, 38, 36), (8.0, 8.0, 8.0))
    write_image(tmp_path / "wide.nii.gz", np.random.default_rng(0).normal(size=wide.shape), wide)
    write_image(tmp_path / "moving.nii.gz", scan(MOVING).array, MOVING)
    arguments = ("apply", h5, tmp_path / "moving.nii.gz", "-o", tmp_path / "out.nii.gz")
    done = command(*arguments, "--reference", tmp_path / "wide.nii.gz")
    share = wavy(FIXED).extrapolated(voxels_mm(wide)).mean()
    assert 0.5 < share < 1
    assert f"{100 * share:.2g} % of the voxels lie beyond" in done.err


def test_chain_is_one_interpolation_through_both(tmp_path: Path, command: Command) -> None:
    middle, last = centred_grid((25, 28, 23), (4.0, 3.6, 4.4), "PIR"), centred_grid((22, 21, 24), (4.5, 4.5, 4.0))
    first, then = wavy(middle, MOVING), Transform((np.linalg.inv(small_affine()),), fixed=last, moving=middle)
    first.save(tmp_path / "first.h5")
    then.save(tmp_path / "then.tfm")
    write_image(tmp_path / "moving.nii.gz", scan(MOVING).array, MOVING)
    arguments = ("apply", tmp_path / "first.h5", tmp_path / "moving.nii.gz", "-o", tmp_path / "out.nii.gz")
    assert command(*arguments, "--then", tmp_path / "then.tfm").status == 0
    out = read_image(tmp_path / "out.nii.gz")
    assert out.grid.close_to(last)
    coords = MOVING.to_voxel(first.apply_points(then.apply_points(voxels_mm(last))))
    expected = map_coordinates(scan(MOVING).array.astype(np.float64), np.moveaxis(coords, -1, 0), order=1)
    inner = ((coords > 0.5) & (coords < np.array(MOVING.shape) - 1.5)).all(-1)
    assert np.abs(out.array - expected)[inner].max() < 1e-3 * RANGE_HU


def test_inverse_warps_the_fixed_image_onto_the_moving_grid(tmp_path: Path, h5: Path, command: Command) -> None:
    write_image(tmp_path / "fixed.nii.gz", scan(FIXED).array, FIXED)
    arguments = ("apply", h5, tmp_path / "fixed.nii.gz", "-o", tmp_path / "out.nii.gz", "--inverse")
    assert command(*arguments).status == 0
    expected = wavy(FIXED).inverse().apply(scan(FIXED))
    out = read_image(tmp_path / "out.nii.gz")
    assert out.grid.close_to(MOVING)
    assert np.abs(out.array - expected.array).mean() < 1e-3 * RANGE_HU


def test_jacobian_of_an_affine_map_is_its_determinant(tmp_path: Path, command: Command) -> None:
    Transform((small_affine(),), fixed=FIXED).save(tmp_path / "affine.h5")
    assert command("apply", tmp_path / "affine.h5", "--jacobian", tmp_path / "det.nii.gz").status == 0
    det = read_image_of_one_value(tmp_path / "det.nii.gz")
    assert_allclose(det, np.linalg.det(small_affine()[:3, :3]), atol=1e-4)


def read_image_of_one_value(path: Path) -> NDArray[np.float64]:
    return np.asarray(nibabel.load(path).get_fdata())


def test_jacobian_is_that_of_finite_differences_in_the_patient() -> None:
    transform = wavy(FIXED)
    det = transform.jacobian_determinant()
    step = 0.5
    for index in np.argwhere(np.ones(FIXED.shape))[5000::3001]:
        if (index < 1).any() or (index > np.array(FIXED.shape) - 2).any():
            continue
        point = FIXED.to_world(index)
        ahead, behind = (transform.apply_points(point + s * step * np.eye(3)) for s in (1, -1))
        assert abs(det[tuple(index)] - np.linalg.det((ahead - behind) / (2 * step))) < 0.02


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


BAD: dict[str, Callable[[Path], list[object]]] = {
    "points without a coordinate system": lambda tmp: ["bare.csv", "-o", tmp / "out.csv"],
    "voxels of an unknown moving grid": lambda tmp: ["bare.csv", "-o", tmp / "out.csv", "--coordinates", "voxel"],
    "coordinates of an image": lambda tmp: ["moving.nii.gz", "-o", tmp / "out.nii.gz", "--coordinates", "ras"],
    "reference for points": lambda tmp: ["bare.csv", "-o", tmp / "out.csv", "--reference", tmp / "moving.nii.gz"],
    "no output": lambda tmp: ["moving.nii.gz"],
    "nothing to do": lambda tmp: [],
    "inverse onto an unknown grid": lambda tmp: ["moving.nii.gz", "-o", tmp / "out.nii.gz", "--inverse"],
    "unknown interpolation": lambda tmp: ["moving.nii.gz", "-o", tmp / "out.nii.gz", "--interpolation", "quintic"],
    "unknown coordinates": lambda tmp: ["bare.csv", "-o", tmp / "out.csv", "--coordinates", "mni"],
    "text as a mesh": lambda tmp: ["bare.stl", "-o", tmp / "out.stl", "--coordinates", "ras"],
    "series as a point file": lambda tmp: ["series.nii.gz", "-o", tmp / "out.csv"],
}


@pytest.mark.parametrize("name", BAD)
def test_apply_refuses_what_it_cannot_use_without_output(tmp_path: Path, command: Command, name: str) -> None:
    Transform(wavy(FIXED).parts, fixed=FIXED).save(tmp_path / "transform.h5")
    write_image(tmp_path / "moving.nii.gz", scan(MOVING).array, MOVING)
    series_file(tmp_path / "series.nii.gz", np.float32, (2,))
    for file in ("bare.csv", "bare.stl"):
        (tmp_path / file).write_text("1,2,3\n4,5,6\n")
    before = sorted(tmp_path.iterdir())
    source, *options = BAD[name](tmp_path) or [None]
    one_line(command("apply", tmp_path / "transform.h5", *([tmp_path / str(source)] if source else []), *options))
    assert sorted(tmp_path.iterdir()) == before
