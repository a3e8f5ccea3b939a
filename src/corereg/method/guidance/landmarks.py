"""Matched landmarks: they correct a displacement around them, name wrong pairs, and measure the registration.

Upstream: files of points. Downstream: the stages, which start from a corrected displacement and end with one.

Legend: N pairs. Coordinates in voxels belong to the working grid, millimetres to the worlds of the images.
"""

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from corereg.errors import InputError
from corereg.geometry.chain import inverse_parts, through
from corereg.geometry.displacement import Disp
from corereg.geometry.grid import Grid, Matrix
from corereg.geometry.positions import as_points, as_positions, finite_points
from corereg.geometry.strided import upsample
from corereg.geometry.warp import sample
from corereg.io.images.image import Image
from corereg.io.points.points import Points, read_points
from corereg.io.transforms.transform import Transform
from corereg.method.config import GuidanceConfig
from corereg.method.guidance.scattered import fit_offsets, wrong_offsets

__all__ = [
    "LandmarkError",
    "Landmarks",
    "PointGuide",
    "landmark_errors",
    "mean_errors",
    "point_guide",
    "read_landmarks",
]

FIT_STRIDE = 4
"""A correction is computed at every fourth voxel and interpolated between them."""


class Landmarks(NamedTuple):
    """Pairs of landmarks."""

    fixed_mm: NDArray[np.float64]
    """(N, 3), RAS+ millimetres."""
    moving_mm: NDArray[np.float64]
    names: list[str]


@dataclass(frozen=True, slots=True)
class PointGuide:
    """Landmarks on the working grid."""

    vox: tuple[NDArray[np.float64], NDArray[np.float64]]
    """(N, 3), of the fixed and the moving image, whose voxels are where the pre-alignment puts them."""
    spacing_mm: float
    tolerance_mm: float
    trend: bool
    """Whether the landmarks alone must explain a large motion."""
    wrong: NDArray[np.bool_] | None = None
    """(N,), pairs that do not take part."""
    left_out_mm: NDArray[np.float64] | None = None
    """(N,), error of a displacement corrected by the other pairs alone."""

    def judged(self, disp_vox: Disp, stride: int) -> "PointGuide":
        """The same with the pairs that contradict the others given a displacement, (1, 3, ...), marked as wrong."""
        points, missed = self.vox[0] * self.spacing_mm, self._missed_mm(disp_vox, stride, 0)
        wrong = wrong_offsets(points, missed, bound_mm=self.tolerance_mm, trend=self.trend)
        kept, left_out = ~wrong, np.full(len(wrong), np.nan)
        asked = self._beyond_tolerance(missed[kept])
        fit = fit_offsets(points[kept], asked, bound_mm=self.tolerance_mm, trend=self.trend)
        left_out[kept] = np.linalg.norm(missed[kept] - asked + fit.left_out_mm, axis=1)
        return replace(self, wrong=wrong, left_out_mm=left_out)

    def corrected(self, disp_vox: Disp, stride: int, *, back: bool = False) -> Disp:
        """A displacement (1, 3, I, J, K) that leads each landmark to its partner, within the tolerance.

        Args:
            stride: of the displacement's grid.
            back: the displacement leads from the moving to the fixed image.
        """
        start = int(back)
        kept = slice(None) if self.wrong is None else ~self.wrong
        missed = self._beyond_tolerance(self._missed_mm(disp_vox, stride, start)[kept])
        if not missed.any():
            return disp_vox
        fit = fit_offsets(self.vox[start][kept] * self.spacing_mm, missed, bound_mm=self.tolerance_mm, trend=self.trend)
        step = FIT_STRIDE // stride
        coarse = tuple(-(-n // step) for n in disp_vox.shape[2:])
        places = np.stack(np.meshgrid(*map(np.arange, coarse), indexing="ij"), -1).reshape(-1, 3)
        offsets = fit(FIT_STRIDE * self.spacing_mm * places.astype(np.float64)) / (stride * self.spacing_mm)
        correction = torch.as_tensor(offsets.T.reshape(1, 3, *coarse)).to(disp_vox)
        return disp_vox + upsample(correction.contiguous(), step, disp_vox.shape[2:])

    def _missed_mm(self, disp_vox: Disp, stride: int, start: int) -> NDArray[np.float64]:
        own, partner = self.vox[start], self.vox[1 - start]
        found = sample(disp_vox, as_positions(own / stride).to(disp_vox))
        return np.asarray((partner - own - stride * as_points(found.double().cpu())) * self.spacing_mm)

    def _beyond_tolerance(self, missed_mm: NDArray[np.float64]) -> NDArray[np.float64]:
        """Offsets that are to be made up for: none within the tolerance, almost all of one far beyond it."""
        length = np.linalg.norm(missed_mm, axis=1, keepdims=True).clip(1e-9)
        return np.asarray(missed_mm * (1 - (self.tolerance_mm / length) ** 2).clip(0))


def read_landmarks(fixed: object, moving: object, images: Sequence[Image]) -> Landmarks | None:
    """Matched landmarks of both images, or None without any.

    Args:
        fixed, moving: paths, Points, or arrays (N, 3) in RAS+ millimetres. Row n of one matches row n of the other;
            names in another order match by name.

    Raises:
        InputError: one is missing, they differ in number, or a pair lies outside both images.
    """
    if fixed is None and moving is None:
        return None
    if fixed is None or moving is None:
        side = "moving" if fixed is None else "fixed"
        raise InputError(f"got {side} points alone, expected their partners too; add the points of the other image")
    first, second = _points(fixed), _points(moving)
    counts = len(first.coords_mm), len(second.coords_mm)
    if counts[0] != counts[1]:
        raise InputError(
            f"got {counts[0]} fixed and {counts[1]} moving points, expected one partner for each; remove those without"
        )
    names, order = first.labels or [], np.arange(counts[0])
    if len(set(names)) < counts[0]:
        names = [str(n + 1) for n in order]
    elif second.labels is not None and set(names) == set(second.labels):
        order = np.array([second.labels.index(name) for name in names])
    pairs = Landmarks(first.coords_mm, second.coords_mm[order], names)
    outside = [_outside(points, image.grid) for points, image in zip(pairs[:2], images, strict=True)]
    lost = outside[0] & outside[1]
    if lost.any():
        raise InputError(
            f"got {lost.sum()} of {counts[0]} pairs of points outside both images, first {names[lost.argmax()]} at "
            f"{np.round(pairs.fixed_mm[lost.argmax()], 1).tolist()} mm (RAS), expected points on the images; check "
            "their coordinate system"
        )
    return pairs


def point_guide(
    landmarks: Landmarks, start: Transform, working: Grid, affine: Matrix | None, config: GuidanceConfig
) -> PointGuide | None:
    """Landmarks on the working grid, if they are to guide.

    Args:
        start: from the fixed to the moving image, before `affine`, (4, 4) in the fixed image's world.
    """
    if not config.points:
        return None
    parts = start.parts if affine is None else (affine, *start.parts)
    back = as_points(through(inverse_parts(parts), as_positions(landmarks.moving_mm)))
    vox = working.to_voxel(landmarks.fixed_mm), working.to_voxel(back)
    return PointGuide(vox, min(working.spacing), config.point_tolerance_mm, config.points_only)


@dataclass(frozen=True, slots=True)
class LandmarkError:
    """Target registration error of a pair of landmarks, in mm."""

    name: str
    before_mm: float
    """Before the last kind of registration."""
    after_mm: float
    left_out_mm: float | None = None
    """Error before refinement, with the displacement corrected by the other pairs alone; None if nothing guides."""
    wrong: bool = False
    """Whether it contradicts the other pairs and did not take part."""

    @property
    def words(self) -> str:
        """The errors, for readers."""
        return f"{self.before_mm:.1f} mm before, {self.after_mm:.1f} mm after{' (wrong pair)' if self.wrong else ''}"


def landmark_errors(
    landmarks: Landmarks | None, before: Transform, after: Transform, guide: PointGuide | None
) -> list[LandmarkError]:
    """The error of each pair. Warns of wrong ones by name."""
    if landmarks is None:
        return []
    first, last = (
        np.linalg.norm(t.apply_points(landmarks.fixed_mm) - landmarks.moving_mm, axis=1).tolist()
        for t in (before, after)
    )
    wrong = [False] * len(first) if guide is None or guide.wrong is None else guide.wrong.tolist()
    left_out = [None] * len(first) if guide is None or guide.left_out_mm is None else guide.left_out_mm.tolist()
    named = [name for name, bad in zip(landmarks.names, wrong, strict=True) if bad]
    if named:
        warnings.warn(
            f"the landmarks {', '.join(named)} contradict the others, so they do not guide; check these pairs",
            stacklevel=2,
        )
    return [LandmarkError(*each) for each in zip(landmarks.names, first, last, left_out, wrong, strict=True)]


def mean_errors(errors: Sequence[LandmarkError]) -> dict[str, float]:
    """Mean errors in mm, for the metrics; wrong pairs do not count."""
    right = [pair for pair in errors if not pair.wrong]
    if not right:
        return {}
    left_out = [pair.left_out_mm for pair in right if pair.left_out_mm is not None]
    means = {
        "tre_mm": float(np.mean([pair.after_mm for pair in right])),
        "tre_before_mm": float(np.mean([pair.before_mm for pair in right])),
    }
    return means | ({"tre_left_out_mm": float(np.mean(left_out))} if left_out else {})


def _points(points: object) -> Points:
    if isinstance(points, Points):
        return points
    if isinstance(points, str | os.PathLike):
        return read_points(points)
    coords = finite_points(points)  # type: ignore[arg-type]
    if coords.ndim != 2 or not len(coords):
        raise InputError(f"got points of shape {coords.shape}, expected (N, 3) in RAS+ millimetres; reshape them")
    return Points(coords)


def _outside(points_mm: NDArray[np.float64], grid: Grid) -> NDArray[np.bool_]:
    vox = grid.to_voxel(points_mm)
    return np.asarray(((vox < -0.5) | (vox > np.array(grid.shape) - 0.5)).any(1))
