"""The plain record that every transform format reads and writes. `Transform` wraps it for users."""

from dataclasses import dataclass

from corereg.errors import InputError
from corereg.geometry.chain import Part
from corereg.geometry.grid import Grid
from corereg.io.images.image import Image

__all__ = ["Located", "StoredTransform", "grid_of"]

Located = Image | Grid
"""A grid, or an image that stands for its grid and may carry the header to write."""


@dataclass(frozen=True, eq=False)
class StoredTransform:
    """A transform as files hold it.

    Args:
        parts: what a point passes, in order: (4, 4) matrices of RAS+ millimetres, or displacements.
        fixed: the image, or its grid, that the transform resamples onto; None if the file does not say.
        moving: the image, or its grid, at the other end; None if the file does not say.
        names: one for each part; empty if the file does not name them.
        backward_parts: what a point passes in the other direction; None if the file does not hold it.
        backward_names: one for each part of the other direction; empty if the file does not name them.
        frames: the Frame of Reference UIDs of the fixed and the moving image, for DICOM; None where their files say.
    """

    parts: tuple[Part, ...]
    fixed: Located | None
    moving: Located | None = None
    names: tuple[str, ...] = ()
    backward_parts: tuple[Part, ...] | None = None
    backward_names: tuple[str, ...] = ()
    frames: tuple[str | None, str | None] = (None, None)

    @property
    def fixed_grid(self) -> Grid:
        """The grid of the fixed image.

        Raises:
            InputError: the grid is unknown.
        """
        return grid_of(self.fixed, "fixed")


def grid_of(image: Located | None, name: str, of: object = "a transform") -> Grid:
    """The grid of the fixed or moving image.

    Raises:
        InputError: it is unknown.
    """
    if image is None:
        other = {"fixed": "moving", "moving": "fixed"}[name]
        raise InputError(
            f"got {of} without its {name} grid; give the {name} image with it",
            options=f"add --{name} IMAGE, or with --inverse --{other} IMAGE",
        )
    return image if isinstance(image, Grid) else image.grid
