"""Transforms in the patient: from the fixed image's world to the moving image's.

A transform is a chain of named parts that a point passes in order, each a map of RAS+ millimetres: an affine matrix, or
a displacement p + d(p). Warping reads the moving image at T(p), so points travel from fixed to moving, as in ITK.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from corereg.errors import InputError
from corereg.geometry.chain import (
    Part,
    beyond,
    check_matrix,
    displacements,
    distinct,
    inverse_part,
    kind,
    remainder,
    through,
    through_all,
)
from corereg.geometry.displacement import Displacement
from corereg.geometry.grid import Grid, Points
from corereg.geometry.inverse_error import InverseError, inverse_error
from corereg.geometry.kernels.dispatch import use_kernels
from corereg.geometry.positions import as_points, as_positions, fitted_affine, inverse_matrix, linear_map, slabs
from corereg.geometry.resample import resample
from corereg.io.images.image import Image, as_image

__all__ = ["InverseError", "Part", "Transform"]


@dataclass(frozen=True, eq=False)
class Transform:
    """Maps points of the fixed image to the moving image, and so resamples the moving image onto the fixed grid.

    Beyond its grid a displacement is held at its edge value (`extrapolated` tells where).

    Args:
        parts: what a point passes, in order: (4, 4) matrices of RAS+ millimetres, or displacements.
        fixed: the image, or its grid, whose geometry `apply` and `save` give to their output; None for a file that does
            not say it.
        moving: the same for the inverse, where known.
        names: one for each part; "affine" and "deformation" by default.
        backward: the other direction, where it is known already; `inverse` gives it then.

    Raises:
        InputError: a singular matrix, or not one name of its own for each part.
    """

    parts: tuple[Part, ...]
    fixed: Image | Grid | None
    moving: Image | Grid | None = None
    names: tuple[str, ...] = ()
    backward: "Transform | None" = None

    def __post_init__(self) -> None:
        for part in self.parts:
            if not isinstance(part, Displacement):
                check_matrix(part)
        names = self.names or distinct([kind(part) for part in self.parts])
        if len(set(names)) != len(self.parts) or len(names) != len(self.parts):
            raise InputError(
                f"got the names {list(names)} for {len(self.parts)} parts, expected one of its own each; rename them"
            )
        object.__setattr__(self, "names", names)

    @property
    def fixed_grid(self) -> Grid:
        """The grid of what `apply` returns.

        Raises:
            InputError: not known, as for an affine matrix from a file.
        """
        return _grid(self.fixed, "fixed")

    @property
    def moving_grid(self) -> Grid:
        """The grid of what the inverse's `apply` returns.

        Raises:
            InputError: not known.
        """
        return _grid(self.moving, "moving")

    def named(self, *names: str) -> "Transform":
        """Only these parts, in the order in which they are here.

        Raises:
            InputError: no part has such a name.
        """
        self._check_names(names)
        return self._picked([name in names for name in self.names])

    def without(self, *names: str) -> "Transform":
        """All parts but these.

        Raises:
            InputError: no part has such a name.
        """
        self._check_names(names)
        return self._picked([name not in names for name in self.names])

    def then(self, other: "Transform") -> "Transform":
        """Warp by this, then warp the result by `other`: as one transform, with one interpolation.

        It reads this one's moving image onto the other's fixed grid, so a point passes the other's parts first.
        """
        names = distinct([*other.names, *self.names])
        return Transform((*other.parts, *self.parts), fixed=other.fixed, moving=self.moving, names=names)

    def split(self, name: str, coarse: Displacement, names: Sequence[str] = ("fine", "coarse")) -> "Transform":
        """Two parts in the place of one displacement: what remains of it, then `coarse`.

        `RegistrationResult.coarse` and the part "deformation" of its transform belong together.

        Raises:
            InputError: no displacement has such a name.
        """
        self._check_names([name])
        at = self.names.index(name)
        whole = self.parts[at]
        if not isinstance(whole, Displacement):
            raise InputError(f"got the part {name}, a matrix, expected a displacement to split; name another")
        coarse = coarse.at(whole.grid)
        parts = (*self.parts[:at], remainder(whole, coarse), coarse, *self.parts[at + 1 :])
        return replace(self, parts=parts, names=(*self.names[:at], *names, *self.names[at + 1 :]))

    def apply_points(self, points_mm: Points) -> NDArray[np.float64]:
        """Positions on the moving image of positions on the fixed image, (..., 3), both RAS+ millimetres.

        Raises:
            InputError: the last dimension is not 3.
        """
        points = _points(points_mm)
        return as_points(self.moved(as_positions(points))).reshape(points.shape)

    def extrapolated(self, points_mm: Points) -> NDArray[np.bool_]:
        """(...), true where a position (..., 3) meets a displacement beyond its grid, where the edge value is held."""
        points = _points(points_mm)
        return np.asarray(self.beyond(as_positions(points)).numpy().reshape(points.shape[:-1]))

    def apply(
        self,
        image: object,
        *,
        labels: bool = False,
        reference: object = None,
        outside: float | None = None,
        interpolation: str | None = None,
    ) -> Image:
        """Resample an image of the moving side onto the fixed grid, with one interpolation.

        Args:
            image: path, Image, SimpleITK or nibabel image, or MONAI MetaTensor; its own grid counts, it need not be the
                registered one.
            labels: a label map: nearest neighbour, and its type is kept. With `interpolation="linear"` the label with
                the most weight among the eight around wins: smoother, and still no new label.
            reference: image or Grid that defines the output instead of the fixed one.
            outside: value where the image has none; its smallest value by default, 0 for labels.
            interpolation: nearest, linear (the default), bspline (cubic) or sinc (Hamming window of 5 voxels radius).
                The result is float32, but for nearest.

        Raises:
            InputError: an image that cannot be used; with `labels`, one that is no label map; an unknown interpolation.
        """
        source = as_image(image, labels=labels)
        like = self.fixed if reference is None else reference if isinstance(reference, Grid) else as_image(reference)
        return self.resampled(source, like, labels=labels, outside=outside, interpolation=interpolation)

    def resampled(
        self,
        source: Image,
        like: Image | Grid | None,
        *,
        labels: bool = False,
        outside: float | None = None,
        interpolation: str | None = None,
    ) -> Image:
        """`apply` for an image whose voxels are known to be sound, such as a constant frame of a series."""
        target = _grid(like, "fixed")
        chosen = interpolation or ("nearest" if labels else "linear")
        out = resample(
            source.array, source.grid, target, self.parts, interpolation=chosen, labels=labels, outside=outside
        )
        return Image(out, target, header=like.header if isinstance(like, Image) else None, name=source.name)

    def inverse(self) -> "Transform":
        """The transform from moving to fixed: parts inverted in reverse order (`inverse_error` says how well).

        Its own inverse is this transform again.
        """
        if self.backward is not None:
            return replace(self.backward, backward=self)
        parts = tuple(inverse_part(part) for part in reversed(self.parts))
        return Transform(parts, fixed=self.moving, moving=self.fixed, names=self.names[::-1], backward=self)

    def inverse_error(self, inverse: "Transform | None" = None) -> InverseError:
        """How far going to the fixed image by `inverse` and back misses the start, in millimetres."""
        inverse = inverse or self.inverse()
        return inverse_error(self.moved, inverse.moved, self.fixed_grid, inverse.fixed_grid)

    def total_mm(self) -> NDArray[np.float32]:
        """T(p) - p at the voxels p of the fixed grid: (3, I, J, K), RAS+ millimetres."""
        if use_kernels(*displacements(self.parts)):
            from corereg.geometry.kernels import chain as kernels_chain

            return kernels_chain.offsets_mm(self.parts, self.fixed_grid)
        total = np.empty((3, *self.fixed_grid.shape), dtype=np.float32)
        for where, world in slabs(self.fixed_grid):
            total[:, where] = (self.moved(world) - world)[0].numpy()
        return total

    def jacobian_determinant(self, reference: Grid | None = None) -> NDArray[np.float32]:
        """Local volume ratio of T, all parts included, at the voxels of the fixed grid or of another: (I, J, K)."""
        grid = reference or self.fixed_grid
        total_mm = torch.as_tensor(replace(self, fixed=grid).total_mm())
        return np.asarray(Displacement.from_mm(total_mm, grid).jacobian_determinant().numpy())

    def save(self, path: str | Path) -> None:
        """Write for every tool: .h5 or .tfm as an ITK composite of all parts, .nii.gz, .nrrd or .mha as one ITK field.

        The .h5 holds both directions, the names and the inverse's error besides; the field includes every part.
        For other formats see `corereg.convert_transform`.
        """
        from corereg.io.transforms.formats.registry import save_by_suffix

        save_by_suffix(self, Path(path))

    @staticmethod
    def load(
        path: str | Path, *, fixed: Any = None, moving: Any = None, source_format: str | None = None
    ) -> "Transform":
        """Read a transform of ours or of another tool; the format is found by looking into the file.

        Args:
            fixed, moving: images, or grids, for formats that do not hold them; they stand in for those of the file.
            source_format: one of `corereg convert --help`, where looking is not enough.

        Raises:
            InputError: not a transform, or a grid is missing.
        """
        from corereg.io.transforms.formats.registry import read_transform

        return read_transform(Path(path), fixed=fixed, moving=moving, source_format=source_format)

    @staticmethod
    def from_field(
        total_mm: NDArray[np.float32], fixed: Image | Grid, moving: Image | Grid | None = None
    ) -> "Transform":
        """From T(p) - p at the voxels p of the fixed grid: (3, I, J, K), RAS+ millimetres.

        The field's affine part (its least-squares fit) becomes a part of its own, so that the field goes on sensibly
        beyond its grid and can be inverted whatever the rotation.
        """
        grid = _grid(fixed, "fixed")
        affine = fitted_affine(total_mm, grid)
        back = inverse_matrix(affine)
        rest = np.empty_like(total_mm)
        for where, world in slabs(grid):
            moved = linear_map(back, world + torch.as_tensor(total_mm[None, :, where]))
            rest[:, where] = (moved - world)[0].numpy()
        return Transform((Displacement.from_mm(torch.as_tensor(rest), grid), affine), fixed=fixed, moving=moving)

    def moved(self, positions: Tensor) -> Tensor:
        """T of positions (1, 3, X, Y, Z), float64 RAS+ millimetres."""
        return through_all(self.parts, positions)

    def beyond(self, positions: Tensor) -> Tensor:
        """(1, 1, X, Y, Z), true where positions (1, 3, X, Y, Z) meet a displacement beyond its grid."""
        missed = torch.zeros(1, 1, *positions.shape[2:], dtype=torch.bool)
        for part in self.parts:
            missed |= beyond(part, positions)
            positions = through(part, positions)
        return missed

    def _check_names(self, names: Sequence[str]) -> None:
        for name in names:
            if name not in self.names:
                raise InputError(f"got the part {name}, expected one of {', '.join(self.names)}; correct it")

    def _picked(self, keep: Sequence[bool]) -> "Transform":
        parts = tuple(part for part, kept in zip(self.parts, keep, strict=True) if kept)
        names = tuple(name for name, kept in zip(self.names, keep, strict=True) if kept)
        return Transform(parts, self.fixed, self.moving, names)


def _grid(image: Image | Grid | None, name: str) -> Grid:
    if image is None:
        raise InputError(
            f"got a transform without its {name} grid, expected one; give the {name} image with it (of an inverse, the "
            "other one)"
        )
    return image if isinstance(image, Grid) else image.grid


def _points(points_mm: Points) -> NDArray[np.float64]:
    points = np.asarray(points_mm, dtype=np.float64)
    if points.shape[-1:] != (3,):
        raise InputError(f"got points of shape {points.shape}, expected (..., 3) in RAS+ millimetres; transpose them")
    return points
