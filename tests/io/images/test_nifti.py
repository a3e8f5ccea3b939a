"""NIfTI headers: what is read from them, and geometry written back byte for byte. nibabel is the oracle."""

import gzip
import sys
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import SimpleITK

from corereg.geometry.grid import Grid
from corereg.io.images.image import from_sitk, read_image, write_image
from corereg.io.images.nifti import GEOMETRY_FIELDS
from helpers.grids import make_grid
from helpers.images import FLOAT32_MM, ramp, save_nifti


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
    assert type(nibabel.load(tmp_path / "out.nii.gz")) is image_class


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


@pytest.mark.parametrize("isal", [True, False])
def test_gzip_in_memory_holds_its_content(monkeypatch: pytest.MonkeyPatch, isal: bool) -> None:
    if not isal:
        monkeypatch.setitem(sys.modules, "isal.igzip", None)
    content = ramp(make_grid()).tobytes()
    packed = gzipped(content)
    assert gzip.decompress(packed) == content
    assert len(packed) < len(content)
    assert packed[3:8] == bytes(5)


def test_disagreeing_sform_and_qform_are_told(tmp_path: Path) -> None:
    path = save_nifti(tmp_path / "scan.nii", ramp(make_grid()), make_grid().affine, qform_code=1, qoffset_x=5)
    with pytest.warns(UserWarning, match="sform and its qform disagree"):
        assert read_image(path).grid.close_to(make_grid(), FLOAT32_MM)


def test_sheared_grid_survives_a_nifti_file(tmp_path: Path) -> None:
    affine = make_grid(orientation="oblique").affine.copy()
    affine[:3, 2] += 0.3 * affine[:3, 1]
    grid = Grid(make_grid().shape, affine)
    write_image(tmp_path / "scan.nii.gz", ramp(grid), grid)
    with pytest.warns(UserWarning, match="disagree"):  # a quaternion holds no shear
        assert read_image(tmp_path / "scan.nii.gz").grid.close_to(grid, FLOAT32_MM)


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
