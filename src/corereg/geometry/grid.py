"""Grids: where the voxels of an array lie in the patient.

World coordinates are RAS+ millimetres everywhere in the package. Voxel coordinates are voxel centres 0..N-1 in array
axis order (i, j, k). Points take a matrix with its offset, vectors only its linear part.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from corereg.errors import InputError

__all__ = ["HEADER_TOLERANCE_MM", "Grid", "transform_points"]

Matrix = NDArray[np.float64]
Points = NDArray[Any] | Sequence[Any]
"""Positions (..., 3), as an array or nested sequences of numbers."""
Turn = tuple[tuple[int, int, int], Sequence[bool]]
"""An order of axes, and which of them run backwards."""

HEADER_TOLERANCE_MM = 1e-2
"""Corners of the same grid read from two files may differ by this much, because headers store float32."""

SINGULAR_VOLUME = 1e-9
"""Voxel volume, in mm^3, below which an affine counts as singular."""

LAST_ROW = 1e-6
"""By how much the last row of an affine may miss 0, 0, 0, 1."""

PARALLEL = 1e-6
"""Sine of the angle below which two edges count as parallel."""


def transform_points(matrix: Matrix, points: Points) -> Matrix:
    """Apply a 4x4 matrix to points (..., 3), in float64."""
    points = np.asarray(points, dtype=np.float64)
    return np.asarray(points @ matrix[:3, :3].T + matrix[:3, 3])


@dataclass(frozen=True, eq=False)
class Grid:
    """Shape and voxel-to-RAS affine of a volume.

    Args:
        shape: number of voxels along the array axes i, j, k.
        affine: (4, 4), maps a voxel index (i, j, k, 1) to RAS+ millimetres.

    Raises:
        InputError: the shape is not three positive integers, or the affine is not a finite, regular 4x4 matrix whose
            last row is 0, 0, 0, 1.
    """

    shape: tuple[int, int, int]
    affine: Matrix

    def __post_init__(self) -> None:
        shape = tuple(int(n) for n in self.shape)
        affine = np.array(self.affine, dtype=np.float64)
        if len(shape) != 3 or min(shape) < 1:
            raise InputError(f"got a grid of shape {shape}, expected three sizes of at least 1")
        if affine.shape != (4, 4) or not np.isfinite(affine).all():
            raise InputError(f"got the affine {affine.tolist()}, expected a finite 4x4 matrix")
        if abs(np.linalg.det(affine[:3, :3])) < SINGULAR_VOLUME:
            raise InputError(
                f"got a singular voxel-to-world affine {affine[:3, :3].round(6).tolist()}, expected three independent "
                "axes of non-zero spacing; repair the header"
            )
        if not np.allclose(affine[3], (0, 0, 0, 1), rtol=0, atol=LAST_ROW):
            raise InputError(
                f"got an affine whose last row is {affine[3].round(6).tolist()}, expected 0, 0, 0, 1; transpose it if "
                "its shift stands in the last row"
            )
        affine.setflags(write=False)
        object.__setattr__(self, "shape", shape)
        object.__setattr__(self, "affine", affine)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Grid) and self.shape == other.shape and np.array_equal(self.affine, other.affine)

    def __hash__(self) -> int:
        return hash((self.shape, self.affine.tobytes()))

    def __str__(self) -> str:
        size = " x ".join(map(str, self.shape))
        spacing = " x ".join(f"{s:.3g}" for s in self.spacing)
        return f"{size} voxels of {spacing} mm ({self.orientation})"

    @cached_property
    def inverse_affine(self) -> Matrix:
        """(4, 4), RAS+ millimetres to voxel indices."""
        return np.asarray(np.linalg.inv(self.affine), dtype=np.float64)

    @property
    def linear(self) -> Matrix:
        """(3, 3), voxel offsets to RAS+ millimetre offsets."""
        return self.affine[:3, :3]

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Millimetres between voxel centres along i, j, k."""
        i, j, k = np.sqrt((self.linear**2).sum(0))
        return float(i), float(j), float(k)

    @property
    def extent_mm(self) -> tuple[float, float, float]:
        """Millimetres from the outer face of the first voxel to that of the last along i, j, k."""
        i, j, k = (n * s for n, s in zip(self.shape, self.spacing, strict=True))
        return i, j, k

    @property
    def orientation(self) -> str:
        """The anatomical directions closest to increasing i, j, k, such as "RAS" or "LPS"."""
        axes, signs = self._closest_axes()
        return "".join(
            "LR"[s > 0] if a == 0 else "PA"[s > 0] if a == 1 else "IS"[s > 0] for a, s in zip(axes, signs, strict=True)
        )

    def _closest_axes(self) -> tuple[list[int], list[int]]:
        """For each array axis, the world axis that it follows most closely (each used once), and the sign."""
        cosines = self.linear / np.linalg.norm(self.linear, axis=0)
        axes, signs = [-1, -1, -1], [1, 1, 1]
        remaining = np.abs(cosines)
        for _ in range(3):
            world, voxel = np.unravel_index(int(np.argmax(remaining)), (3, 3))
            axes[voxel], signs[voxel] = int(world), 1 if cosines[world, voxel] >= 0 else -1
            remaining[world, :] = remaining[:, voxel] = -1
        return axes, signs

    def to_world(self, coords_vox: Points) -> Matrix:
        """Voxel coordinates (..., 3) to RAS+ millimetres."""
        return transform_points(self.affine, coords_vox)

    def to_voxel(self, coords_mm: Points) -> Matrix:
        """RAS+ millimetres (..., 3) to voxel coordinates."""
        return transform_points(self.inverse_affine, coords_mm)

    def to_voxels_of(self, other: "Grid") -> Matrix:
        """(4, 4) matrix from this grid's voxel coordinates to those of another grid."""
        return np.asarray(other.inverse_affine @ self.affine)

    def canonical(self) -> "Grid":
        """The grid of the same voxels with array axes reordered and flipped to lie closest to R, A, S."""
        axes, signs = self._closest_axes()
        order = [axes.index(world) for world in range(3)]
        return self._turned(order, [signs[old] < 0 for old in order])

    def turn_to(self, other: "Grid", tolerance_mm: float = 1e-3) -> Turn | None:
        """How arrays of this grid are turned to the axes of another grid of the same voxels.

        Returns: the axis of this grid along each axis of the other, and which of these run backwards there; None
            unless the grids have the same voxels, their corners within `tolerance_mm` of each other.
        """
        along = other.to_voxels_of(self)[:3, :3]
        i, j, k = (int(axis) for axis in np.abs(along).argmax(0))
        if len({i, j, k}) < 3:
            return None
        backwards = [bool(along[old, new] < 0) for new, old in enumerate((i, j, k))]
        return ((i, j, k), backwards) if self._turned((i, j, k), backwards).close_to(other, tolerance_mm) else None

    def _turned(self, order: Sequence[int], backwards: Sequence[bool]) -> "Grid":
        """The grid of the same voxels with its axes in another order, some of which run backwards in the new grid."""
        matrix = np.zeros((4, 4))
        matrix[3, 3] = 1
        for new, old in enumerate(order):
            matrix[old, new] = -1 if backwards[new] else 1
            matrix[old, 3] = self.shape[old] - 1 if backwards[new] else 0
        i, j, k = (self.shape[old] for old in order)
        return Grid((i, j, k), self.affine @ matrix)

    def strided(self, stride: int) -> "Grid":
        """The grid of every `stride`-th voxel: point i of the result lies on voxel `stride * i` of this grid.

        A 3x3x3 convolution with stride 2 and padding 1 places its features there.
        """
        affine = self.affine.copy()
        affine[:3, :3] *= stride
        i, j, k = (-(-n // stride) for n in self.shape)
        return Grid((i, j, k), affine)

    def corners_mm(self) -> Matrix:
        """World positions (8, 3) of the outer corners of the volume, measured at the voxel faces."""
        signs = np.stack(np.meshgrid([0, 1], [0, 1], [0, 1], indexing="ij"), -1).reshape(-1, 3)
        return self.to_world(signs * np.array(self.shape) - 0.5)

    def overlaps(self, other: "Grid", affine: Matrix | None = None) -> bool:
        """Whether the fields of view, moved by `affine` (world, 4x4) for this grid, share any volume.

        Source: the separating axis theorem for two parallelepipeds.
        """
        own, others = self.corners_mm(), other.corners_mm()
        own = own if affine is None else transform_points(affine, own)
        edges, other_edges = (_unit(corners[[4, 2, 1]] - corners[0]) for corners in (own, others))
        axes = np.concatenate(
            [
                np.cross(edges, np.roll(edges, 1, 0)),
                np.cross(other_edges, np.roll(other_edges, 1, 0)),
                np.cross(edges[:, None], other_edges).reshape(-1, 3),
            ]
        )
        # Parallel edges span no plane, so their product is nothing but rounding.
        axes = axes[np.linalg.norm(axes, axis=1) > PARALLEL].T
        first, second = own @ axes, others @ axes
        return not bool(((first.max(0) <= second.min(0)) | (second.max(0) <= first.min(0))).any())

    def close_to(self, other: "Grid", tolerance_mm: float = 1e-3) -> bool:
        """Whether both grids have the same shape, and corners within `tolerance_mm` of each other."""
        return self.shape == other.shape and bool(np.abs(self.corners_mm() - other.corners_mm()).max() <= tolerance_mm)

    def as_dict(self) -> dict[str, Any]:
        """The grid as plain numbers, for JSON."""
        return {"shape": list(self.shape), "affine": self.affine.tolist(), "orientation": self.orientation}

    @staticmethod
    def from_spacing(shape: Sequence[int], spacing_mm: Sequence[float]) -> "Grid":
        """An axis-aligned RAS grid whose first voxel lies at the world's origin."""
        i, j, k = shape
        return Grid((i, j, k), np.diag([*spacing_mm, 1.0]))


def _unit(vectors: Matrix) -> Matrix:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=-1, keepdims=True))
