"""Transforms of the patient: from positions on the fixed image to positions on the moving image.

A transform is a chain of named parts that a point passes in order, each a map of RAS+ millimetres: an affine matrix, or
a displacement p + d(p). Warping reads the moving image at T(p), so points travel from fixed to moving, as in ITK.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from typing_extensions import Unpack

from corereg.errors import InputError
from corereg.geometry.chain import (
    Part,
    beyond,
    check_parts,
    distinct,
    inverse_parts,
    kind,
    offsets_mm,
    parts_of_field,
    remainder,
    through,
)
from corereg.geometry.displacement import Displacement
from corereg.geometry.grid import Grid, Points
from corereg.geometry.inverse_error import InverseError, Mask, inverse_error
from corereg.geometry.positions import as_points, as_positions, finite_points
from corereg.geometry.resample import resample
from corereg.io.images.arrays import as_array, is_array, like_array
from corereg.io.images.background import background_value, warn_if_blank
from corereg.io.images.image import Image, as_image
from corereg.io.images.kinds import ApplyOptions, ImageLike
from corereg.io.images.reference import as_reference
from corereg.io.transforms.formats.registry import FORMATS, format_of_name, read_stored
from corereg.io.transforms.formats.stored import StoredTransform, grid_of

__all__ = ["InverseError", "Part", "Transform"]


@dataclass(frozen=True, eq=False)
class Transform:
    """Maps points of the fixed image to the moving image, and so resamples the moving image onto the fixed grid.

    Beyond its grid a displacement is held at its edge value (`extrapolated` reports where).

    Args:
        parts: what a point passes, in order: (4, 4) matrices of RAS+ millimetres, or displacements.
        fixed: the image, or its grid, whose geometry `apply` and `save` give to their output; None if it is unknown.
        moving: the same for the inverse.
        names: a distinct name for each part; "affine" and "deformation" by default.
        backward: the other direction, if it is already known; `inverse` then returns it.

    Raises:
        InputError: a matrix is singular, a part holds values that cannot be computed with, or there is not one distinct
            name for each part.
    """

    parts: tuple[Part, ...]
    fixed: Image | Grid | None
    moving: Image | Grid | None = None
    names: tuple[str, ...] = ()
    backward: "Transform | None" = None

    def __post_init__(self) -> None:
        check_parts(self.parts)
        names = self.names or distinct([kind(part) for part in self.parts])
        if not len(set(names)) == len(names) == len(self.parts):
            raise InputError(f"got names {list(names)} for {len(self.parts)} parts, expected a distinct name for each")
        object.__setattr__(self, "names", names)

    @property
    def fixed_grid(self) -> Grid:
        """The grid of the images that `apply` returns; InputError if it is unknown, as for a matrix from a file."""
        return grid_of(self.fixed, "fixed")

    @property
    def moving_grid(self) -> Grid:
        """The grid of the images that the inverse's `apply` returns; InputError if it is unknown."""
        return grid_of(self.moving, "moving")

    def named(self, *names: str) -> "Transform":
        """Keep only these parts, in their present order; InputError if no part has such a name."""
        return self._picked(names, kept=True)

    def without(self, *names: str) -> "Transform":
        """Leave these parts out; InputError if no part has such a name."""
        return self._picked(names, kept=False)

    def then(self, other: "Transform") -> "Transform":
        """Warp by this transform, then warp the result by `other`: one transform, with one interpolation.

        It resamples this one's moving image onto the other's fixed grid, so a point passes the other's parts first.
        """
        names = distinct([*other.names, *self.names])
        return Transform((*other.parts, *self.parts), fixed=other.fixed, moving=self.moving, names=names)

    def split(self, name: str, coarse: Displacement, names: Sequence[str] = ("fine", "coarse")) -> "Transform":
        """Split one displacement into two parts: what `coarse` leaves over, then `coarse`.

        Use it with `RegistrationResult.coarse` and the part "deformation" of its transform.

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
        """Positions on the moving image that match positions (..., 3) on the fixed image, both in RAS+ millimetres.

        Raises:
            InputError: the last dimension is not 3, or a coordinate is NaN or infinite.
        """
        points = finite_points(points_mm)
        return as_points(self.moved(as_positions(points))).reshape(points.shape)

    def extrapolated(self, points_mm: Points) -> NDArray[np.bool_]:
        """True, (...), where a position (..., 3) meets a displacement beyond its grid, where its edge value is held."""
        points = finite_points(points_mm)
        return np.asarray(self.beyond(as_positions(points)).numpy().reshape(points.shape[:-1]))

    @overload
    def apply(  # type: ignore[overload-overlap]
        self, image: NDArray[Any], **options: Unpack[ApplyOptions]
    ) -> NDArray[Any]: ...
    @overload
    def apply(self, image: Tensor, **options: Unpack[ApplyOptions]) -> Tensor: ...  # type: ignore[overload-overlap]
    @overload
    def apply(self, image: ImageLike, **options: Unpack[ApplyOptions]) -> Image: ...
    def apply(
        self,
        image: ImageLike,
        *,
        affine: object = None,
        labels: bool = False,
        reference: ImageLike | Grid | None = None,
        outside: float | None = None,
        interpolation: str | None = None,
    ) -> Any:
        """Resample an image of the moving side onto the fixed grid, with one interpolation.

        Args:
            image: path, Image, SimpleITK or nibabel image, or MONAI MetaTensor, on any grid; or an array or tensor,
                which gives an array, or a tensor on the same device.
            affine: of an array or tensor: (4, 4), voxel to RAS+ millimetres; by default that of the moving grid.
            labels: the image is a label map: nearest neighbour, and its type is kept. With `interpolation="linear"` the
                label with the most weight among the eight surrounding voxels wins: smoother, but without new labels.
            reference: image or Grid that defines the output instead of the fixed one.
            outside: value where the image has none; by default the smallest value of a CT, and 0 for anything else.
            interpolation: nearest, linear (the default), bspline (cubic) or sinc (Hamming window of 5 voxels radius).
                All but nearest give float32.

        Raises:
            InputError: the image cannot be used, or is not a label map though `labels` is set, or the interpolation is
                unknown.
        """
        bare = is_array(image)
        if bare and affine is None and as_array(image).shape == self.moving_grid.shape:
            affine = self.moving_grid.affine
        source = as_image(image, labels=labels, blank=True, affine=affine)
        like = self.fixed if reference is None else as_reference(reference)
        found = self.resampled(source, like, labels=labels, outside=outside, interpolation=interpolation)
        return like_array(found.array, image) if bare else found

    def resampled(
        self,
        source: Image,
        like: Image | Grid | None,
        *,
        labels: bool = False,
        outside: float | None = None,
        interpolation: str | None = None,
    ) -> Image:
        """Like `apply`, but without checking the image's voxels: a frame of a series may be constant."""
        target = grid_of(like, "fixed")
        chosen = interpolation or ("nearest" if labels else "linear")
        if outside is None:
            outside = 0.0 if labels else background_value(source.array, source.modality)
        out = resample(
            source.array, source.grid, target, self.parts, interpolation=chosen, labels=labels, outside=outside
        )
        warn_if_blank(out, of=source.array, name=source.name)
        return Image(out, target, header=like.header if isinstance(like, Image) else None, name=source.name)

    def inverse(self) -> "Transform":
        """The transform from moving to fixed: its parts inverted, in reverse order (see `inverse_error`).

        The inverse of the result is this transform again.
        """
        if self.backward is not None:
            return replace(self.backward, backward=self)
        parts, names = inverse_parts(self.parts), self.names[::-1]
        return Transform(parts, fixed=self.moving, moving=self.fixed, names=names, backward=self)

    def inverse_error(self, inverse: "Transform | None" = None, where: Mask | None = None) -> InverseError:
        """By how many mm points of the moving grid, those in `where`, miss their start by way of `inverse` and back."""
        inverse = inverse or self.inverse()
        return inverse_error(self.moved, inverse.moved, self.fixed_grid, inverse.fixed_grid, where=where)

    def total_mm(self) -> NDArray[np.float32]:
        """T(p) - p at the voxels p of the fixed grid: (3, I, J, K), RAS+ millimetres."""
        return offsets_mm(self.parts, self.fixed_grid)

    def jacobian_determinant(self, reference: Grid | None = None) -> NDArray[np.float32]:
        """Local volume ratio of all parts together, (I, J, K), at the voxels of the fixed grid or of another."""
        grid = reference or self.fixed_grid
        whole = Displacement.from_mm(torch.as_tensor(offsets_mm(self.parts, grid)), grid)
        return np.asarray(whole.jacobian_determinant().numpy())

    def save(self, path: str | Path) -> None:
        """Write an ITK composite of all parts (.h5, .tfm) or one ITK displacement field (.nii.gz, .nrrd, .mha).

        The .h5 also holds the other direction, the names of the parts and the inverse error. The field includes every
        part. For other formats see `corereg.convert_transform`.

        Raises:
            InputError: the name ends otherwise, or the folder is missing or not writable.
        """
        path = Path(path)
        FORMATS[format_of_name(path) or "itk-field"].write(path, self.stored())

    @staticmethod
    def load(
        path: str | Path, *, fixed: Any = None, moving: Any = None, source_format: str | None = None
    ) -> "Transform":
        """Read a transform of ours or of another tool; its format is recognised by its name and content.

        Args:
            fixed, moving: images, or grids, for formats that do not hold them; they replace those of the file.
            source_format: one of the formats of `corereg convert --help`, if the file alone does not tell.

        Raises:
            InputError: it is not a transform, or a grid is missing.
        """
        stored = read_stored(Path(path), fixed=fixed, moving=moving, source_format=source_format)
        try:
            return Transform.from_stored(stored)
        except InputError as error:
            raise InputError(f"{path}: {error}") from None

    def stored(self) -> StoredTransform:
        """The plain record that the file formats write."""
        record = StoredTransform(self.parts, self.fixed, self.moving, self.names)
        if self.backward is None:
            return record
        return replace(record, backward_parts=self.backward.parts, backward_names=self.backward.names)

    @staticmethod
    def from_stored(stored: StoredTransform) -> "Transform":
        """The transform of a record that a file format read.

        Raises:
            InputError: a matrix is singular, or a part holds values that cannot be computed with.
        """
        forward = Transform(stored.parts, stored.fixed, stored.moving, stored.names)
        if stored.backward_parts is None:
            return forward
        back = Transform(stored.backward_parts, stored.moving, stored.fixed, stored.backward_names)
        return replace(forward, backward=back)

    @staticmethod
    def from_field(
        total_mm: NDArray[np.float32], fixed: Image | Grid, moving: Image | Grid | None = None
    ) -> "Transform":
        """Make a transform of T(p) - p at the voxels p of the fixed grid: (3, I, J, K), RAS+ millimetres.

        The affine map closest to T becomes a part of its own (see `chain.parts_of_field`).
        """
        return Transform(parts_of_field(total_mm, grid_of(fixed, "fixed")), fixed=fixed, moving=moving)

    def moved(self, positions: Tensor) -> Tensor:
        """T of positions (1, 3, X, Y, Z), float64 RAS+ millimetres."""
        return through(self.parts, positions)

    def beyond(self, positions: Tensor) -> Tensor:
        """True, (1, 1, X, Y, Z), where positions (1, 3, X, Y, Z) meet a displacement beyond its grid."""
        return beyond(self.parts, positions)

    def _check_names(self, names: Sequence[str]) -> None:
        for name in names:
            if name not in self.names:
                raise InputError(f"got the part {name}, expected one of {', '.join(self.names)}; correct it")

    def _picked(self, names: Sequence[str], *, kept: bool) -> "Transform":
        self._check_names(names)
        chosen = {name: part for name, part in zip(self.names, self.parts, strict=True) if (name in names) == kept}
        return Transform(tuple(chosen.values()), self.fixed, self.moving, tuple(chosen))
