"""Slices in no order -> their order, the grid they lie on, and how they are resampled if it is not regular."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from corereg.errors import InputError, number_of
from corereg.io.images.dicom.headers import Frame
from corereg.io.images.itk import LPS_RAS

__all__ = ["Layout", "lay_out", "sorted_frames"]

SAME_POSITION_MM = 1e-3

REGULAR = 0.01
"""Share of a step by which a slice may lie off a regular grid: the rounding of decimal strings."""

USUAL_SHARE = 0.25
"""Share of the steps that makes one of them usual, in a series of unequal steps."""

LARGEST_GAP = 3.5
"""In usual steps: up to two missing slices are interpolated."""

ASIDE = 0.5
"""In pixels: how far a slice may lie from the line of the others."""

TILT_DEGREES = 0.1


@dataclass(frozen=True, eq=False)
class Layout:
    """A regular grid, and where on it the slices that were read lie."""

    affine: NDArray[np.float64]
    """(4, 4), voxel indices to RAS+ millimetres."""
    count: int
    """Slices of the grid."""
    places: NDArray[np.float64] | None
    """(N), the index on the grid of each slice that was read; None if these are the grid's own."""


def sorted_frames(frames: Sequence[Frame], name: str) -> list[Frame]:
    """Slices in the order of their positions along the normal.

    Raises:
        InputError: two of them lie at the same position.
    """
    depths = _depths(frames)
    order = np.argsort(depths, kind="stable")
    ordered = [frames[index] for index in order]
    same = np.flatnonzero(np.diff(depths[order]) < SAME_POSITION_MM)
    if same.size:
        tags = _telling_tags([(ordered[index], ordered[index + 1]) for index in same])
        raise InputError(
            f"got {name} with {same.size} of {len(frames)} slices at the position of another ({tags}), expected one "
            "volume and not several phases, echoes or times; export one of them"
        )
    return ordered


def lay_out(frames: Sequence[Frame], name: str) -> Layout:
    """The grid of slices in order. Steps are measured, so that a tilted gantry gives the sheared affine that it has.

    Raises:
        InputError: slices are missing, or do not lie in a line.
    """
    affine = np.eye(4)
    affine[:3, :2] = np.median([frame.axes for frame in frames], axis=0)
    affine[:3, 3] = frames[0].origin
    if len(frames) == 1:
        affine[:3, 2] = _normal(frames)
        return Layout(LPS_RAS @ affine, 1, None)
    depths = _depths(frames) - _depths(frames)[0]
    whole = frames[-1].origin - frames[0].origin
    _check_line(frames, depths, whole, name)
    steps = np.diff(depths)
    count = len(frames)
    if np.abs(depths - np.linspace(0, depths[-1], count)).max() > REGULAR * np.median(steps):
        count = _count(steps, name)
    affine[:3, 2] = whole / (count - 1)
    places = depths / depths[-1] * (count - 1)
    regular = count == len(frames) and np.abs(places - np.arange(count)).max() <= REGULAR
    _warn_of_tilt(affine, name)
    return Layout(LPS_RAS @ affine + 0.0, count, None if regular else places)


def _count(steps: NDArray[np.float64], name: str) -> int:
    """Slices of a regular grid that is as fine as the finest usual step."""
    usual = _usual_steps(steps)
    if steps.max() > LARGEST_GAP * usual.max():
        raise InputError(
            f"got {name} with {steps.max():.4g} mm between two slices where {usual.max():.4g} mm are usual, expected a "
            "whole series; export it again with all slices"
        )
    count = int(np.ceil(steps.sum() / usual.min() - REGULAR)) + 1
    missing = int((np.round(steps / usual.max()) - 1).clip(min=0).sum())
    cause = (
        f"about {number_of(missing, 'slice')} may be missing" if missing else "slices overlap or vary in their distance"
    )
    warnings.warn(
        f"{name}: steps between slices go from {steps.min():.4g} to {steps.max():.4g} mm ({cause}); they were "
        f"interpolated at their true positions to {count} slices of {steps.sum() / (count - 1):.4g} mm",
        stacklevel=2,
    )
    return count


def _usual_steps(steps: NDArray[np.float64]) -> NDArray[np.float64]:
    """Those that many others equal, or the median if there are none."""
    equal = np.abs(steps[:, None] - steps) <= REGULAR * steps
    usual = steps[equal.mean(0) >= USUAL_SHARE]
    return usual if usual.size else np.array([np.median(steps)])


def _check_line(frames: Sequence[Frame], depths: NDArray[np.float64], whole: NDArray[np.float64], name: str) -> None:
    expected = frames[0].origin + depths[:, None] / depths[-1] * whole
    aside = np.linalg.norm([frame.origin for frame in frames] - expected, axis=1).max()
    pixel = np.linalg.norm(frames[0].axes, axis=0).min()
    if aside > ASIDE * pixel:
        raise InputError(
            f"got {name}, in which a slice lies {aside:.3g} mm off the line of the others, expected slices one above "
            "the other; export each block alone"
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


def _normal(frames: Sequence[Frame]) -> NDArray[np.float64]:
    axes = np.median([frame.axes for frame in frames], axis=0)
    normal = np.cross(axes[:, 0], axes[:, 1])
    return np.asarray(normal / np.linalg.norm(normal))


def _depths(frames: Sequence[Frame]) -> NDArray[np.float64]:
    """(N), millimetres along the normal."""
    return np.array([frame.origin for frame in frames]) @ _normal(frames)


def _telling_tags(pairs: Sequence[tuple[Frame, Frame]]) -> str:
    """The tag in which slices at one position differ most often."""
    differing = [tag for one, other in pairs for tag in one.phase if one.phase[tag] != other.phase.get(tag)]
    if not differing:
        return "nothing in their headers tells them apart"
    tag = max(dict.fromkeys(differing), key=differing.count)
    values = dict.fromkeys(frame.phase.get(tag, "") for pair in pairs for frame in pair)
    return f"they differ in {tag}: {', '.join(list(values)[:4])}"
