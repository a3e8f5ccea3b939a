"""NIfTI headers: what is read from them, and geometry written back byte for byte. nibabel is the oracle."""

import gzip
import itertools
import tracemalloc
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import SimpleITK
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from corereg.geometry.grid import Grid
from corereg.io.images.image import from_sitk, read_image, write_image
from corereg.io.images.nifti import GEOMETRY_FIELDS
from corereg.io.images.nifti_geometry import upright
from helpers.grids import make_grid
from helpers.images import FLOAT32_MM, ramp, save_nifti
from helpers.refusals import refusal


@pytest.mark.parametrize("forms", ["both", "qform", "sform", "none"])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.filterwarnings("ignore:.*neither sform nor qform")
def test_geometry_of_a_nifti_header_is_written_back_byte_for_byte(
    tmp_path: Path, grid: Grid, forms: str, suffix: str
) -> None:
    fields = {
        "qform_code": 3 if forms in ("both", "qform") else 0,
        "sform_code": 2 if forms in ("both", "sform") else 0,
    }
    source = save_nifti(tmp_path / "source.nii", ramp(grid), grid.affine, **fields, xyzt_units=10, descrip=b"scanner")
    image = read_image(source)
    write_image(tmp_path / f"out{suffix}", image.array.astype(np.float64), image)
    before, after = nibabel.load(source), nibabel.load(tmp_path / f"out{suffix}")
    for field in GEOMETRY_FIELDS:
        assert before.header[field].tobytes() == after.header[field].tobytes(), field
    assert (after.get_data_dtype(), after.header["descrip"].item()) == (np.float32, b"corereg")
    np.testing.assert_array_equal(after.affine, before.affine)
    np.testing.assert_array_equal(after.get_fdata(), ramp(grid))


def test_header_of_qfac_0_is_kept_as_it_is(tmp_path: Path) -> None:
    grid = make_grid()
    pixdim = [0, *grid.spacing, 0, 0, 0, 0]
    source = save_nifti(tmp_path / "source.nii", ramp(grid), grid.affine, qform_code=0, pixdim=pixdim)
    image = read_image(source)
    write_image(tmp_path / "out.nii", image.array, image)
    assert (tmp_path / "out.nii").read_bytes()[76:108] == source.read_bytes()[76:108]


@pytest.mark.parametrize("image_class", [nibabel.Nifti1Image, nibabel.Nifti2Image])
@pytest.mark.parametrize("endianness", ["<", ">"])
def test_nifti_of_either_byte_order_and_version_reads_alike(tmp_path: Path, endianness: str, image_class: Any) -> None:
    grid = make_grid(orientation="oblique")
    header = image_class.header_class(endianness=endianness)
    header.set_data_dtype(np.int16)
    image_class(ramp(grid), grid.affine, header).to_filename(tmp_path / "source.nii.gz")
    image = read_image(tmp_path / "source.nii.gz")
    assert image.array.dtype.isnative
    write_image(tmp_path / "out.nii.gz", image.array, image)
    for path in (tmp_path / "source.nii.gz", tmp_path / "out.nii.gz"):
        np.testing.assert_array_equal(read_image(path).array, ramp(grid))
        assert read_image(path).grid.close_to(grid, FLOAT32_MM)
    # NIfTI-1 whatever was read: tools built on ITK do not open NIfTI-2.
    assert type(nibabel.load(tmp_path / "out.nii.gz")) is nibabel.Nifti1Image
    oracle = from_sitk(SimpleITK.ReadImage(str(tmp_path / "out.nii.gz")))
    np.testing.assert_array_equal(oracle[0], ramp(grid))
    assert oracle[1].close_to(grid, 2e-3)


def test_scaled_nifti_is_read_as_float32_in_its_units(tmp_path: Path) -> None:
    grid = make_grid()
    path = save_nifti(tmp_path / "scan.nii", ramp(grid), grid.affine, scl_slope=0.5, scl_inter=-24)
    image = read_image(path)
    assert image.array.dtype == np.float32
    np.testing.assert_array_equal(image.array, ramp(grid) * 0.5 - 24)


@pytest.mark.parametrize(("units", "millimetres"), [(0, 1), (1, 1000), (2, 1), (3, 0.001)])
def test_units_of_a_nifti_header_count(tmp_path: Path, units: int, millimetres: float) -> None:
    path = save_nifti(tmp_path / "scan.nii", ramp(make_grid()), np.diag([2, 2.5, 3, 1]), xyzt_units=units)
    assert read_image(path).grid.spacing == pytest.approx(np.array([2, 2.5, 3]) * millimetres)
    _, oracle = from_sitk(SimpleITK.ReadImage(str(path)))
    assert oracle.spacing == pytest.approx(read_image(path).grid.spacing)


def test_image_without_header_gets_equal_sform_and_qform_in_millimetres(tmp_path: Path, grid: Grid) -> None:
    write_image(tmp_path / "scan.nii.gz", ramp(grid), grid)
    written = nibabel.load(tmp_path / "scan.nii.gz")
    header = written.header
    assert (header["sform_code"], header["qform_code"], header.get_xyzt_units()[0]) == (1, 1, "mm")
    np.testing.assert_allclose(header.get_sform(), header.get_qform(), atol=2e-3)
    assert (header["intent_code"], written.dataobj.slope, written.dataobj.inter) == (0, 1, 0)


def test_gzip_tells_neither_time_nor_name(tmp_path: Path) -> None:
    write_image(tmp_path / "scan.nii.gz", ramp(make_grid()), make_grid())
    assert (tmp_path / "scan.nii.gz").read_bytes()[3:8] == bytes(5)  # flags and time


def test_disagreeing_sform_and_qform_are_reported(tmp_path: Path) -> None:
    path = save_nifti(tmp_path / "scan.nii", ramp(make_grid()), make_grid().affine, qform_code=1, qoffset_x=5)
    with pytest.warns(UserWarning, match="sform and its qform disagree"):
        assert read_image(path).grid.close_to(make_grid(), FLOAT32_MM)


def spot(grid: Grid) -> NDArray[np.uint8]:
    array = np.zeros(grid.shape, np.uint8)
    array[0, 0, 0] = 1
    return array


AXIS_ORDERS = [
    "".join(letters)
    for order in itertools.permutations(("RL", "AP", "SI"))
    for letters in itertools.product(*order)
]  # fmt: skip


@pytest.mark.parametrize("letters", AXIS_ORDERS)
def test_qform_of_every_axis_order_is_where_itk_and_nibabel_see_it(tmp_path: Path, letters: str) -> None:
    # Many of these are half turns, where the rounding of a float32 quaternion counts most.
    grid = make_grid((31, 256, 240), (1.0, 1.0, 1.2), letters)
    image = nibabel.Nifti1Image(spot(grid), grid.affine)
    image.set_sform(grid.affine, 0)
    image.set_qform(grid.affine, 1)
    image.to_filename(tmp_path / "qform.nii")
    read = read_image(tmp_path / "qform.nii").grid
    assert read.close_to(grid, 1e-3)
    assert read.close_to(from_sitk(SimpleITK.ReadImage(tmp_path / "qform.nii"))[1], 1e-3)
    image.set_sform(grid.affine, 1)
    image.to_filename(tmp_path / "both.nii")
    assert read_image(tmp_path / "both.nii").grid.close_to(grid, FLOAT32_MM)  # without a warning


@pytest.mark.parametrize("sign", [-3.0, -0.5, 0.0, 2.0])
def test_qform_is_mirrored_by_the_sign_of_its_first_spacing_as_in_itk(tmp_path: Path, sign: float) -> None:
    image = nibabel.Nifti1Image(ramp(make_grid()), None)
    image.set_qform(make_grid(orientation="oblique").affine, 1)
    image.to_filename(tmp_path / "scan.nii")
    data = bytearray((tmp_path / "scan.nii").read_bytes())
    data[76:80] = np.float32(sign).tobytes()
    (tmp_path / "scan.nii").write_bytes(data)
    expected = from_sitk(SimpleITK.ReadImage(tmp_path / "scan.nii"))[1]
    assert read_image(tmp_path / "scan.nii").grid.close_to(expected, 1e-3)


@pytest.mark.parametrize("off_degrees", [0.0, 0.003, 0.02, 0.1, 1.0])
def test_forms_apart_by_a_rounded_quaternion_alone_do_not_disagree(tmp_path: Path, off_degrees: float) -> None:
    turned = Rotation.from_euler("xyz", [off_degrees, 0.7 * off_degrees, -off_degrees], degrees=True).as_matrix()
    grid = make_grid((256, 240, 200), (1.0, 1.0, 1.2), "LIA")
    affine = grid.affine.copy()
    affine[:3, :3] = turned @ affine[:3, :3]
    write_image(tmp_path / "scan.nii", spot(grid), Grid(grid.shape, affine))
    assert read_image(tmp_path / "scan.nii").grid.close_to(Grid(grid.shape, affine), FLOAT32_MM)  # without a warning


@pytest.fixture
def sheared() -> Grid:
    affine = make_grid(orientation="oblique").affine.copy()
    affine[:3, 2] += 0.3 * affine[:3, 1]
    return Grid(make_grid().shape, affine)


def test_sheared_grid_survives_a_nifti_file_and_is_reported(tmp_path: Path, sheared: Grid) -> None:
    with pytest.warns(UserWarning, match=r"scan.nii.gz: its sform is sheared \(by up to 4.51 mm\)"):
        write_image(tmp_path / "scan.nii.gz", ramp(sheared), sheared)
    with pytest.warns(UserWarning, match=r"its sform is sheared \(by up to 4.51 mm\)"):
        assert read_image(tmp_path / "scan.nii.gz").grid.close_to(sheared, FLOAT32_MM)


def test_sheared_grid_is_read_by_itk_from_nrrd(tmp_path: Path, sheared: Grid) -> None:
    write_image(tmp_path / "scan.nrrd", ramp(sheared), sheared)
    assert from_sitk(SimpleITK.ReadImage(str(tmp_path / "scan.nrrd")))[1].close_to(sheared, 1e-3)


def test_upright_grid_covers_a_sheared_one(sheared: Grid) -> None:
    box = upright(sheared)
    np.testing.assert_allclose(box.linear.T @ box.linear, np.diag(np.square(sheared.spacing)), atol=1e-9)
    corners = np.stack(np.meshgrid(*([0, n - 1] for n in sheared.shape), indexing="ij"), -1).reshape(-1, 3)
    at = box.to_voxel(sheared.to_world(corners))
    assert (at > -1e-5).all()
    assert (at < np.array(box.shape) - 1 + 1e-5).all()
    assert (at.min(0) < 1).all()


def test_size_that_nifti1_cannot_count_is_written_as_nifti2(tmp_path: Path) -> None:
    grid = Grid((40000, 2, 3), make_grid().affine)
    array = (np.arange(240000) % 251).astype(np.uint8).reshape(grid.shape)
    write_image(tmp_path / "scan.nii", array, grid)
    assert type(nibabel.load(tmp_path / "scan.nii")) is nibabel.Nifti2Image
    np.testing.assert_array_equal(read_image(tmp_path / "scan.nii").array, array)


def test_quaternion_rounded_beyond_1_does_not_hide_a_valid_sform(tmp_path: Path) -> None:
    grid = make_grid(orientation="LPS")
    image = nibabel.Nifti1Image(ramp(grid), grid.affine)
    image.set_qform(grid.affine, 1)
    image.to_filename(tmp_path / "whole.nii")
    fields = {name: image.header[name] for name in ("quatern_b", "quatern_c", "qoffset_x", "qoffset_y", "qoffset_z")}
    path = save_nifti(tmp_path / "scan.nii", ramp(grid), grid.affine, qform_code=1, quatern_d=1.0000005, **fields)
    read = read_image(path)
    assert read.grid.close_to(grid, FLOAT32_MM)
    np.testing.assert_array_equal(read.array, ramp(grid))


def test_sform_of_zeros_gives_way_to_a_good_qform(tmp_path: Path, grid: Grid) -> None:
    image = nibabel.Nifti1Image(ramp(grid), grid.affine)
    image.set_qform(grid.affine, 1)
    image.to_filename(tmp_path / "whole.nii")
    header = nibabel.load(tmp_path / "whole.nii").header
    fields = {f"quatern_{x}": header[f"quatern_{x}"] for x in "bcd"} | {
        f"qoffset_{x}": header[f"qoffset_{x}"] for x in "xyz"
    }
    zeros = {f"srow_{x}": [0, 0, 0, 0] for x in "xyz"}
    path = save_nifti(
        tmp_path / "scan.nii", ramp(grid), grid.affine, qform_code=1, pixdim=header["pixdim"], **fields, **zeros
    )
    with pytest.warns(UserWarning, match="its sform is singular; the qform is used"):
        read = read_image(path)
    assert read.grid.close_to(grid, 2e-3)
    assert read.header is None, "it would be written back with the sform that others read"


def test_intercept_that_is_nan_means_0(tmp_path: Path) -> None:
    path = save_nifti(tmp_path / "scan.nii", ramp(make_grid()), make_grid().affine, scl_slope=2, scl_inter=np.nan)
    np.testing.assert_array_equal(read_image(path).array, ramp(make_grid()) * 2)


@pytest.mark.parametrize("suffix", [".hdr", ".img"])
def test_pair_of_files_is_read_by_either_name(tmp_path: Path, grid: Grid, suffix: str) -> None:
    nibabel.Nifti1Pair(ramp(grid), grid.affine).to_filename(tmp_path / "scan.img")
    image = read_image(tmp_path / f"scan{suffix}")
    np.testing.assert_array_equal(image.array, ramp(grid))
    assert image.grid.close_to(grid, FLOAT32_MM)


def test_half_a_pair_is_refused(tmp_path: Path) -> None:
    nibabel.Nifti1Pair(ramp(make_grid()), make_grid().affine).to_filename(tmp_path / "scan.img")
    (tmp_path / "scan.img").unlink()
    assert "scan.img is not there" in refusal(read_image, tmp_path / "scan.hdr")


def test_analyze_image_is_refused_for_its_missing_orientation(tmp_path: Path) -> None:
    nibabel.AnalyzeImage(ramp(make_grid()), make_grid().affine).to_filename(tmp_path / "scan.img")
    assert "does not tell left from right" in refusal(read_image, tmp_path / "scan.hdr")


def test_gzip_without_its_suffix_is_read_and_reported(tmp_path: Path) -> None:
    grid = make_grid()
    save_nifti(tmp_path / "scan.nii.gz", ramp(grid), grid.affine).rename(tmp_path / "scan.nii")
    with pytest.warns(UserWarning, match="compressed by gzip, though its name does not end in .gz") as warned:
        np.testing.assert_array_equal(read_image(tmp_path / "scan.nii").array, ramp(grid))
    assert len(warned) == 1


def test_gzip_of_the_voxels_of_a_pair_without_its_suffix_is_reported(tmp_path: Path) -> None:
    grid = make_grid()
    nibabel.Nifti1Pair(ramp(grid), grid.affine).to_filename(tmp_path / "scan.img")
    (tmp_path / "scan.img").write_bytes(gzip.compress((tmp_path / "scan.img").read_bytes()))
    with pytest.warns(UserWarning, match=r"scan\.img: it is compressed by gzip") as warned:
        np.testing.assert_array_equal(read_image(tmp_path / "scan.hdr").array, ramp(grid))
    assert len(warned) == 1


def test_gzip_of_several_members_is_read(tmp_path: Path) -> None:
    grid = make_grid()
    content = save_nifti(tmp_path / "whole.nii", ramp(grid), grid.affine).read_bytes()
    members = [gzip.compress(content[start : start + 3000]) for start in range(0, len(content), 3000)]
    (tmp_path / "scan.nii.gz").write_bytes(b"".join(members))
    np.testing.assert_array_equal(read_image(tmp_path / "scan.nii.gz").array, ramp(grid))


def test_nothing_beyond_the_declared_size_is_inflated(tmp_path: Path) -> None:
    grid = make_grid()
    content = save_nifti(tmp_path / "whole.nii", ramp(grid), grid.affine).read_bytes()
    (tmp_path / "scan.nii.gz").write_bytes(gzip.compress(content + bytes(100_000_000), 1))
    tracemalloc.start()
    image = read_image(tmp_path / "scan.nii.gz")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    np.testing.assert_array_equal(image.array, ramp(grid))
    assert peak < 20_000_000


@pytest.mark.parametrize("name", ["scan.nii", "scan.nii.gz"])
@pytest.mark.parametrize(
    "sizes", [[3, 30000, 30000, 30000, 1, 1, 1, 1], [7] + [32767] * 7, [3, -5, 16, 20, 1, 1, 1, 1]]
)
def test_sizes_that_the_file_cannot_hold_are_refused_before_reading(
    tmp_path: Path, name: str, sizes: list[int]
) -> None:
    path = save_nifti(tmp_path / "scan.nii", ramp(make_grid()), make_grid().affine, dim=sizes)
    if name.endswith(".gz"):
        (tmp_path / name).write_bytes(gzip.compress(path.read_bytes()))
    message = refusal(read_image, tmp_path / name)
    assert any(word in message for word in ("free memory", "positive sizes", "D of shape")), message


@pytest.mark.parametrize("fields", [{"pixdim": [1, 1e38, 1.5, 3, 0, 0, 0, 0]}, {"qoffset_x": 1e38}])
def test_geometry_that_no_patient_has_is_refused(tmp_path: Path, fields: dict[str, Any]) -> None:
    grid = make_grid()
    path = save_nifti(tmp_path / "scan.nii", ramp(grid), grid.affine, sform_code=0, qform_code=1, **fields)
    assert "from the origin of the world" in refusal(read_image, path)


@pytest.mark.parametrize(
    ("kind", "same"),
    [("q1e-6.nii", "q_ok.nii"), ("sform_zero_code1.nii", "slope1_internan.nii"), ("gz_named.nii", "pair.hdr")],
)
@pytest.mark.filterwarnings("ignore:.*singular; the qform", "ignore:.*compressed by gzip")
def test_shared_headers_are_read_like_their_sound_twins(cases_dir: Path, kind: str, same: str) -> None:
    image, twin = (read_image(cases_dir / "nifti" / name) for name in (kind, same))
    np.testing.assert_array_equal(image.array, twin.array)
    assert image.grid.close_to(twin.grid, 2e-3)


def test_shared_nifti2_becomes_nifti1(cases_dir: Path, tmp_path: Path) -> None:
    image = read_image(cases_dir / "nifti" / "nifti2.nii")
    write_image(tmp_path / "out.nii.gz", image.array, image)
    assert from_sitk(SimpleITK.ReadImage(str(tmp_path / "out.nii.gz")))[1].close_to(image.grid, 2e-3)


@pytest.mark.parametrize("name", ["abdomen/patient_b", "abdomen/patient_c", "brain/mni152", "ct_mr/sts_001_mr"])
def test_real_scan_keeps_its_place_and_header(data_dir: Path, tmp_path: Path, name: str) -> None:
    source = data_dir / f"{name}.nii.gz"
    image = read_image(source)
    array, grid = from_sitk(SimpleITK.ReadImage(str(source)))
    np.testing.assert_array_equal(image.array, array)
    assert image.grid.close_to(grid, 1e-2)
    write_image(tmp_path / "out.nii.gz", image.array, image)
    before, after = nibabel.load(source).header, nibabel.load(tmp_path / "out.nii.gz").header
    assert all(before[field].tobytes() == after[field].tobytes() for field in GEOMETRY_FIELDS)
