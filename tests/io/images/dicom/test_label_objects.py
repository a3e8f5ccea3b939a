"""DICOM segmentations and structure sets as label maps, made and read by other means than the package's."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray

from corereg.geometry.grid import Grid
from corereg.io.images.companions import as_mask
from corereg.io.images.image import Image, read_image, read_labels, write_image
from corereg.io.images.itk import LPS_RAS
from corereg.io.images.label_names import numbered_like
from corereg.io.transforms.apply import ImageOptions, apply_to_file
from corereg.io.transforms.transform import Transform
from helpers.dicom import write_patient, write_structures
from helpers.refusals import refusal
from helpers.scenes import centred_grid, scan, voxels_mm

hd = pytest.importorskip("highdicom", reason="pip install 'corereg[dicom]'")

GRID = centred_grid((22, 20, 11), (3.0, 3.5, 5.0), "oblique")
LPS = LPS_RAS[:3, :3]


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dicom") / "ct"
    return write_patient(folder, (scan(GRID).array + 1024).astype(np.uint16), GRID, study="1.2.7", frame="1.2.3.4")


def labels_on(grid: Grid, shift: float = 0.0) -> NDArray[np.uint8]:
    """Two bodies that leave slices at both ends empty."""
    points = voxels_mm(grid) - shift
    first = np.linalg.norm((points - [8.0, 0.0, 0.0]) / [12.0, 18.0, 14.0], axis=-1) < 1
    second = np.linalg.norm((points - [-14.0, -3.0, 2.0]) / [8.0, 12.0, 16.0], axis=-1) < 1
    return np.select([first, second], [1, 2], 0).astype(np.uint8)


def description(number: int, name: str) -> Any:
    category, kind = (hd.sr.CodedConcept(*code, "Organ") for code in (("123037004", "SCT"), ("10200004", "SCT")))
    return hd.seg.SegmentDescription(number, name, category, kind, "MANUAL")


def write_seg(path: Path, series: Path, labels: NDArray[np.uint8], names: Sequence[str], kind: str = "BINARY") -> Path:
    """As any program would write it, slice by slice of the series."""
    files = sorted((pydicom.dcmread(file) for file in series.iterdir()), key=lambda data: int(data.InstanceNumber))
    hd.seg.Segmentation(
        source_images=files,
        pixel_array=np.ascontiguousarray(labels.transpose(2, 1, 0)),
        segmentation_type=kind,
        segment_descriptions=[description(number, name) for number, name in enumerate(names, 1)],
        series_instance_uid="1.2.7.2",
        series_number=2,
        sop_instance_uid="1.2.7.2.1",
        instance_number=1,
        manufacturer="none",
        manufacturer_model_name="none",
        software_versions="1",
        device_serial_number="1",
    ).save_as(path)
    return path


@pytest.mark.parametrize("kind", ["BINARY", "LABELMAP"])
def test_segmentation_lies_on_the_grid_of_its_image(tmp_path: Path, series: Path, kind: str) -> None:
    path = write_seg(tmp_path / "seg.dcm", series, labels_on(GRID), ["liver", "spleen"], kind)
    image = read_image(series)
    labels = read_labels(path, image.grid)
    assert_array_equal(labels.array, labels_on(GRID))
    assert labels.grid.close_to(image.grid)
    assert labels.label_names == {1: "liver", 2: "spleen"}
    own = read_labels(path)  # only the slices that are in the object, in their places
    assert own.grid.shape[2] <= GRID.shape[2]
    middle = GRID.to_world(np.argwhere(labels_on(GRID) == 1)).mean(0)
    assert_allclose(own.grid.to_world(np.argwhere(own.array == 1)).mean(0), middle, atol=1e-3)
    assert_array_equal(as_mask(path, like=image.grid, of="the image").array, labels_on(GRID) > 0)


@pytest.mark.parametrize("stated", [None, "1", "5", "10"])
def test_slices_lie_where_their_positions_say_whatever_distance_is_stated(
    tmp_path: Path, series: Path, stated: str | None
) -> None:
    """Empty slices are left out of the object, here every second one."""
    labels = labels_on(GRID)
    labels[:, :, ::2] = 0
    data = pydicom.dcmread(write_seg(tmp_path / "seg.dcm", series, labels, ["liver", "spleen"]))
    (measures,) = data.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence
    measures.SpacingBetweenSlices = stated
    data.save_as(tmp_path / "seg.dcm")
    assert_array_equal(read_labels(tmp_path / "seg.dcm", GRID).array, labels)


def test_warped_segmentation_is_what_highdicom_reads_on_the_fixed_series(tmp_path: Path, series: Path) -> None:
    moving = centred_grid((26, 21, 14), (2.8, 3.1, 4.4), "oblique", (2.0, -3.0, 1.0))
    stored = (scan(moving).array + 1024).astype(np.uint16)
    write_patient(tmp_path / "moving", stored, moving, study="1.2.9", frame="1.2.3.5")
    path = write_seg(tmp_path / "seg.dcm", tmp_path / "moving", labels_on(moving), ["liver", "spleen"])
    shift = np.eye(4)
    shift[:3, 3] = 4.0, -3.0, 5.0
    transform = Transform((shift,), GRID, moving)
    options = ImageOptions(labels=True, reference=series)
    apply_to_file(transform, path, tmp_path / "warped.dcm", options)
    expected = transform.apply(read_labels(path, moving), labels=True).array
    seg = hd.seg.segread(tmp_path / "warped.dcm")
    assert [item.SegmentLabel for item in seg.SegmentSequence] == ["liver", "spleen"]
    assert (seg.FrameOfReferenceUID, seg.StudyInstanceUID, seg.PatientID) == ("1.2.3.4", "1.2.7", "4711")
    volume = seg.get_volume(combine_segments=True)
    found = np.argwhere(volume.array)
    points = (found @ np.asarray(volume.affine)[:3, :3].T + np.asarray(volume.affine)[:3, 3]) @ LPS
    indices = GRID.to_voxel(points)
    assert_allclose(indices, np.rint(indices), atol=1e-4)
    back = np.zeros(GRID.shape, int)
    back[tuple(np.rint(indices).astype(int).T)] = volume.array[tuple(found.T)]
    assert_array_equal(back, expected)
    assert len(np.unique(expected)) == 3


def test_warped_labels_without_names_become_segments_in_the_order_of_their_numbers(
    tmp_path: Path, series: Path
) -> None:
    labels = np.where(labels_on(GRID) == 1, 90, np.where(labels_on(GRID) == 2, 17, 0)).astype(np.uint8)
    write_image(tmp_path / "labels.nii.gz", labels, GRID)
    transform = Transform((np.eye(4),), GRID, GRID)
    out = tmp_path / "warped.dcm"
    assert "add --reference FOLDER" in refusal(
        apply_to_file, transform, tmp_path / "labels.nii.gz", out, ImageOptions(labels=True)
    )
    assert "add --labels" in refusal(apply_to_file, transform, series, out, ImageOptions(reference=series))
    assert not out.exists()
    apply_to_file(transform, tmp_path / "labels.nii.gz", out, ImageOptions(labels=True, reference=series))
    again = read_labels(out, GRID)
    assert again.label_names == {1: "Label 17", 2: "Label 90"}
    assert_array_equal(again.array, np.select([labels == 17, labels == 90], [1, 2]))


def ellipse(radii: tuple[float, float], centre: tuple[float, float], points: int = 200) -> NDArray[np.float64]:
    turn = np.linspace(0, 2 * np.pi, points, endpoint=False)
    return np.stack([centre[0] + radii[0] * np.cos(turn), centre[1] + radii[1] * np.sin(turn)], 1)


def inside(radii: tuple[float, float], centre: tuple[float, float]) -> NDArray[np.bool_]:
    i, j = np.indices(GRID.shape[:2])
    return ((i - centre[0]) / radii[0]) ** 2 + ((j - centre[1]) / radii[1]) ** 2 < 1


BIG, HOLE, SMALL = ((8.3, 6.6), (10.2, 9.7)), ((3.1, 2.7), (9.4, 9.1)), ((2.4, 1.9), (15.2, 9.6))


def test_structures_are_filled_slice_by_slice_with_holes_and_the_smaller_one_on_top(tmp_path: Path) -> None:
    rois = {
        7: ("Body", [(k, ellipse(*shape)) for k in range(2, 9) for shape in (BIG, HOLE)]),
        3: ("Tumour", [(k, ellipse(*SMALL)) for k in (4.0, 5.0)]),
    }
    path = write_structures(GRID, tmp_path / "rs.dcm", rois)
    assert "without its image" in refusal(read_labels, path)
    with pytest.warns(UserWarning, match="overlap in"):
        labels = read_labels(path, GRID)
    expected = np.zeros(GRID.shape, int)
    expected[:, :, 2:9][inside(*BIG) & ~inside(*HOLE)] = 7
    expected[:, :, 4:6][inside(*SMALL)] = 3
    assert_array_equal(labels.array, expected)
    assert labels.label_names == {7: "Body", 3: "Tumour"}


def test_contours_on_thicker_or_thinner_slices_leave_none_out(tmp_path: Path) -> None:
    thick = write_structures(GRID, tmp_path / "thick.dcm", {1: ("a", [(k, ellipse(*BIG)) for k in (2.0, 5.0, 8.0)])})
    filled = read_labels(thick, GRID).array.any((0, 1))
    assert_array_equal(np.flatnonzero(filled), range(1, 10))
    thin = write_structures(
        GRID, tmp_path / "thin.dcm", {1: ("a", [(k, ellipse(*BIG)) for k in np.arange(2, 5.1, 0.5)])}
    )
    expected = np.zeros(GRID.shape, int)
    expected[:, :, 2:6][inside(*BIG)] = 1
    assert_array_equal(read_labels(thin, GRID).array, expected)


def test_contours_across_the_slices_and_other_objects_are_refused(tmp_path: Path, series: Path) -> None:
    path = write_structures(GRID, tmp_path / "rs.dcm", {1: ("a", [(4.0, ellipse(*BIG))])})
    turned = Grid(GRID.shape, centred_grid(GRID.shape, (3.0, 3.5, 5.0), "RAS").affine)
    assert "lie across the slices" in refusal(read_labels, path, turned)
    (tmp_path / "cut.dcm").write_bytes(path.read_bytes()[:600])
    assert "export it again" in refusal(read_labels, tmp_path / "cut.dcm", GRID)
    assert "give the folder" in refusal(read_labels, next(iter(series.iterdir())).rename(tmp_path / "slice.dcm"), GRID)


def test_structures_of_the_same_name_get_the_same_number() -> None:
    array = np.arange(24).reshape(2, 3, 4) % 4
    grid = Grid.from_spacing((2, 3, 4), (1.0, 2.0, 3.0))
    fixed = Image(array, grid, label_names={1: "Liver", 2: "Spleen", 3: "Heart"})
    moving = Image(array, grid, label_names={1: "spleen ", 2: "Kidney", 3: "LIVER"})
    found = numbered_like(moving, fixed)
    assert_array_equal(found.array, np.select([array == 1, array == 2, array == 3], [2, 4, 1]))
    assert found.label_names == {2: "spleen ", 4: "Kidney", 1: "LIVER"}
    assert numbered_like(Image(array, grid), fixed).array is array
