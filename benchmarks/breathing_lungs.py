"""Inhale and exhale of a real chest: a CT whose lungs move as the landmarks of another patient do.

The landmarks are pairs of points that match in an exhale and an inhale scan. A smooth displacement is fitted to them,
in the box of this patient's lungs, with bones that stay where they are. The exhale image is the CT pulled back by it;
its lungs are denser where they are smaller, and both images have noise of their own.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from known_motion import body
from numpy.typing import NDArray
from scipy import ndimage, sparse
from scipy.sparse.linalg import cg

from corereg.geometry.grid import Grid
from corereg.io.images.image import Image

__all__ = ["Breath", "breathing_pair", "read_landmarks"]

LANDMARK_SPACING_MM = (1.75, 1.25, 1.75)
"""Of the Learn2Reg scans in whose voxels the landmarks are given."""
APEX_PERCENT = 90.0
"""The landmarks above this percentile of height belong to the apex."""
LATTICE_MM = 8.0
STIFFNESS, STIFFER, LEAST_VOLUME = 0.3, 2.0, 0.3
"""Weight of the bending of the lattice's displacement; raised by this factor until no volume shrinks to less than this
share."""
BONE_HU, BONE_STEP, BONE_WEIGHT = 250.0, 40, 0.1
"""Every so many voxels of bone hold their place, with this weight relative to a landmark's."""
LUNG_HU, VESSEL_HU = -400.0, -300.0
CLOSING_VOXELS = 3
NOISE_HU, KERNEL_VOXELS = 25.0, 0.4
"""White noise of each image, and the blur of the exhale image's reconstruction kernel."""

Points = NDArray[np.float64]


@dataclass(frozen=True)
class Breath:
    """Two images of one grid: moving(x + u(x)) shows what fixed(x) shows."""

    exhale: NDArray[np.int16]
    """The fixed image."""
    inhale: NDArray[np.int16]
    """The moving image."""
    grid: Grid
    disp_vox: NDArray[np.float64]
    """(3, I, J, K): u."""
    lungs: NDArray[np.bool_]
    """The lungs of the fixed image."""


def read_landmarks(path: Path) -> tuple[Points, Points]:
    """Points (N, 3) in millimetres, left or right, front and up being positive: exhale and inhale."""
    rows = np.loadtxt(path, delimiter=",")
    spacing = np.array(LANDMARK_SPACING_MM) * (1, -1, 1)
    first, second = rows[:, :3] * spacing, rows[:, 3:] * spacing
    # The larger lungs are the inhaled ones, whichever the file names first.
    growth = np.linalg.lstsq(first - first.mean(0), second - second.mean(0), rcond=None)[0]
    return (first, second) if np.linalg.det(growth) >= 1 else (second, first)


def breathing_pair(scan: Image, landmarks: tuple[Points, Points], seed: int) -> Breath:
    """Make the pair from a CT taken at inhale whose axes are right or left, front or back, and up."""
    hu, spacing = scan.array.astype(np.float32), np.array(scan.grid.spacing)
    lungs = _lungs(hu)
    places = np.argwhere(lungs) * spacing
    given = [points * np.sign(np.diag(scan.grid.affine)[:3]) for points in landmarks]
    box, own = (np.percentile(points, (1, 99), axis=0) for points in (given[1], places))
    scale = (own[1] - own[0]) / (box[1] - box[0])
    exhale, inhale = ((points - box[0]) * scale + own[0] for points in given)
    # The apex hangs on the ribs: what it moves by is another position of the patient or of the scan's crop.
    exhale += np.median((inhale - exhale)[exhale[:, 2] > np.percentile(exhale[:, 2], APEX_PERCENT)], axis=0)
    bones = np.argwhere(hu > BONE_HU)[::BONE_STEP] * spacing
    disp_mm, volume = _fitted(exhale, inhale - exhale, bones, scan.grid, body(hu))
    disp_vox = disp_mm / spacing.reshape(3, 1, 1, 1)
    there = np.indices(hu.shape) + disp_vox

    def pulled(array: NDArray[Any], order: int) -> NDArray[Any]:
        return np.asarray(ndimage.map_coordinates(array, there, order=order, mode="nearest"))

    rng = np.random.default_rng([seed, 3])
    parenchyma = lungs * np.clip((VESSEL_HU - hu) / 300, 0, 1)
    density = 1 + pulled(ndimage.gaussian_filter(parenchyma.astype(np.float32), 0.7), 1) * (volume - 1)
    exhaled = (pulled(hu, 3).clip(hu.min(), hu.max()) + 1000) * density - 1000
    images = []
    for image in (ndimage.gaussian_filter(exhaled, KERNEL_VOXELS), hu):
        noisy = image + NOISE_HU * rng.standard_normal(hu.shape, np.float32)
        images.append(noisy.round().clip(-1024, 3071).astype(np.int16))
    return Breath(images[0], images[1], scan.grid, disp_vox, pulled(lungs.astype(np.float32), 1) > 0.5)


def _lungs(hu: NDArray[np.float32]) -> NDArray[np.bool_]:
    pieces, _ = ndimage.label((hu < LUNG_HU) & body(hu))
    sizes = np.bincount(pieces.ravel())[1:]
    large = np.isin(pieces, 1 + np.flatnonzero(sizes > sizes.max() / 4))
    return np.asarray(ndimage.binary_closing(large, iterations=CLOSING_VOXELS))


def _fitted(
    points: Points, disp_mm: Points, fixed_points: Points, grid: Grid, inside: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """A smooth displacement (3, I, J, K) in millimetres near the given ones, and how volumes change by it."""
    shape = [int(np.ceil((n - 1) * s / LATTICE_MM)) + 2 for n, s in zip(grid.shape, grid.spacing, strict=True)]
    at, towards = np.concatenate([points, fixed_points]), np.concatenate([disp_mm, np.zeros_like(fixed_points)])
    weights = np.repeat((1.0, BONE_WEIGHT), (len(points), len(fixed_points)))
    sampling, bending = _sampling(at / LATTICE_MM, shape), _bending(shape)
    weighted = sampling.T @ sparse.diags(weights)
    nodes = np.indices(grid.shape) * (np.array(grid.spacing) / LATTICE_MM).reshape(3, 1, 1, 1)
    stiffness, lattice = STIFFNESS, [np.zeros(shape)] * 3
    while True:
        matrix = (weighted @ sampling + stiffness * bending).tocsr()
        lattice = [
            cg(matrix, weighted @ column, x0=start.ravel(), rtol=1e-3)[0].reshape(shape)
            for column, start in zip(towards.T, lattice, strict=True)
        ]
        found = np.stack([ndimage.map_coordinates(part, nodes, order=3, mode="nearest") for part in lattice])
        slopes = np.stack([np.stack(np.gradient(part, *grid.spacing)) for part in found])
        volume = np.linalg.det(np.eye(3) + np.moveaxis(slopes, (0, 1), (-2, -1)))
        if volume[inside].min() > LEAST_VOLUME:
            return found, volume
        stiffness *= STIFFER


def _sampling(at: Points, shape: list[int]) -> sparse.csr_matrix:
    """Trilinear interpolation of a lattice at points."""
    low = np.clip(np.floor(at).astype(int), 0, np.array(shape) - 2)
    part = at - low
    rows, columns, values = [], [], []
    for corner in np.ndindex(2, 2, 2):
        rows.append(np.arange(len(at)))
        columns.append(np.ravel_multi_index(tuple((low + corner).T), shape))
        values.append(np.prod(np.where(corner, part, 1 - part), axis=1))
    parts = (np.concatenate(each) for each in (values, rows, columns))
    value, row, column = parts
    return sparse.csr_matrix((value, (row, column)), (len(at), int(np.prod(shape))))


def _bending(shape: list[int]) -> sparse.csr_matrix:
    """Squared second differences along each axis, and a little of the squared first ones, which end far motion."""
    total = sparse.csr_matrix((int(np.prod(shape)),) * 2)
    for axis, size in enumerate(shape):
        first = sparse.diags([-np.ones(size - 1), np.ones(size - 1)], [0, 1], (size - 1, size))
        second = sparse.diags(
            [np.ones(size - 2), -2 * np.ones(size - 2), np.ones(size - 2)], [0, 1, 2], (size - 2, size)
        )
        one = second.T @ second + 0.01 * first.T @ first
        parts = [one if a == axis else sparse.identity(n) for a, n in enumerate(shape)]
        total = total + sparse.kron(sparse.kron(parts[0], parts[1]), parts[2])
    return total.tocsr()
