"""Structures that must not deform: each moves as one rigid body, and the displacement around it gives way.

Upstream: a label map of the fixed image. Downstream: the end of the refinement, and the result's metrics.
"""

import warnings
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from corereg.geometry.chain import Part, inverse_parts, through
from corereg.geometry.displacement import Disp
from corereg.geometry.grid import Grid, Matrix, transform_points
from corereg.geometry.positions import as_points, as_positions
from corereg.io.images.companions import beside
from corereg.io.images.image import Image, as_image
from corereg.io.transforms.transform import Transform
from corereg.lazy import scipy_module
from corereg.preprocessing.working_grid import resample_labels

__all__ = ["RigidGuide", "Stiffener", "largest_deviation_mm", "rigid_fit", "rigid_guide", "rigid_labels"]

MARGINS_MM = 8.0, 20.0
"""Least and largest distance from a rigid structure at which its correction has faded out."""

STRETCH = 2.0
"""That distance in lengths of the correction, between those bounds: nothing is stretched by more than 3/4."""

STRAIGHT = 1e-12
"""Weight of the assumption that nothing is rotated; it decides only where the points do not."""

FEWEST_VOXELS = 8
"""A structure of fewer working voxels has no rotation that could be found."""


class Structure(NamedTuple):
    """One rigid structure on a grid."""

    inside: NDArray[np.int64]
    """(N, 3), its voxels."""
    core: NDArray[np.int64]
    """(M, 3), its voxels and those next to them: linear interpolation between both must be rigid too."""
    near: NDArray[np.int64]
    """(P, 3), the voxels within the margin, the core included."""
    closest: NDArray[np.int64]
    """(P,), the row of the core's voxel closest to each of those."""
    distance_mm: NDArray[np.float64]
    """(P,), from that voxel."""
    part: NDArray[np.float64]
    """(P,), the share of this structure's correction: 1 far from all others, 0 in them."""


@dataclass(frozen=True, slots=True)
class Stiffener:
    """The rigid structures of the fixed image on one grid."""

    grid: Grid
    structures: tuple[Structure, ...]
    before: tuple[Part, ...]
    """The pre-alignment and the initial transform, which the displacement comes before."""

    def __call__(self, disp_vox: Disp) -> Disp:
        """A displacement (1, 3, I, J, K) that moves each structure rigidly in the world."""
        field = disp_vox[0].double().cpu().numpy()
        changed = field.copy()
        for inside, core, near, closest, distance_mm, part in self.structures:
            fitted = rigid_fit(self.grid.to_world(inside), self._moved(inside + field[(slice(None), *inside.T)].T))
            there = as_positions(transform_points(fitted, self.grid.to_world(core)))
            rigid = self.grid.to_voxel(as_points(through(inverse_parts(self.before), there))) - core
            correction = rigid - field[(slice(None), *core.T)].T
            largest_mm = np.linalg.norm(correction, axis=1).max() * min(self.grid.spacing)
            rest = (1 - distance_mm / np.clip(STRETCH * largest_mm, *MARGINS_MM)).clip(0, 1)
            changed[(slice(None), *near.T)] += part * rest**2 * (3 - 2 * rest) * correction[closest].T
        return torch.as_tensor(changed[None]).to(disp_vox)

    def _moved(self, coords_vox: NDArray[np.float64]) -> NDArray[np.float64]:
        return as_points(through(self.before, as_positions(self.grid.to_world(coords_vox))))


@dataclass(frozen=True, slots=True)
class RigidGuide:
    """The rigid structures of the fixed image, on the working grid."""

    labels: NDArray[np.int64]
    """(I, J, K), one number for each structure, 0 elsewhere."""
    working: Grid
    before: tuple[Part, ...]
    """The pre-alignment and the initial transform, which the displacement comes before."""

    def stiffener(self) -> Stiffener:
        """What keeps the structures in shape in displacements of the working grid."""
        return Stiffener(self.working, tuple(_structures(self.labels, min(self.working.spacing))), self.before)


def _structures(labels: NDArray[np.int64], spacing_mm: float) -> list[Structure]:
    """Each structure, within its own box. Where margins overlap, the correction is divided by the odds of each."""
    ndimage = scipy_module("ndimage")
    margin = int(np.ceil(MARGINS_MM[1] / spacing_mm)) + 2
    total = np.zeros(labels.shape, np.float32)
    found = []
    for label, box in enumerate(ndimage.find_objects(labels), start=1):
        if box is None or (labels[box] == label).sum() < FEWEST_VOXELS:
            continue
        around = tuple(slice(max(side.start - margin, 0), side.stop + margin) for side in box)
        core = ndimage.binary_dilation(labels[around] == label, np.ones((3, 3, 3)))
        distance, closest = ndimage.distance_transform_edt(~core, sampling=spacing_mm, return_indices=True)
        odds = (MARGINS_MM[1] / distance.clip(1e-6) - 1).clip(0)
        total[around] += odds
        found.append((label, around, core, closest, distance, odds))
    structures = []
    for label, around, core, closest, distance, odds in found:
        own, corner = labels[around], [side.start for side in around]
        part = np.where(own > 0, own == label, (1 + odds) / (1 + total[around]))
        rows = np.full(own.shape, -1)
        rows[core] = np.arange(core.sum())
        near = np.argwhere((odds > 0) & (part > 0))
        places = tuple(near.T)
        structures.append(
            Structure(
                np.argwhere(own == label) + corner,
                np.argwhere(core) + corner,
                near + corner,
                rows[tuple(closest[(slice(None), *places)])],
                distance[places],
                part[places],
            )
        )
    return structures


def rigid_labels(labels: object, fixed: Image) -> Image | None:
    """The label map of the rigid structures of the fixed image, or None.

    Raises:
        InputError: it cannot be used, or does not lie in the image.
    """
    if labels is None:
        return None
    found = as_image(labels, labels=True, like=fixed.grid)
    return beside(found, fixed.grid, what="the rigid label map", of=fixed.name)


def rigid_guide(labels: Image, start: Transform, working: Grid, affine: Matrix | None) -> RigidGuide:
    """Bring the rigid structures to the working grid. `affine` comes before the initial transform `start`."""
    values = torch.as_tensor(np.ascontiguousarray(labels.array).astype(np.int64))
    before = start.parts if affine is None else (affine, *start.parts)
    there = resample_labels(values, labels.grid, working).numpy()
    numbers, voxels = np.unique(there[there != 0], return_counts=True)  # consecutive: each costs an entry of a list
    small = sorted({*np.unique(labels.array).tolist()} - {0, *numbers[voxels >= FEWEST_VOXELS].tolist()})
    if small:
        warnings.warn(
            f"the rigid structures {', '.join(f'{label:g}' for label in small)} have fewer than {FEWEST_VOXELS} voxels "
            f"of {working} and are not kept rigid; give a smaller --spacing",
            stacklevel=2,
        )
    return RigidGuide(np.where(there != 0, np.searchsorted(numbers, there) + 1, 0), working, before)


def largest_deviation_mm(labels: Image, transform: Transform) -> float:
    """By how much a voxel of a structure misses its place if each structure moved as the rigid body closest to it."""
    worst = 0.0
    for label in np.unique(labels.array[labels.array != 0]).tolist():
        points = labels.grid.to_world(np.argwhere(labels.array == label))
        moved = transform.apply_points(points)
        if len(points) >= FEWEST_VOXELS:
            missed = np.linalg.norm(transform_points(rigid_fit(points, moved), points) - moved, axis=1)
            worst = max(worst, float(missed.max()))
    return worst


def rigid_fit(
    points: NDArray[np.float64], moved: NDArray[np.float64], weights: NDArray[np.float64] | None = None
) -> Matrix:
    """The rigid map, (4, 4), that brings points (N, 3) closest to others; weights (N,). Source: Kabsch 1976."""
    centre, there = np.average(points, 0, weights), np.average(moved, 0, weights)
    covariance = (points - centre).T @ ((moved - there) * (1 if weights is None else weights[:, None]))
    # A line does not tell its twist: none is the closest to how it was.
    left, _, right = np.linalg.svd(covariance + STRAIGHT * np.trace(np.abs(covariance)) * np.eye(3))
    sign = np.sign(np.linalg.det(right.T @ left.T))
    matrix = np.eye(4)
    matrix[:3, :3] = right.T @ np.diag([1.0, 1.0, sign]) @ left.T
    matrix[:3, 3] = there - matrix[:3, :3] @ centre
    return matrix
