"""`corereg apply` to series, vector images and label maps, and Jacobians."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import SimpleITK
from numpy.testing import assert_allclose
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates

from corereg.io.images.image import Image, read_image, write_image
from corereg.io.images.itk import to_sitk
from corereg.io.transforms.transform import Transform
from helpers.commands import Command, one_line
from helpers.scenes import centred_grid, scan, voxels_mm
from helpers.transforms import MOVING, RANGE_HU, label_map, small_affine, wavy

FIXED = centred_grid((26, 24, 30), (4.0, 4.2, 3.0), "oblique")


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


@pytest.mark.parametrize(
    "words",
    [
        ("apply", "{h5}", "{scan}", "-o", "{out}", "--jacobian", "{again}"),
        ("apply", "{h5}", "{scan}", "-o", "{scan}", "--force"),
        ("apply", "{h5}", "--jacobian", "{h5}", "--force"),
        ("convert", "{h5}", "-o", "{h5}", "--force"),
    ],
)
def test_no_output_takes_the_place_of_an_input_or_another(
    tmp_path: Path, h5: Path, command: Command, words: tuple[str, ...]
) -> None:
    write_image(tmp_path / "scan.nii.gz", scan(MOVING).array, MOVING)
    places = {"h5": h5, "scan": tmp_path / "scan.nii.gz", "out": tmp_path / "out.nii.gz"}
    places |= {"again": tmp_path / ".." / tmp_path.name / "out.nii.gz"}
    before = {path: path.read_bytes() for path in (h5, places["scan"])}
    assert "of the same command" in one_line(command(*(word.format(**places) for word in words)))
    assert {path: path.read_bytes() for path in before} == before
    assert not places["out"].exists()


def test_a_set_of_files_is_not_replaced_by_a_part_of_it(tmp_path: Path, h5: Path, command: Command) -> None:
    assert command("convert", h5, "-o", tmp_path / "pair_", "--to", "ants").status == 0
    warp = tmp_path / "pair_1Warp.nii.gz"
    before = warp.read_bytes()
    assert "of the same command" in one_line(
        command("convert", tmp_path / "pair_", "-o", warp, "--to", "fsl", "--force")
    )
    done = command("convert", tmp_path / "pair_", "-o", tmp_path / "pair_", "--to", "ants", "--force")
    assert "of the same command" in one_line(done)
    assert warp.read_bytes() == before


def test_nothing_is_written_where_one_of_two_names_is_wrong(tmp_path: Path, h5: Path, command: Command) -> None:
    write_image(tmp_path / "scan.nii.gz", scan(MOVING).array, MOVING)
    out = tmp_path / "out.nii.gz"
    done = command("apply", h5, tmp_path / "scan.nii.gz", "-o", out, "--jacobian", tmp_path / "det.txt")
    assert "det.txt" in one_line(done)
    assert not out.exists()


def test_an_image_of_few_whole_numbers_is_said_to_be_interpolated(tmp_path: Path, h5: Path, command: Command) -> None:
    write_image(tmp_path / "labels.nii.gz", label_map(MOVING, np.uint8).array, MOVING)
    arguments = ("apply", h5, tmp_path / "labels.nii.gz", "--force", "-o", tmp_path / "out.nii.gz")
    assert "--labels keeps them" in command(*arguments).err
    assert "--labels keeps them" not in command(*arguments, "--labels").err
    assert "--labels keeps them" not in command(*arguments, "--interpolation", "nearest").err


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
