"""A DICOM folder: its largest series, stacked into one volume."""

import warnings
from collections import defaultdict
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from corereg.errors import InputError
from corereg.io.images.checks import one_line
from corereg.io.images.itk import LPS_RAS, volume_of_sitk
from corereg.lazy import simpleitk

__all__ = ["read_dicom_folder"]

SERIES_UID, SOP_UID = "0020|000e", "0008|0018"

PREAMBLE_BYTES, MAGIC = 128, b"DICM"

COSINE_DIGITS = 3
"""To which slices of one series have equal directions."""

SAME_POSITION_MM = 1e-3
STEP_TOLERANCE = 0.01
"""Relative: unequal steps below it are the rounding of decimal strings."""
TILT_DEGREES = 0.1

SHOWN_SERIES = 4
"""How many series an error message lists."""


@dataclass(frozen=True)
class _Slice:
    """One file of a series; geometry in LPS mm as DICOM has it."""

    file: Path
    series: str
    instance: str
    size: tuple[int, ...]
    spacing: tuple[float, ...]
    direction: tuple[float, ...]
    origin: NDArray[np.float64]
    pixel: int

    @property
    def depth_mm(self) -> float:
        """Position along the normal of the slice."""
        return float(self.origin @ np.array(self.direction[2::3]))


def read_dicom_folder(folder: Path, series: str | None = None) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """Array (I, J, K) in stored values rescaled (HU for CT), and voxel-to-RAS affine, of one series under `folder`.

    Subfolders are searched. Among series, the one with most slices is taken; slices of another size or orientation
    (localisers) do not count as the same. Slices are put in order by their positions.

    Args:
        series: the Series Instance UID to take instead.

    Raises:
        InputError: no such series, slices at equal positions, unreadable pixels, or not one scalar volume.
    """
    slices = _chosen_series(folder, series)
    name = f"{folder} (series {slices[0].series})"
    if len(slices) == 1:
        return volume_of_sitk(_read(slices, name), name)
    slices.sort(key=lambda one: one.depth_mm)
    _check_steps(slices, name)
    array, affine_ras = volume_of_sitk(_read(slices, name), name)
    # The step between slices is measured, so that a tilted gantry gives the sheared affine that it has.
    affine = LPS_RAS @ affine_ras
    affine[:3, 2] = (slices[-1].origin - slices[0].origin) / (len(slices) - 1)
    _warn_of_tilt(affine, name)
    return array, LPS_RAS @ affine + 0.0


def _chosen_series(folder: Path, series: str | None) -> list[_Slice]:
    stacks: dict[tuple[Any, ...], dict[str, _Slice]] = defaultdict(dict)
    left_out = []
    for file in sorted(file for file in folder.rglob("*") if file.is_file()):
        one = _slice_of(file)
        if one is not None:
            key = (one.series, one.size, one.spacing, tuple(np.round(one.direction, COSINE_DIGITS)))
            stacks[key].setdefault(one.instance, one)  # the same slice may lie there twice
        elif file.name != "DICOMDIR" and _claims_to_be_dicom(file):
            left_out.append(file.name)
    if left_out:
        warnings.warn(
            f"{folder}: {len(left_out)} DICOM files left out, which are damaged or no images, {left_out[0]} the first",
            stacklevel=2,
        )
    if not stacks:
        raise InputError(
            f"got the folder {folder}, without a DICOM image in it, expected a DICOM series; check the path"
        )
    found = sorted((list(stack.values()) for stack in stacks.values()), key=_voxels, reverse=True)
    chosen = [stack for stack in found if series in (None, stack[0].series)]
    if not chosen:
        known = ", ".join(f"{stack[0].series} ({len(stack)} slices)" for stack in found[:SHOWN_SERIES])
        raise InputError(
            f"got the series {series}, which is not in {folder}, expected one of {known}; choose from these"
        )
    return chosen[0]


def _voxels(stack: list[_Slice]) -> int:
    return len(stack) * int(np.prod(stack[0].size))


def _slice_of(file: Path) -> _Slice | None:
    """None where the file is no DICOM image."""
    sitk = simpleitk()

    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(str(file))
    try:
        reader.ReadImageInformation()
    except RuntimeError:
        return None
    uids = (reader.GetMetaData(key).strip(" \0") if reader.HasMetaDataKey(key) else "" for key in (SERIES_UID, SOP_UID))
    series, instance = uids
    return _Slice(
        file=file,
        series=series,
        instance=instance or str(file),
        size=reader.GetSize(),
        spacing=reader.GetSpacing(),
        direction=reader.GetDirection(),
        origin=np.array(reader.GetOrigin()),
        pixel=reader.GetPixelID(),
    )


def _claims_to_be_dicom(file: Path) -> bool:
    with open(file, "rb") as content:
        content.seek(PREAMBLE_BYTES)
        return content.read(len(MAGIC)) == MAGIC


def _check_steps(slices: list[_Slice], name: str) -> None:
    steps = np.array([after.depth_mm - before.depth_mm for before, after in pairwise(slices)])
    same = int((steps < SAME_POSITION_MM).sum())
    if same:
        raise InputError(
            f"got {name} with {same} of {len(slices)} slices at the position of another (several phases, echoes or "
            "times?), expected one volume; export one of them"
        )
    usual = float(np.median(steps))
    odd = int((np.abs(steps - usual) > STEP_TOLERANCE * usual).sum())
    if odd:
        warnings.warn(
            f"{name}: {odd} of {len(steps)} steps between slices differ from the usual {usual:.4g} mm "
            f"({steps.min():.4g} to {steps.max():.4g}): slices may be missing; the mean, {steps.mean():.4g} mm, serves",
            stacklevel=2,
        )


def _warn_of_tilt(affine: NDArray[np.float64], name: str) -> None:
    normal = np.cross(affine[:3, 0], affine[:3, 1])
    step = affine[:3, 2]
    cosine = normal @ step / np.linalg.norm(normal) / np.linalg.norm(step)
    tilt = float(np.degrees(np.arccos(np.clip(abs(cosine), 0, 1))))
    if tilt > TILT_DEGREES:
        warnings.warn(
            f"{name}: its slices are shifted sideways by {tilt:.1f} degrees (tilted gantry); the affine has that "
            "shear, which some tools do not read",
            stacklevel=2,
        )


def _read(slices: list[_Slice], name: str) -> Any:
    sitk = simpleitk()

    files = [str(one.file) for one in slices]
    if len(files) == 1:
        reader = sitk.ImageFileReader()
        reader.SetFileName(files[0])
    else:
        reader = sitk.ImageSeriesReader()
        reader.SetFileNames(files)
        reader.SetSpacingWarningRelThreshold(float("inf"))  # we warn in our own words
    if len({one.pixel for one in slices}) > 1:
        reader.SetOutputPixelType(sitk.sitkFloat32)  # each slice has its own rescaling: the first must not decide
    try:
        return reader.Execute()
    except RuntimeError as error:
        raise InputError(
            f"got {name}, whose pixels cannot be read ({one_line(error)}), expected an image series; export it again"
        ) from None
