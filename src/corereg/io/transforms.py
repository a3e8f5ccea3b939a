"""Transforms in the patient: from the fixed image's world to the moving image's.

A transform is a chain of parts that a point passes in order, each a map of RAS+ millimetres: an affine matrix, or a
displacement p + d(p). Warping reads the moving image at T(p), so points travel from fixed to moving, as in ITK.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from corereg.errors import InputError
from corereg.geometry.displacement import Displacement
from corereg.geometry.grid import Grid, Matrix, Points
from corereg.geometry.warp import affine_coords, inside, sample, sample_labels
from corereg.io.fields import read_displacement_field, write_displacement_field
from corereg.io.images import Image, as_image

__all__ = ["InverseError", "Transform"]

SLAB_VOXELS = 2**22
"""Voxels resampled at a time: bounds the memory that positions take."""

ERROR_POINTS = 200_000
"""Points at which the error of an inverse is measured."""

FIT_POINTS = 20_000
"""Grid points to which the affine part of a field from a file is fitted."""

Part = Matrix | Displacement


@dataclass(frozen=True, slots=True)
class InverseError:
    """Millimetres |T(T^-1(q)) - q| over points q of the moving image with a match inside the fixed image's grid."""

    mean: float
    p95: float
    max: float


@dataclass(frozen=True, eq=False)
class Transform:
    """Maps points of the fixed image to the moving image, and so resamples the moving image onto the fixed grid.

    Args:
        parts: what a point passes, in order: (4, 4) matrices of RAS+ millimetres, or displacements (held constant
            beyond their grid).
        fixed: the image, or its grid, whose geometry `apply` and `save` give to their output.
        moving: the same for the inverse, where known.
    """

    parts: tuple[Part, ...]
    fixed: Image | Grid
    moving: Image | Grid | None = None

    @property
    def fixed_grid(self) -> Grid:
        """The grid of what `apply` returns."""
        return _grid(self.fixed)

    def apply_points(self, points_mm: Points) -> NDArray[np.float64]:
        """Positions on the moving image of positions on the fixed image, (..., 3), both RAS+ millimetres.

        Raises:
            InputError: the last dimension is not 3.
        """
        points = np.asarray(points_mm, dtype=np.float64)
        if points.shape[-1:] != (3,):
            raise InputError(
                f"got points of shape {points.shape}, expected (..., 3) in RAS+ millimetres; transpose them"
            )
        world = torch.as_tensor(points.reshape(-1, 3).T.copy())[None, :, :, None, None]
        return np.asarray(self._map(world)[0, :, :, 0, 0].T.numpy().reshape(points.shape))

    def apply(
        self,
        image: object,
        *,
        labels: bool = False,
        reference: object = None,
        outside: float | None = None,
    ) -> Image:
        """Resample an image of the moving side onto the fixed grid, with one interpolation.

        Args:
            image: path, Image, SimpleITK or nibabel image; its own grid counts, it need not be the registered one.
            labels: nearest neighbour, so that no new label appears; otherwise linear, and the result is float32.
            reference: image or Grid that defines the output instead of the fixed one.
            outside: value where the image has none; its smallest value by default, 0 for labels.

        Raises:
            InputError: an image that cannot be used; with `labels`, one that is no label map.
        """
        source = as_image(image, labels=labels)
        like = self.fixed if reference is None else reference if isinstance(reference, Grid) else as_image(reference)
        target = _grid(like)
        if labels:
            values, dtype = torch.as_tensor(np.ascontiguousarray(source.array).astype(np.int64)), source.array.dtype
        else:
            values, dtype = torch.as_tensor(np.ascontiguousarray(source.array, dtype=np.float32)), np.dtype(np.float32)
            outside = float(values.amin()) if outside is None else outside
        out = np.empty(target.shape, dtype=dtype)
        for start, world in _slabs(target):
            coords = _linear_map(source.grid.inverse_affine, self._map(world))
            if labels:
                slab = sample_labels(values, coords, outside=int(outside or 0))
            else:
                slab = sample(values[None, None], coords.float(), outside=outside)[0, 0]
            out[start : start + len(slab)] = slab.numpy()
        return Image(out, target, header=None if isinstance(like, Grid) else like.header, name=source.name)

    def inverse(self) -> "Transform":
        """The transform from moving to fixed: parts inverted in reverse order (`inverse_error` says how well).

        Raises:
            InputError: the moving grid is not known.
        """
        if self.moving is None:
            raise InputError("got a transform without its moving grid, expected one to invert onto; set `moving`")
        parts = tuple(_inverse_part(part) for part in reversed(self.parts))
        return Transform(parts, fixed=self.moving, moving=self.fixed)

    def inverse_error(self, inverse: "Transform") -> InverseError:
        """How far going to the fixed image by `inverse` and back misses the start, in millimetres.

        Measured between voxels, half a voxel from each along all axes, where interpolation errs most.
        """
        step = _thinning(inverse.fixed_grid, ERROR_POINTS)
        thinned = inverse.fixed_grid.strided(step)
        matrix = thinned.affine.copy()
        matrix[:3, 3] = inverse.fixed_grid.to_world([0.5, 0.5, 0.5])
        errors = []
        for _, world in _slabs(Grid(thinned.shape, matrix)):
            there = inverse._map(world)
            back = (self._map(there) - world).norm(dim=1, keepdim=True)
            errors.append(back[inside(_linear_map(self.fixed_grid.inverse_affine, there), self.fixed_grid.shape)])
        error = torch.cat(errors).numpy()
        if not error.size:
            return InverseError(float("nan"), float("nan"), float("nan"))
        return InverseError(float(error.mean()), float(np.quantile(error, 0.95)), float(error.max()))

    def total_mm(self) -> NDArray[np.float32]:
        """T(p) - p at the voxels p of the fixed grid: (3, I, J, K), RAS+ millimetres."""
        total = np.empty((3, *self.fixed_grid.shape), dtype=np.float32)
        for start, world in _slabs(self.fixed_grid):
            total[:, start : start + world.shape[2]] = (self._map(world) - world)[0].numpy()
        return total

    def save(self, path: str | Path) -> None:
        """Write as one displacement field that includes every part: .nii, .nii.gz, .nrrd, .mha or .mhd.

        The file opens in 3D Slicer, ANTs and ITK: a vector image in LPS millimetres with the fixed image's geometry.
        """
        write_displacement_field(Path(path), self.total_mm(), self.fixed)

    @staticmethod
    def load(path: str | Path, *, moving: Image | Grid | None = None) -> "Transform":
        """Read a displacement field file of ours or of another ITK tool.

        The field's affine part (its least-squares fit) becomes a part of its own, so that the field goes on sensibly
        beyond its grid and can be inverted whatever the rotation.

        Args:
            moving: image or grid that the inverse shall live on.

        Raises:
            InputError: not a displacement field.
        """
        total_mm, fixed = read_displacement_field(Path(path))
        grid = _grid(fixed)
        affine = _fitted_affine(total_mm, grid)
        rest = np.empty_like(total_mm)
        back = _inverse(affine)
        for start, world in _slabs(grid):
            stop = start + world.shape[2]
            moved = _linear_map(back, world + torch.as_tensor(total_mm[None, :, start:stop]))
            rest[:, start:stop] = (moved - world)[0].numpy()
        displacement = Displacement.from_mm(torch.as_tensor(rest), grid)
        return Transform((displacement, affine), fixed=fixed, moving=moving)

    def _map(self, world: Tensor) -> Tensor:
        """T of positions (1, 3, X, Y, Z), float64 RAS+ millimetres."""
        for part in self.parts:
            if isinstance(part, Displacement):
                coords = _linear_map(part.grid.inverse_affine, world).to(part.disp_vox.dtype)
                offset = sample(part.disp_vox[None], coords).to(world.dtype)
                linear = np.eye(4)
                linear[:3, :3] = part.grid.linear
                world = world + _linear_map(linear, offset)
            else:
                world = _linear_map(part, world)
        return world


def _grid(image: Image | Grid) -> Grid:
    return image if isinstance(image, Grid) else image.grid


def _inverse_part(part: Part) -> Part:
    return part.inverse()[0] if isinstance(part, Displacement) else _inverse(part)


def _inverse(matrix: Matrix) -> Matrix:
    return np.asarray(np.linalg.inv(matrix), dtype=np.float64)


def _linear_map(matrix: Matrix, points: Tensor) -> Tensor:
    matrix_t = torch.as_tensor(np.array(matrix)).to(points)
    return torch.einsum("ac,bcxyz->baxyz", matrix_t[:3, :3], points) + matrix_t[:3, 3].view(1, 3, 1, 1, 1)


def _slabs(grid: Grid) -> Iterator[tuple[int, Tensor]]:
    """World positions of a grid's voxels, slab by slab along i: where it starts, and (1, 3, X, J, K) in float64."""
    step = max(1, SLAB_VOXELS // (grid.shape[1] * grid.shape[2]))
    for start in range(0, grid.shape[0], step):
        shape = (min(step, grid.shape[0] - start), *grid.shape[1:])
        matrix = grid.affine.copy()
        matrix[:3, 3] = grid.to_world((start, 0, 0))
        yield start, affine_coords(shape, matrix, like=torch.empty(0, dtype=torch.float64))


def _thinning(grid: Grid, points: int) -> int:
    """Stride at which a grid keeps about so many of its voxels."""
    return max(1, int(np.rint(np.cbrt(math.prod(grid.shape) / points))))


def _fitted_affine(total_mm: NDArray[np.float32], grid: Grid) -> Matrix:
    """The affine map (4, 4) closest to p + d(p) over the grid, or the identity where no invertible one is near."""
    step = _thinning(grid, FIT_POINTS)
    picked = tuple(slice(None, None, min(step, max(1, n // 2))) for n in grid.shape)
    index = np.stack(
        np.meshgrid(*(np.arange(n)[s] for n, s in zip(grid.shape, picked, strict=True)), indexing="ij"), -1
    )
    start = grid.to_world(index.reshape(-1, 3))
    end = start + total_mm[(slice(None), *picked)].reshape(3, -1).T
    centre = start.mean(0)
    design = np.c_[start - centre, np.ones(len(start))]
    solution = np.linalg.lstsq(design, end - centre, rcond=None)[0].T
    affine = np.eye(4)
    affine[:3, :3] = solution[:, :3]
    affine[:3, 3] = solution[:, 3] + centre - solution[:, :3] @ centre
    return affine if np.linalg.det(affine[:3, :3]) > 0 else np.eye(4)
