"""One DICOM file's header -> what it is, and where each of its frames lies. pydicom reads the tags."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from corereg.lazy import pydicom

__all__ = ["SEGMENTATIONS", "DicomFile", "Frame", "is_deflated", "is_dicom", "read_header"]

PREAMBLE_BYTES, MAGIC = 128, b"DICM"

BARE_STARTS = (b"\x08\x00", b"\x02\x00")
"""First groups of a file that has no preamble, as old exports have none."""

IMAGE, DERIVED, CAPTURE = 0, 1, 2
"""Ranks: scans; doses, parametric maps and other results; screenshots."""

DOSE = "1.2.840.10008.5.1.4.1.1.481.2"

SEGMENTATIONS = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")

PARAMETRIC_MAP = "1.2.840.10008.5.1.4.1.1.30"

SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
"""Multi-frame secondary captures begin with it too."""

DERIVED_MODALITIES = ("OT", "RTDOSE", "RWV")

DEFLATED = "1.2.840.10008.1.2.1.99"

UNIT_TOLERANCE = 0.01
"""How far direction cosines may be from perpendicular unit vectors."""

LARGEST_NUMBER = 1e6
"""Millimetres: positions and spacings beyond it are damage."""

MOST_FRAMES = 2**16
"""In one file."""

PHASE_TAGS = (
    *("TemporalPositionIdentifier", "TemporalPositionIndex", "AcquisitionNumber", "EchoTime", "EffectiveEchoTime"),
    *("TriggerTime", "NominalCardiacTriggerDelayTime", "DiffusionBValue", "FlipAngle", "AcquisitionTime", "ImageType"),
)
"""What tells two slices at one position apart, the most telling first."""

TAGS = (
    *("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "Modality", "SeriesDescription", "ImageType"),
    *(
        "Rows",
        "Columns",
        "NumberOfFrames",
        "SamplesPerPixel",
        "PhotometricInterpretation",
        "BitsAllocated",
        "BitsStored",
    ),
    *("PixelRepresentation", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SpacingBetweenSlices"),
    *("RescaleSlope", "RescaleIntercept", "ModalityLUTSequence", "DoseGridScaling", "GridFrameOffsetVector"),
    *("DetectorInformationSequence", "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"),
    *PHASE_TAGS,
)


@dataclass(frozen=True, eq=False)
class Frame:
    """One slice. Geometry in LPS millimetres, as DICOM has it."""

    file: Path
    index: int
    """Its place in the file."""
    origin: NDArray[np.float64]
    """(3,), centre of the first pixel."""
    axes: NDArray[np.float64]
    """(3, 2), steps from column to column and from row to row."""
    size: tuple[int, int]
    """Columns, rows."""
    slope: float
    intercept: float
    phase: Mapping[str, str] = field(default_factory=dict)
    """Tags that may tell it from another slice at the same position."""


@dataclass(frozen=True, eq=False)
class DicomFile:
    """A file of a series."""

    path: Path
    series: str
    instance: str
    modality: str
    description: str
    rank: int
    frames: tuple[Frame, ...]
    """Empty for what is no image, or has no place in the patient."""
    problem: str = ""
    """Why there are no frames."""


def is_dicom(path: Path) -> bool:
    """Whether a file says that it is DICOM."""
    try:
        with open(path, "rb") as content:
            content.seek(PREAMBLE_BYTES)
            return content.read(len(MAGIC)) == MAGIC
    except OSError:
        return False


def read_header(path: Path) -> DicomFile | None:
    """The header of a file; None if it is not DICOM or damaged."""
    bare = not is_dicom(path)
    try:
        if bare:
            with open(path, "rb") as content:
                if content.read(2) not in BARE_STARTS:
                    return None
        # pydicom warns of each value that breaks the standard, in terms that mean little to the user.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if not bare and is_deflated(path):
                return DicomFile(path, "", str(path), "", "", IMAGE, (), "compressed as a whole")
            data = pydicom().dcmread(path, force=bare, stop_before_pixels=True, specific_tags=list(TAGS))
            return _described(path, data)
    except Exception:  # pydicom raises whatever a damaged file leads it to
        return None


def is_deflated(path: Path) -> bool:
    """Whether a file is compressed as a whole: pydicom would inflate it, whatever its size."""
    meta = pydicom().filereader.read_file_meta_info(path)
    return str(meta.get("TransferSyntaxUID", "")) == DEFLATED


def _described(path: Path, data: Any) -> DicomFile | None:
    if "SOPClassUID" not in data:
        return None
    modality, kind = str(data.get("Modality", "") or ""), str(data.SOPClassUID)
    problem = _problem(data, kind, modality)
    frames: tuple[Frame, ...] = ()
    if not problem:
        try:
            frames = tuple(_frames(path, data))
        except _NoPlaceError as error:
            problem = str(error)
    return DicomFile(
        path=path,
        series=str(data.get("SeriesInstanceUID", "")),
        instance=str(data.get("SOPInstanceUID", "")) or str(path),
        modality=modality,
        description=str(data.get("SeriesDescription", "") or ""),
        rank=_rank(kind, modality),
        frames=frames,
        problem=problem,
    )


def _rank(kind: str, modality: str) -> int:
    if kind.startswith(SECONDARY_CAPTURE) and kind[len(SECONDARY_CAPTURE) :][:1] in ("", "."):
        return CAPTURE
    return DERIVED if kind in (DOSE, PARAMETRIC_MAP) or modality in DERIVED_MODALITIES else IMAGE


def _problem(data: Any, kind: str, modality: str) -> str:
    """Why a file is no image of numbers, or nothing."""
    if kind in SEGMENTATIONS or modality == "SEG":
        return "a segmentation object"
    if not data.get("Rows") or not data.get("Columns"):
        return "no image"
    colour = str(data.get("PhotometricInterpretation", "MONOCHROME2"))
    if int(data.get("SamplesPerPixel", 1) or 1) != 1 or not colour.startswith("MONOCHROME"):
        return "in colour"
    return "with a lookup table" if data.get("ModalityLUTSequence") else ""


class _NoPlaceError(Exception):
    """A frame whose place in the patient is not known."""


def _frames(path: Path, data: Any) -> list[Frame]:
    count = int(data.get("NumberOfFrames", 1) or 1)
    if not 1 <= count <= MOST_FRAMES:
        raise _NoPlaceError("damaged: its number of frames makes no sense")
    per_frame = data.get("PerFrameFunctionalGroupsSequence")
    if per_frame is not None:
        if len(per_frame) != count:
            raise _NoPlaceError("damaged: its frames and their descriptions differ in number")
        shared = (data.get("SharedFunctionalGroupsSequence") or [None])[0]
        return [_enhanced_frame(path, index, data, group, shared) for index, group in enumerate(per_frame)]
    detector = (data.get("DetectorInformationSequence") or [None])[0]  # nuclear medicine has its geometry there
    first = _frame(path, 0, data, _first("ImagePositionPatient", data, detector), _tags(data, detector))
    if count == 1:
        return [first]
    normal = np.cross(first.axes[:, 0], first.axes[:, 1])
    normal /= np.linalg.norm(normal)
    offsets = _offsets(data, count)
    return [
        Frame(path, index, first.origin + offset * normal, first.axes, first.size, first.slope, first.intercept)
        for index, offset in enumerate(offsets)
    ]


def _offsets(data: Any, count: int) -> NDArray[np.float64]:
    """Distances of the frames of a classic multi-frame file from the first one, along the normal."""
    stated = data.get("GridFrameOffsetVector")
    if stated is not None and len(stated) == count:
        offsets = _numbers(stated, count)
        return np.asarray(offsets - offsets[0], dtype=np.float64)
    step = data.get("SpacingBetweenSlices")
    if step is None:
        raise _NoPlaceError("of several frames without positions")
    return np.arange(count, dtype=np.float64) * float(step)


def _tags(data: Any, detector: Any) -> dict[str, Any]:
    return {
        "orientation": _first("ImageOrientationPatient", data, detector),
        "spacing": data.get("PixelSpacing"),
        "slope": data.get("DoseGridScaling", data.get("RescaleSlope")),
        "intercept": data.get("RescaleIntercept"),
    }


def _enhanced_frame(path: Path, index: int, data: Any, group: Any, shared: Any) -> Frame:
    def of(sequence: str, tag: str) -> Any:
        for place in (group, shared):
            items = place.get(sequence) if place is not None else None
            if items and items[0].get(tag) is not None:
                return items[0].get(tag)
        return None

    tags = {
        "orientation": of("PlaneOrientationSequence", "ImageOrientationPatient"),
        "spacing": of("PixelMeasuresSequence", "PixelSpacing"),
        "slope": of("PixelValueTransformationSequence", "RescaleSlope"),
        "intercept": of("PixelValueTransformationSequence", "RescaleIntercept"),
    }
    content = (group.get("FrameContentSequence") or [None])[0]
    echo = of("MREchoSequence", "EffectiveEchoTime")
    diffusion = of("MRDiffusionSequence", "DiffusionBValue")
    delay = of("CardiacSynchronizationSequence", "NominalCardiacTriggerDelayTime")
    phase = {
        "TemporalPositionIndex": content.get("TemporalPositionIndex") if content is not None else None,
        "EffectiveEchoTime": echo,
        "DiffusionBValue": diffusion,
        "NominalCardiacTriggerDelayTime": delay,
    }
    return _frame(path, index, data, of("PlanePositionSequence", "ImagePositionPatient"), tags, phase)


def _frame(
    path: Path, index: int, data: Any, position: Any, tags: Mapping[str, Any], phase: Mapping[str, Any] | None = None
) -> Frame:
    if position is None or tags["orientation"] is None or tags["spacing"] is None:
        raise _NoPlaceError("without a position, orientation or pixel spacing")
    cosines = _numbers(tags["orientation"], 6).reshape(2, 3)
    spacing = _numbers(tags["spacing"], 2)
    if np.abs(cosines @ cosines.T - np.eye(2)).max() > UNIT_TOLERANCE or not (spacing > 0).all():
        raise _NoPlaceError("with a damaged orientation or pixel spacing")
    if phase is None:
        phase = {tag: data.get(tag) for tag in PHASE_TAGS}
    # The spacing between rows comes first, the direction along a row too.
    axes = np.stack([cosines[0] * spacing[1], cosines[1] * spacing[0]], axis=1)
    slope, intercept = (_number(tags[name], default) for name, default in (("slope", 1.0), ("intercept", 0.0)))
    return Frame(
        file=path,
        index=index,
        origin=_numbers(position, 3),
        axes=axes,
        size=(int(data.Columns), int(data.Rows)),
        slope=slope,
        intercept=intercept,
        phase={tag: str(value) for tag, value in phase.items() if value is not None},
    )


def _first(tag: str, *places: Any) -> Any:
    return next((place.get(tag) for place in places if place is not None and place.get(tag) is not None), None)


def _number(value: Any, default: float) -> float:
    number = default if value is None or value == "" else float(value)
    if not np.isfinite(number):
        raise _NoPlaceError("with a rescaling that is not finite")
    return number


def _numbers(values: Any, count: int) -> NDArray[np.float64]:
    numbers = np.array([float(value) for value in values], dtype=np.float64)
    if len(numbers) != count or not (np.abs(numbers) < LARGEST_NUMBER).all():
        raise _NoPlaceError("with a damaged position, orientation or spacing")
    return numbers
