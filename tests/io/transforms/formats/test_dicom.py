"""DICOM registration objects, evaluated here by the formulas of the standard (PS3.3 C.20.2 and C.20.3)."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from numpy.testing import assert_allclose
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates
from scipy.spatial.transform import Rotation

from corereg.geometry.grid import transform_points
from corereg.io.images.image import Image, read_image
from corereg.io.images.itk import LPS_RAS
from corereg.io.transforms.convert import convert_transform
from corereg.io.transforms.formats.registry import FORMATS, detect_format
from corereg.io.transforms.transform import Transform
from helpers.dicom import write_patient
from helpers.refusals import refusal
from helpers.scenes import centred_grid, scan, voxels_mm
from helpers.transforms import FIXED, MOVING, small_affine, wavy

LPS = LPS_RAS[:3, :3]
FRAMES = ("1.2.3.4", "1.2.3.5")
TOLERANCE_MM = 1e-3


def with_frames(transform: Transform) -> Any:
    return replace(transform.stored(), frames=FRAMES)


def homogeneous(values: Any) -> NDArray[np.float64]:
    return np.array([float(value) for value in values]).reshape(4, 4)


def by_the_standard(path: Path, points_mm: NDArray[np.float64]) -> NDArray[np.float64]:
    """Source = Post (Pre x + d(x)), the offsets indexed by x in the Registered frame."""
    (item,) = pydicom.dcmread(path).DeformableRegistrationSequence
    (grid,) = item.DeformableRegistrationGridSequence
    pre, post = (
        homogeneous(item[name].value[0].FrameOfReferenceTransformationMatrix)
        for name in ("PreDeformationMatrixRegistrationSequence", "PostDeformationMatrixRegistrationSequence")
    )
    x = points_mm @ LPS
    row, column = np.array(grid.ImageOrientationPatient, dtype=float).reshape(2, 3)
    axes = np.stack([row, column, np.cross(row, column)], 1) * np.array(grid.GridResolution)
    indices = (x - np.array(grid.ImagePositionPatient, dtype=float)) @ np.linalg.inv(axes).T
    columns, rows, planes = grid.GridDimensions
    # The first vector is followed by the others of its row, then by the next row.
    vectors = np.frombuffer(grid.VectorGridData, "<f4").reshape(planes, rows, columns, 3)
    d = np.stack([map_coordinates(vectors[..., c].T, indices.T, order=1, mode="nearest") for c in range(3)], -1)
    return transform_points(post, transform_points(pre, x) + d) @ LPS


@pytest.mark.parametrize("orientation", ["oblique", "PIR", "LAS", "RPS"])
@pytest.mark.parametrize("part", ["deformation", "both"])
def test_deformation_means_by_the_standard_what_it_means_here(tmp_path: Path, orientation: str, part: str) -> None:
    fixed = centred_grid(FIXED.shape, FIXED.spacing, orientation)
    transform = wavy(fixed) if part == "both" else wavy(fixed).named("deformation")
    transform.save(tmp_path / "transform.h5")
    convert_transform(tmp_path / "transform.h5", tmp_path / "reg.dcm", frames=FRAMES)
    points = voxels_mm(fixed).reshape(-1, 3)
    expected = transform.apply_points(points)
    assert_allclose(by_the_standard(tmp_path / "reg.dcm", points), expected, atol=TOLERANCE_MM)
    assert detect_format(tmp_path / "reg.dcm") == "dicom"
    assert_allclose(Transform.load(tmp_path / "reg.dcm").apply_points(points), expected, atol=TOLERANCE_MM)
    data = pydicom.dcmread(tmp_path / "reg.dcm")
    assert data.FrameOfReferenceUID == FRAMES[0]
    assert data.DeformableRegistrationSequence[0].SourceFrameOfReferenceUID == FRAMES[1]


def test_matrix_before_the_deformation_is_read_as_the_standard_says(tmp_path: Path) -> None:
    FORMATS["dicom"].write(tmp_path / "reg.dcm", with_frames(wavy(FIXED)))
    data = pydicom.dcmread(tmp_path / "reg.dcm")
    (item,) = data.DeformableRegistrationSequence
    pre = np.eye(4)
    pre[:3, :3] = Rotation.from_euler("xyz", [3.0, -2.0, 5.0], degrees=True).as_matrix() @ np.diag([1.1, 0.9, 1.0])
    pre[:3, 3] = 4.0, -2.0, 1.5
    item.PreDeformationMatrixRegistrationSequence[0].FrameOfReferenceTransformationMatrix = [
        f"{value:.12g}"[:16] for value in pre.ravel()
    ]
    data.save_as(tmp_path / "reg.dcm")
    points = voxels_mm(FIXED).reshape(-1, 3)[::37]
    found = Transform.load(tmp_path / "reg.dcm").apply_points(points)
    assert_allclose(found, by_the_standard(tmp_path / "reg.dcm", points), atol=TOLERANCE_MM)
    del item.PreDeformationMatrixRegistrationSequence, item.PostDeformationMatrixRegistrationSequence
    data.save_as(tmp_path / "bare.dcm")
    expected = wavy(FIXED).named("deformation").apply_points(points)
    assert_allclose(Transform.load(tmp_path / "bare.dcm").apply_points(points), expected, atol=TOLERANCE_MM)


@pytest.mark.parametrize("kind", ["RIGID", "RIGID_SCALE", "AFFINE"])
def test_matrix_leads_from_the_moving_frame_to_the_fixed_one(tmp_path: Path, kind: str) -> None:
    matrix = small_affine()
    if kind != "AFFINE":
        matrix[:3, :3] = Rotation.from_euler("xyz", [4.0, -3.0, 6.0], degrees=True).as_matrix()
    if kind == "RIGID_SCALE":
        matrix[:3, :3] = np.diag([1.1, 0.9, 1.05]) @ matrix[:3, :3]
    Transform((matrix,), FIXED, MOVING).save(tmp_path / "affine.tfm")
    convert_transform(tmp_path / "affine.tfm", tmp_path / "reg.dcm", frames=FRAMES)
    data = pydicom.dcmread(tmp_path / "reg.dcm")
    matrices = {
        item.FrameOfReferenceUID: item.MatrixRegistrationSequence[0].MatrixSequence[0]
        for item in data.RegistrationSequence
    }
    assert data.FrameOfReferenceUID == FRAMES[0]
    assert_allclose(homogeneous(matrices[FRAMES[0]].FrameOfReferenceTransformationMatrix), np.eye(4))
    assert matrices[FRAMES[1]].FrameOfReferenceTransformationMatrixType == kind
    to_fixed = homogeneous(matrices[FRAMES[1]].FrameOfReferenceTransformationMatrix)
    points = np.random.default_rng(0).uniform(-50, 50, (30, 3))
    there = transform_points(matrix, points)
    assert_allclose(transform_points(to_fixed, there @ LPS) @ LPS, points, atol=1e-6)
    assert_allclose(Transform.load(tmp_path / "reg.dcm").apply_points(points), there, atol=1e-6)


@pytest.fixture
def series(tmp_path: Path) -> tuple[Path, Path, Image, Image]:
    """Two DICOM series of one patient, in frames of their own."""
    images = []
    for name, frame, study in (("fixed", "1.2.3.4", "1.2.7"), ("moving", "1.2.3.5", "1.2.8")):
        grid = centred_grid((22, 20, 7 + len(name)), (3.0, 3.5, 5.0), "oblique")
        write_patient(tmp_path / name, (scan(grid).array + 1024).astype(np.uint16), grid, study=study, frame=frame)
        images.append(read_image(tmp_path / name))
    return tmp_path / "fixed", tmp_path / "moving", images[0], images[1]


def test_frames_patient_and_references_come_from_the_series(
    tmp_path: Path, series: tuple[Path, Path, Image, Image]
) -> None:
    fixed, moving, fixed_image, moving_image = series
    Transform((small_affine(),), fixed_image.grid, moving_image.grid).save(tmp_path / "t.tfm")
    refused = refusal(convert_transform, tmp_path / "t.tfm", tmp_path / "reg.dcm", fixed=fixed)
    assert "add --moving FOLDER or --moving-frame UID" in refused
    assert not (tmp_path / "reg.dcm").exists()
    convert_transform(tmp_path / "t.tfm", tmp_path / "reg.dcm", fixed=fixed, moving=moving)
    data = pydicom.dcmread(tmp_path / "reg.dcm")
    assert (data.PatientName, data.PatientID, data.StudyInstanceUID) == ("Doe^Jane", "4711", "1.2.7")
    assert [item.FrameOfReferenceUID for item in data.RegistrationSequence] == list(FRAMES)
    slices = [len(item.ReferencedImageSequence) for item in data.RegistrationSequence]
    assert slices == [fixed_image.grid.shape[2], moving_image.grid.shape[2]]
    (own,) = data.ReferencedSeriesSequence
    (other,) = data.StudiesContainingOtherReferencedInstancesSequence
    assert (own.SeriesInstanceUID, other.StudyInstanceUID) == ("1.2.7.1", "1.2.8")
    assert len(other.ReferencedSeriesSequence[0].ReferencedInstanceSequence) == moving_image.grid.shape[2]


def test_objects_that_say_something_else_are_refused(tmp_path: Path) -> None:
    FORMATS["dicom"].write(tmp_path / "reg.dcm", with_frames(wavy(FIXED)))
    data = pydicom.dcmread(tmp_path / "reg.dcm")
    content = data.DeformableRegistrationSequence[0].DeformableRegistrationGridSequence[0]
    whole = np.frombuffer(content.VectorGridData, "<f4").copy()
    for values, message in ((whole[:-3], "export it again"), (np.where(whole > 3, np.nan, whole), "undefined")):
        content.VectorGridData = values.astype("<f4").tobytes()
        data.save_as(tmp_path / "bad.dcm")
        assert message in refusal(Transform.load, tmp_path / "bad.dcm")
    data.SOPClassUID = pydicom.uid.CTImageStorage
    data.save_as(tmp_path / "ct.dcm")
    assert "CT Image Storage, expected a Spatial Registration" in refusal(Transform.load, tmp_path / "ct.dcm")
    data.file_meta.TransferSyntaxUID = pydicom.uid.DeflatedExplicitVRLittleEndian
    data.save_as(tmp_path / "deflated.dcm")
    assert "compressed as a whole" in refusal(Transform.load, tmp_path / "deflated.dcm")
    (tmp_path / "cut.dcm").write_bytes((tmp_path / "reg.dcm").read_bytes()[:700])
    assert "damaged" in refusal(Transform.load, tmp_path / "cut.dcm")
    FORMATS["dicom"].write(tmp_path / "rigid.dcm", with_frames(Transform((small_affine(),), FIXED, MOVING)))
    data = pydicom.dcmread(tmp_path / "rigid.dcm")
    data.RegistrationSequence.append(data.RegistrationSequence[1])
    data.save_as(tmp_path / "three.dcm")
    assert "expected one moving one" in refusal(Transform.load, tmp_path / "three.dcm")


def test_grid_too_fine_for_a_decimal_string_keeps_its_place(tmp_path: Path) -> None:
    """Positions are decimal strings of 16 characters."""
    grid = centred_grid((5, 4, 6), (0.7123456789, 1.3, 2.1), "oblique", (-812.3, 633.1, 1000.0 / 3))
    transform = Transform.from_field(np.zeros((3, *grid.shape), np.float32) + np.float32(0.25), grid)
    FORMATS["dicom"].write(tmp_path / "reg.dcm", with_frames(transform))
    assert Transform.load(tmp_path / "reg.dcm").fixed_grid.close_to(grid, 1e-6)
