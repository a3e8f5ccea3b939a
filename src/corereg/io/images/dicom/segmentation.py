"""DICOM segmentations (SEG), read and written by highdicom."""

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any
from warnings import warn

import numpy as np
from numpy.typing import NDArray

from corereg.errors import InputError
from corereg.geometry.grid import Grid
from corereg.io.atomic import atomic_path
from corereg.io.images.dicom.objects import MAKER, completed
from corereg.io.images.itk import LPS_RAS
from corereg.io.images.stored import StoredVolume
from corereg.lazy import highdicom, pydicom

__all__ = ["read_segmentation", "write_segmentation"]

SAME_STEP = 0.02
"""How far a distance between slices may be from a multiple of another, as a share of it."""

REVERSED = np.eye(4)[[2, 1, 0, 3]]
"""highdicom counts slices, rows, columns; images here columns, rows, slices."""


def read_segmentation(path: Path, like: Grid | None = None) -> StoredVolume:
    """The segments as labels of their numbers, on the grid of the object, which may have fewer slices than the image.

    Args:
        like: the grid of the image, whose slice distance tells an empty slice from a thick one.

    Raises:
        InputError: highdicom is not installed, or the segments are fractions.
    """
    hd = highdicom()
    data = pydicom().dcmread(path)
    if str(data.get("SegmentationType")) == "FRACTIONAL":
        raise InputError(f"got {path} with fractional segments, expected binary ones or a label map; export those")
    _correct_spacing(data, like)
    segmentation = hd.seg.Segmentation.from_dataset(data, copy=False)
    try:
        volume = segmentation.get_volume(combine_segments=True)
    except RuntimeError as error:
        if "overlap" not in str(error):
            raise
        warn(f"{path}: segments overlap; there the one with the highest number counts", stacklevel=2)
        volume = segmentation.get_volume(combine_segments=True, skip_overlap_checks=True)
    names = {int(item.SegmentNumber): str(item.get("SegmentLabel", "")) for item in _segments(segmentation)}
    array = np.ascontiguousarray(np.asarray(volume.array).transpose(2, 1, 0))
    return StoredVolume(array, LPS_RAS @ np.asarray(volume.affine) @ REVERSED + 0.0, label_names=names)


def _correct_spacing(data: Any, like: Grid | None) -> None:
    """State the distance between slices that the positions of the frames have: files often copy a wrong one.

    Empty slices may be left out of the object, so where the image's slices divide the distance, theirs counts.
    """
    frames = data.PerFrameFunctionalGroupsSequence
    groups = [*data.SharedFunctionalGroupsSequence, *frames]
    places = [
        group.PlanePositionSequence[0].ImagePositionPatient for group in groups if "PlanePositionSequence" in group
    ]
    rows = [group.PlaneOrientationSequence[0] for group in groups if "PlaneOrientationSequence" in group]
    axes = np.array(rows[0].ImageOrientationPatient, dtype=np.float64).reshape(2, 3)
    normal = np.cross(*axes)
    depths = np.unique((np.array(places, dtype=np.float64) @ normal).round(3))
    if len(depths) < 2:
        return
    step = float(np.diff(depths).min())
    if like is not None:
        slices = float(np.abs(normal @ (LPS_RAS @ like.affine)[:3, :3]).max())
        if step > 1.5 * slices and abs(step / slices - round(step / slices)) < SAME_STEP:
            step = slices
    for group in groups:
        for measures in group.get("PixelMeasuresSequence") or []:
            measures.SpacingBetweenSlices = step


def write_segmentation(
    path: Path, labels: NDArray[Any], grid: Grid, files: Sequence[Path], source: Path | None = None
) -> None:
    """Write a label map (I, J, K) as binary segments, which belong to a series of images on the same grid.

    Args:
        files: the series.
        source: a segmentation that describes the labels; without it they are called by their numbers.

    Raises:
        InputError: highdicom is not installed, or the labels are not those of `source`.
    """
    hd, dicom = highdicom(), pydicom()
    images = [completed(dicom.dcmread(file, stop_before_pixels=True)) for file in files]
    for image in images:
        image.SliceThickness = image.get("SliceThickness") or grid.spacing[2]  # highdicom requires one
    found = [int(label) for label in np.unique(labels) if label != 0]
    described = _descriptions_of(source) if source is not None else {}
    if not set(found) <= set(described):
        described = {label: _description(f"Label {label}") for label in found}
    if not described:
        raise InputError(f"got an empty label map for {path}, expected at least one label; check the transform")
    numbers = np.zeros(max(described) + 1, np.uint16)
    for number, (label, description) in enumerate(sorted(described.items()), 1):
        numbers[label] = description.SegmentNumber = number
    affine = LPS_RAS @ grid.affine @ REVERSED
    volume = hd.Volume(
        array=np.ascontiguousarray(numbers[labels].transpose(2, 1, 0)),
        affine=affine,
        coordinate_system="PATIENT",
        frame_of_reference_uid=images[0].FrameOfReferenceUID,
    )
    segmentation = hd.seg.Segmentation(
        source_images=images,
        pixel_array=volume,
        segmentation_type="BINARY",
        segment_descriptions=[described[label] for label in sorted(described)],
        series_instance_uid=dicom.uid.generate_uid(),
        series_number=1,
        sop_instance_uid=dicom.uid.generate_uid(),
        instance_number=1,
        manufacturer=MAKER,
        manufacturer_model_name=MAKER,
        software_versions=version(MAKER),
        device_serial_number="none",
        content_label="WARPED",
    )
    with atomic_path(path) as staged:
        segmentation.save_as(staged)


def _descriptions_of(source: Path) -> Mapping[int, Any]:
    segmentation = highdicom().seg.segread(source)
    return {
        int(item.SegmentNumber): highdicom().seg.SegmentDescription.from_dataset(item)
        for item in _segments(segmentation)
    }


def _segments(segmentation: Any) -> list[Any]:
    """Without the background, which a label map describes as segment 0."""
    return [item for item in segmentation.SegmentSequence if int(item.SegmentNumber)]


def _description(name: str) -> Any:
    """A segment whose meaning is not known: any anatomical structure."""
    hd = highdicom()
    return hd.seg.SegmentDescription(
        segment_number=1,
        segment_label=name,
        segmented_property_category=hd.sr.CodedConcept("123037004", "SCT", "Anatomical Structure"),
        segmented_property_type=hd.sr.CodedConcept("91723000", "SCT", "Anatomical structure"),
        algorithm_type="SEMIAUTOMATIC",
        algorithm_identification=hd.AlgorithmIdentificationSequence(
            name=MAKER,
            family=hd.sr.CodedConcept("123109", "DCM", "Manual Processing"),
            version=version(MAKER),
        ),
    )
