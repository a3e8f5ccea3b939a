"""New DICOM objects, which belong to the patient and the study of an existing series and refer to its images."""

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from corereg.io.atomic import atomic_path
from corereg.lazy import pydicom

__all__ = ["MAKER", "completed", "headers_of", "new_object", "refer_to", "references", "save_object"]

MAKER = "corereg"

PATIENT_AND_STUDY = (
    *("PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex", "PatientAge", "PatientWeight"),
    *("StudyInstanceUID", "StudyID", "StudyDate", "StudyTime", "StudyDescription", "AccessionNumber"),
    "ReferringPhysicianName",
)

MUST_BE_THERE = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex"),
    *("StudyID", "StudyDate", "StudyTime", "AccessionNumber", "ReferringPhysicianName"),
)
"""Attributes of type 2: an object without a value has them empty."""

REFERENCE = ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID")


def headers_of(files: Sequence[Path]) -> list[Any]:
    """What the files of a series say about the patient, the study, the frame of reference and themselves."""
    tags = [*PATIENT_AND_STUDY, *REFERENCE]
    return [pydicom().dcmread(path, stop_before_pixels=True, specific_tags=tags) for path in files]


def completed(header: Any) -> Any:
    """A header with empty values for attributes of type 2 that the program that wrote it left out."""
    for name in (*MUST_BE_THERE, "PositionReferenceIndicator"):
        if name not in header:
            setattr(header, name, None)
    return header


def new_object(kind: str, modality: str, like: Any | None) -> Any:
    """An object with its common modules: patient, study, series, equipment.

    Args:
        kind: the SOP class UID.
        like: a header from the study that it belongs to; without one it begins a study of an unnamed patient.
    """
    dicom, now = pydicom(), datetime.now()
    data = dicom.Dataset()
    for name in PATIENT_AND_STUDY:
        if like is not None and name in like:
            data[name] = like[name]
        elif name in MUST_BE_THERE:
            setattr(data, name, "")
    if "StudyInstanceUID" not in data:
        data.StudyInstanceUID = dicom.uid.generate_uid()
    data.SOPClassUID, data.SOPInstanceUID = kind, dicom.uid.generate_uid()
    data.Modality, data.SeriesInstanceUID = modality, dicom.uid.generate_uid()
    data.SeriesNumber, data.InstanceNumber = 1, 1
    data.SeriesDescription = data.ContentDescription = "Registration by corereg"
    data.ContentLabel, data.ContentCreatorName = "REGISTRATION", MAKER
    data.Manufacturer = data.ManufacturerModelName = MAKER
    data.SoftwareVersions, data.DeviceSerialNumber = version(MAKER), "none"
    data.PositionReferenceIndicator = ""
    for name in ("Content", "Series", "InstanceCreation"):
        setattr(data, f"{name}Date", now.strftime("%Y%m%d"))
        setattr(data, f"{name}Time", now.strftime("%H%M%S"))
    return data


def references(headers: Sequence[Any]) -> list[Any]:
    """Items of a sequence that refers to these images."""
    items = []
    for header in headers:
        item = pydicom().Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = header.SOPClassUID, header.SOPInstanceUID
        items.append(item)
    return items


def refer_to(data: Any, headers: Sequence[Any]) -> None:
    """List all images that an object refers to: series of its own study, then other studies and their series."""
    studies: dict[str, dict[str, list[Any]]] = defaultdict(lambda: defaultdict(list))
    for header in headers:
        studies[header.StudyInstanceUID][header.SeriesInstanceUID].append(header)
    others = []
    for study, series in studies.items():
        items = []
        for uid, members in series.items():
            item = pydicom().Dataset()
            item.SeriesInstanceUID, item.ReferencedInstanceSequence = uid, references(members)
            items.append(item)
        if study == data.StudyInstanceUID:
            data.ReferencedSeriesSequence = items
        else:
            other = pydicom().Dataset()
            other.StudyInstanceUID, other.ReferencedSeriesSequence = study, items
            others.append(other)
    if others:
        data.StudiesContainingOtherReferencedInstancesSequence = others


def save_object(path: Path, data: Any) -> None:
    """Write an object as a DICOM file. The file appears when it is complete."""
    dicom = pydicom()
    data.file_meta = dicom.dataset.FileMetaDataset()
    data.file_meta.TransferSyntaxUID = dicom.uid.ExplicitVRLittleEndian
    with atomic_path(path) as staged:
        data.save_as(staged, enforce_file_format=True)
