"""Landmarks as a term of the stages: they correct a displacement around them, and pairs that contradict are left out.

Upstream: landmarks. Downstream: the stages, which start from a corrected displacement and end with one.

Legend: N pairs, of which K take part. Coordinates in voxels belong to the working grid.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from corereg.geometry.chain import inverse_parts, through
from corereg.geometry.displacement import Disp, unfold
from corereg.geometry.grid import Grid, Matrix
from corereg.geometry.positions import as_points, as_positions
from corereg.geometry.strided import upsample
from corereg.geometry.warp import sample
from corereg.io.transforms.transform import Transform
from corereg.method.config import GuidanceConfig
from corereg.method.guidance.landmarks import Landmarks
from corereg.method.guidance.scattered import Scattered, correlation, fit_offsets, wrong_offsets

__all__ = ["PointGuide", "point_guide"]

FIT_STRIDE = 4
"""A correction is computed at every fourth voxel and interpolated between them."""

PLACES = 2**14
"""Places evaluated at a time."""

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class PointGuide:
    """Landmarks on the working grid."""

    vox: tuple[Array, Array]
    """(N, 3), of the fixed and the moving image, whose voxels are where the pre-alignment puts them."""
    spacing_mm: float
    tolerance_mm: float
    trend: bool
    """Whether the landmarks alone must explain a large motion."""
    wrong: NDArray[np.bool_] | None = None
    """(N,), pairs that do not take part."""
    left_out_mm: Array | None = None
    """(N,), error of a displacement corrected by the other pairs alone."""
    fit: Scattered | None = None
    """The correction of the displacement that was judged, by the pairs that are not wrong."""

    def judged(self, disp_vox: Disp, stride: int) -> "PointGuide":
        """The same with the pairs that contradict the others given a displacement, (1, 3, ...), marked as wrong."""
        points, missed = self.vox[0] * self.spacing_mm, self._missed_mm(disp_vox, stride, 0)
        wrong = wrong_offsets(points, missed, bound_mm=self.tolerance_mm, trend=self.trend)
        kept, left_out = ~wrong, np.full(len(wrong), np.nan)
        fit = fit_offsets(points[kept], missed[kept], bound_mm=self.tolerance_mm, trend=self.trend)
        left_out[kept] = np.linalg.norm(fit.left_out_mm, axis=1)
        return replace(self, wrong=wrong, left_out_mm=left_out, fit=fit)

    def corrected(self, disp_vox: Disp, stride: int, *, back: bool = False, share: Array | float = 1.0) -> Disp:
        """A displacement (1, 3, I, J, K) that leads each landmark about to its partner.

        Args:
            stride: of the displacement's grid.
            back: the displacement leads from the moving to the fixed image.
            share: (N, 1), the part of each miss that is made up within the tolerance; almost all is far beyond it.
        """
        start = int(back)
        missed = self._missed_mm(disp_vox, stride, start)[self.kept]
        length = np.linalg.norm(missed, axis=1, keepdims=True).clip(1e-9)
        missed = missed * np.maximum(share, 1 - (self.tolerance_mm / length) ** 2)
        if not missed.any():
            return disp_vox
        points = self.vox[start][self.kept] * self.spacing_mm
        fit = fit_offsets(points, missed, bound_mm=self.tolerance_mm, trend=self.trend)
        return disp_vox + self.spread(fit, disp_vox, stride) / (stride * self.spacing_mm)

    def settled(self, start_vox: Disp, refined_vox: Disp) -> Disp:
        """A refined displacement of the full grid, led back to its start where the landmarks show that the images
        misled it, and corrected.

        Both are estimates of the truth. The error of the start is known from the fit of its correction, that of the
        refined one from what it misses at the landmarks nearby; each counts by the other's variance. Far from all
        landmarks, the images are trusted.
        """
        assert self.fit is not None
        fit, points, noise = self.fit, self.fit.points_mm, (self.tolerance_mm / 2) ** 2
        excess = (self._missed_mm(refined_vox, 1, 0)[self.kept] ** 2).mean(1) - noise

        def misled(places: Array) -> Array:
            near = correlation(places, points)
            return np.asarray((near @ excess).clip(0) / near.sum(1).clip(1e-9) * near.max(1))

        def back(places: Array) -> Array:
            known, lost = fit.variance_mm2(places), misled(places)
            return np.asarray(lost / (known + lost).clip(1e-9))[:, None]

        fused = torch.lerp(refined_vox, start_vox, self.spread(back, refined_vox, 1))
        lost = misled(points)[:, None]
        return unfold(self.corrected(fused, 1, share=lost / (lost + noise)))

    def spread(self, at: Callable[[Array], Array], like: Disp, stride: int) -> Tensor:
        """A function of places (M, 3) in mm, (M, C), on the grid of a displacement: (1, C, I, J, K)."""
        step = FIT_STRIDE // stride
        coarse = tuple(-(-n // step) for n in like.shape[2:])
        places = np.stack(np.meshgrid(*map(np.arange, coarse), indexing="ij"), -1).reshape(-1, 3)
        places_mm = FIT_STRIDE * self.spacing_mm * places.astype(np.float64)
        values = np.concatenate([at(places_mm[n : n + PLACES]) for n in range(0, len(places), PLACES)])
        return upsample(torch.as_tensor(values.T.reshape(1, -1, *coarse)).to(like).contiguous(), step, like.shape[2:])

    @property
    def kept(self) -> NDArray[np.bool_]:
        """(N,), the pairs that take part."""
        return np.ones(len(self.vox[0]), bool) if self.wrong is None else ~self.wrong

    def _missed_mm(self, disp_vox: Disp, stride: int, start: int) -> Array:
        own, partner = self.vox[start], self.vox[1 - start]
        found = sample(disp_vox, as_positions(own / stride).to(disp_vox))
        return np.asarray((partner - own - stride * as_points(found.double().cpu())) * self.spacing_mm)


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
