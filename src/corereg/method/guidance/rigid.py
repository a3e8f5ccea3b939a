"""Structures that must not deform: each moves as one rigid body, and the displacement around it gives way.

Upstream: a label map of the fixed image. Downstream: the end of the refinement, and the result's metrics.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

from corereg.errors import InputError
from corereg.geometry.chain import Part, inverse_parts, through
from corereg.geometry.displacement import Disp
from corereg.geometry.grid import Grid, Matrix, transform_points
from corereg.geometry.positions import as_points, as_positions
from corereg.io.images.image import Image, as_image
from corereg.io.transforms.transform import Transform
from corereg.preprocessing.working_grid import resample_labels

__all__ = ["RigidGuide", "largest_deviation_mm", "rigid_guide", "rigid_labels"]

MARGIN_MM = 20.0
"""Distance from a rigid structure beyond which nothing changes."""

FEWEST_VOXELS = 8
"""A structure of fewer working voxels has no rotation that could be found."""


@dataclass(frozen=True, slots=True)
class RigidGuide:
    """The rigid structures of the fixed image, on the working grid."""

    labels: NDArray[np.int64]
    """(I, J, K), one number for each structure, 0 elsewhere."""
    working: Grid
    before: tuple[Part, ...]
    """The pre-alignment and the initial transform, which the displacement comes before."""

    def stiffened(self, disp_vox: Disp) -> Disp:
        """A displacement (1, 3, I, J, K) of the working grid that moves each structure rigidly in the world."""
        field = disp_vox[0].double().cpu().numpy()
        changed = field.copy()
        shares = self._shares()
        for label, share in shares.items():
            own = share.copy()
            for other, taken in shares.items():
                if other != label:  # 1 in this structure, 0 in the other, and unchanged far from the other
                    own *= (1 - taken) / (1 - share * taken).clip(1e-6)
            own[self.labels > 0] = 0
            own[self.labels == label] = 1
            inside, near = np.argwhere(self.labels == label), np.argwhere(own > 0)
            fitted = _rigid_fit(self.working.to_world(inside), self._moved(inside + field[(slice(None), *inside.T)].T))
            there = as_positions(transform_points(fitted, self.working.to_world(near)))
            rigid = self.working.to_voxel(as_points(through(inverse_parts(self.before), there))) - near
            where = (slice(None), *near.T)
            changed[where] += own[tuple(near.T)] * (rigid.T - field[where])
        return torch.as_tensor(changed[None]).to(disp_vox)

    def _moved(self, coords_vox: NDArray[np.float64]) -> NDArray[np.float64]:
        return as_points(through(self.before, as_positions(self.working.to_world(coords_vox))))

    def _shares(self) -> dict[int, NDArray[np.float64]]:
        """For each structure, how rigidly each voxel moves with it: 1 in it and next to it, 0 beyond the margin."""
        spacing, shares = min(self.working.spacing), {}
        for label in np.unique(self.labels[self.labels > 0]).tolist():
            inside = self.labels == label
            if inside.sum() >= FEWEST_VOXELS:
                distance = distance_transform_edt(~inside, sampling=spacing)
                # Linear interpolation between the structure's own voxels and the next must be rigid too.
                rest = (1 - (distance - np.sqrt(3) * spacing) / MARGIN_MM).clip(0, 1)
                shares[label] = rest**2 * (3 - 2 * rest)
        return shares


def rigid_labels(labels: object, fixed: Image) -> Image | None:
    """The label map of the rigid structures of the fixed image, or None.

    Raises:
        InputError: it cannot be used, or does not overlap the image.
    """
    if labels is None:
        return None
    found = as_image(labels, labels=True)
    if not found.grid.overlaps(fixed.grid):
        raise InputError(
            f"got the rigid structures {found.name}, which do not overlap {fixed.name}, expected a label map of the "
            "fixed image; resample it"
        )
    return found


def rigid_guide(labels: Image, start: Transform, working: Grid, affine: Matrix | None) -> RigidGuide:
    """Bring the rigid structures to the working grid. `affine` comes before the initial transform `start`."""
    values = torch.as_tensor(np.ascontiguousarray(labels.array).astype(np.int64))
    before = start.parts if affine is None else (affine, *start.parts)
    return RigidGuide(resample_labels(values, labels.grid, working).numpy(), working, before)


def largest_deviation_mm(labels: Image, transform: Transform) -> float:
    """By how much a voxel of a structure misses its place if each structure moved as the rigid body closest to it."""
    worst = 0.0
    for label in np.unique(labels.array[labels.array != 0]).tolist():
        points = labels.grid.to_world(np.argwhere(labels.array == label))
        moved = transform.apply_points(points)
        if len(points) >= FEWEST_VOXELS:
            missed = np.linalg.norm(transform_points(_rigid_fit(points, moved), points) - moved, axis=1)
            worst = max(worst, float(missed.max()))
    return worst


def _rigid_fit(points: NDArray[np.float64], moved: NDArray[np.float64]) -> Matrix:
    """The rigid map, (4, 4), that brings points (N, 3) closest to others. Source: Kabsch 1976."""
    centre, there = points.mean(0), moved.mean(0)
    left, _, right = np.linalg.svd((points - centre).T @ (moved - there))
    sign = np.sign(np.linalg.det(right.T @ left.T))
    matrix = np.eye(4)
    matrix[:3, :3] = right.T @ np.diag([1.0, 1.0, sign]) @ left.T
    matrix[:3, 3] = there - matrix[:3, :3] @ centre
    return matrix
