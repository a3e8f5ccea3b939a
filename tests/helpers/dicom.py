"""DICOM files: series written by GDCM, and single files of any kind by pydicom."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import SimpleITK
from numpy.typing import NDArray

from corereg.geometry.grid import Grid
from corereg.io.images.itk import LPS_RAS
from helpers.grids import make_grid

SERIES = "1.2.826.0.1.3680043.2.1125.1"

CT_STORAGE = "1.2.840.10008.5.1.4.1.1.2"

SLOPE_TAG = bytes([0x28, 0, 0x53, 0x10, 2, 0, 0, 0])
"""(0028,1053) of 2 bytes, implicit and little-endian."""


def right_handed(orientation: str) -> Grid:
    """DICOM's third axis is the normal of the slices: no mirrored grids."""
    grid = make_grid(orientation=orientation)
    affine = grid.affine.copy()
    if np.linalg.det(affine) < 0:
        affine[:3, 2] *= -1
    return Grid(grid.shape, affine)


def write_series(
    folder: Path,
    array: NDArray[Any],
    grid: Grid,
    *,
    series: str = SERIES,
    skip: tuple[int, ...] = (),
    slope: Callable[[int], float] = lambda k: 1,
    shift_mm: Callable[[int], NDArray[np.float64]] = lambda k: np.zeros(3),
) -> None:
    """One file for each slice, in another order by name than by position; HU = slope * stored - 1024."""
    folder.mkdir(parents=True, exist_ok=True)
    lps = LPS_RAS @ grid.affine
    directions = lps[:3, :3] / grid.spacing
    cosines = "\\".join(f"{value:.13f}" for value in (*directions[:, 0], *directions[:, 1]))
    writer = SimpleITK.ImageFileWriter()
    writer.SetImageIO("GDCMImageIO")
    writer.KeepOriginalImageUIDOn()
    for k in set(range(grid.shape[2])) - set(skip):
        position = lps[:3, 3] + lps[:3, 2] * k + shift_mm(k)
        image = SimpleITK.GetImageFromArray(np.ascontiguousarray(array[:, :, k].T[None]))
        image.SetSpacing((grid.spacing[0], grid.spacing[1], 1))
        tags = {
            "0008|0016": CT_STORAGE,
            "0008|0018": f"{series}.{k + 1}",
            "0008|0060": "CT",
            "0020|000d": f"{SERIES}.9",
            "0020|000e": series,
            "0020|0013": str(k),
            "0020|0032": "\\".join(f"{value:.9f}" for value in position),
            "0020|0037": cosines,
            "0028|1052": "-1024",
            "0028|1053": "1",
        }
        for key, value in tags.items():
            image.SetMetaData(key, value)
        writer.SetFileName(str(folder / f"IM{(k * 7) % 997:04d}"))
        writer.Execute(image)
        if slope(k) != 1:  # behind the writer's back, which would divide by it
            file = Path(writer.GetFileName())
            file.write_bytes(file.read_bytes().replace(SLOPE_TAG + b"1 ", SLOPE_TAG + f"{slope(k):.1f}"[-2:].encode()))


def write_patient(folder: Path, array: NDArray[Any], grid: Grid, *, study: str, frame: str) -> Path:
    """A series of Jane Doe in a study and a frame of reference."""
    write_series(folder, array, grid, series=f"{study}.1")
    for file in folder.iterdir():
        data = pydicom.dcmread(file)
        data.PatientName, data.PatientID, data.StudyInstanceUID = "Doe^Jane", "4711", study
        data.PatientBirthDate = data.PatientSex = data.AccessionNumber = data.StudyID = None
        data.StudyDate = data.StudyTime = data.ReferringPhysicianName = data.PositionReferenceIndicator = None
        data.FrameOfReferenceUID, data.SliceThickness = frame, 2.5
        data.save_as(file)
    return folder


ENHANCED_CT, SEGMENTATION = "1.2.840.10008.5.1.4.1.1.2.1", "1.2.840.10008.5.1.4.1.1.66.4"

STRUCTURES = "1.2.840.10008.5.1.4.1.1.481.3"

DOSE, CAPTURE = "1.2.840.10008.5.1.4.1.1.481.2", "1.2.840.10008.5.1.4.1.1.7"


def write_dicom(path: Path, pixels: NDArray[Any], **tags: Any) -> Path:
    """One file: pixels (rows, columns), (frames, rows, columns) or (rows, columns, 3), and tags by their keywords."""
    data = pydicom.Dataset()
    data.SOPClassUID, data.Modality, data.SeriesInstanceUID = CT_STORAGE, "CT", SERIES
    data.SOPInstanceUID = pydicom.uid.generate_uid()
    colour = pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3
    frames = pixels.ndim == 3 and not colour
    data.Rows, data.Columns = pixels.shape[1:] if frames else pixels.shape[:2]
    data.SamplesPerPixel = 3 if colour else 1
    data.PhotometricInterpretation = "RGB" if colour else "MONOCHROME2"
    if colour:
        data.PlanarConfiguration = 0
    if frames:
        data.NumberOfFrames = len(pixels)
    data.BitsAllocated = data.BitsStored = 8 * pixels.itemsize
    data.HighBit, data.PixelRepresentation = data.BitsStored - 1, int(pixels.dtype.kind == "i")
    data.PixelData = pixels.tobytes()
    for keyword, value in tags.items():
        setattr(data, keyword, value)
    data.file_meta = pydicom.dataset.FileMetaDataset()
    data.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    path.parent.mkdir(parents=True, exist_ok=True)
    data.save_as(path, enforce_file_format=True)
    return path


def write_slices(
    folder: Path,
    array: NDArray[Any],
    depths_mm: Sequence[float],
    *,
    tags: Callable[[int], dict[str, Any]] = lambda k: {},
) -> None:
    """An axial series of (I, J, K) in LPS order, 2 x 1.5 mm, at given depths; `tags` overrides those of slice k."""
    for k, depth in enumerate(depths_mm):
        own = {
            "ImagePositionPatient": [-30, -20, depth],
            "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
            "PixelSpacing": [1.5, 2],
        }
        write_dicom(folder / f"IM{(k * 7) % 97:03d}.dcm", np.ascontiguousarray(array[:, :, k].T), **(own | tags(k)))


def write_structures(
    grid: Grid, path: Path, rois: dict[int, tuple[str, list[tuple[float, NDArray[np.float64]]]]]
) -> Path:
    """Contours in voxel coordinates of the grid, (depth, outline), for each ROI number."""
    data = pydicom.Dataset()
    data.SOPClassUID, data.SOPInstanceUID, data.Modality = STRUCTURES, "1.2.7.3.1", "RTSTRUCT"
    data.StructureSetROISequence, data.ROIContourSequence = [], []
    for number, (name, contours) in rois.items():
        roi, drawn = pydicom.Dataset(), pydicom.Dataset()
        roi.ROINumber, roi.ROIName, drawn.ReferencedROINumber = number, name, number
        drawn.ContourSequence = []
        for depth, outline in contours:
            item = pydicom.Dataset()
            points = grid.to_world(np.column_stack([outline, np.full(len(outline), depth)])) * (-1, -1, 1)
            item.ContourGeometricType, item.NumberOfContourPoints = "CLOSED_PLANAR", len(points)
            item.ContourData = [f"{value:.6f}" for value in points.ravel()]
            drawn.ContourSequence.append(item)
        data.StructureSetROISequence.append(roi)
        data.ROIContourSequence.append(drawn)
    data.file_meta = pydicom.dataset.FileMetaDataset()
    data.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    data.save_as(path, enforce_file_format=True)
    return path


def functional_group(position: Sequence[float] | None = None, slope: float | None = None) -> pydicom.Dataset:
    """What an enhanced file says about one frame, or (without a position) about all."""
    group = pydicom.Dataset()

    def add(sequence: str, **tags: Any) -> None:
        item = pydicom.Dataset()
        for keyword, value in tags.items():
            setattr(item, keyword, value)
        setattr(group, sequence, [item])

    if position is None:
        add("PlaneOrientationSequence", ImageOrientationPatient=[1, 0, 0, 0, 1, 0])
        add("PixelMeasuresSequence", PixelSpacing=[1.5, 2], SliceThickness=3)
    else:
        add("PlanePositionSequence", ImagePositionPatient=list(position))
    if slope is not None:
        add("PixelValueTransformationSequence", RescaleSlope=slope, RescaleIntercept=-1024, RescaleType="HU")
    return group


def write_enhanced(
    path: Path,
    array: NDArray[Any],
    depths_mm: Sequence[float],
    *,
    order: Sequence[int] | None = None,
    slopes: Sequence[float] | None = None,
) -> Path:
    """An enhanced multi-frame CT of (I, J, K) at given depths, its frames in any order, each with its own slope."""
    order = range(len(depths_mm)) if order is None else order
    return write_dicom(
        path,
        np.ascontiguousarray(array.T[list(order)]),
        SOPClassUID=ENHANCED_CT,
        SharedFunctionalGroupsSequence=[functional_group(slope=None if slopes else 1)],
        PerFrameFunctionalGroupsSequence=[
            functional_group((-30, -20, depths_mm[k]), slopes[k] if slopes else None) for k in order
        ],
    )
