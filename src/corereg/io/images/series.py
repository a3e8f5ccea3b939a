"""Images of several values per voxel: time series, vectors, channels. Each frame is resampled as an image of its own.

Vectors and tensors are carried, not turned: their components are channels.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from corereg.errors import InputError
from corereg.geometry.grid import Grid
from corereg.io.atomic import atomic_path
from corereg.io.images.checks import finite_intensities, whole_numbers
from corereg.io.images.image import ITK_SUFFIXES, Image
from corereg.io.images.itk import vectors_of_sitk, write_itk
from corereg.io.images.nifti import header_of_grid, is_nifti, mm_affine, stored_voxels, write_nifti
from corereg.lazy import nibabel, simpleitk

__all__ = ["Series", "read_series", "write_series"]


@dataclass(frozen=True, eq=False)
class Series:
    """Frames on one grid.

    Args:
        values: (I, J, K, ...), as stored.
        grid: of each frame.
        header: the NIfTI header, for the meaning of the further axes; else None.
        name: what messages call it.
    """

    values: NDArray[Any]
    grid: Grid
    header: Any
    name: str

    @property
    def further(self) -> tuple[int, ...]:
        """The sizes of the axes behind the first three."""
        return tuple(self.values.shape[3:])

    def frames(self, *, labels: bool = False) -> Iterator[Image]:
        """Each frame, the last axis running fastest."""
        for at in np.ndindex(self.further):
            frame = np.ascontiguousarray(self.values[(..., *at)])
            name = f"{self.name}, frame {', '.join(map(str, at))}"
            yield Image(
                whole_numbers(frame, name) if labels else finite_intensities(frame, name), self.grid, None, name
            )


def read_series(path: Path) -> Series | None:
    """A file of several values per voxel; None for any other."""
    return _nifti_series(path) if is_nifti(path) else _itk_series(path) if _is_itk(path) else None


def write_series(path: Path, values: NDArray[Any], like: Image | Grid, series: Series) -> None:
    """Write (I, J, K, ...) on the grid of `like`; its further axes mean what they do in `series`.

    Raises:
        InputError: an extension that cannot hold them, or a folder that is missing or not writable.
    """
    grid, header = (like, None) if isinstance(like, Grid) else (like.grid, like.header)
    if is_nifti(path):
        with atomic_path(path) as staged:
            write_nifti(staged, values, grid, header, series=series.header or header_of_grid(grid))
    elif _is_itk(path) and values.ndim == 4:
        with atomic_path(path) as staged:
            write_itk(staged, values, grid)
    else:
        raise InputError(f"got the output {path} for a series, expected a name ending in .nii.gz or .nii; rename it")


def _is_itk(path: Path) -> bool:
    return path.suffix.lower() in ITK_SUFFIXES


def _nifti_series(path: Path) -> Series | None:
    try:
        image = nibabel().load(path)
    except Exception:  # whatever it is, the reader of images says it better
        return None
    if len(image.shape) < 4 or all(n == 1 for n in image.shape[3:]) or image.get_data_dtype().kind not in "biuf":
        return None
    i, j, k = image.shape[:3]
    return Series(stored_voxels(image), Grid((i, j, k), mm_affine(image)), image.header, str(path))


def _itk_series(path: Path) -> Series | None:
    reader = simpleitk().ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
        if reader.GetNumberOfComponents() == 1 or reader.GetDimension() != 3:
            return None
        values, affine = vectors_of_sitk(reader.Execute())
    except RuntimeError:  # the reader of images says it better
        return None
    i, j, k = values.shape[:3]
    return Series(values, Grid((i, j, k), affine), None, str(path))
