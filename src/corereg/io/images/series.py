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
from corereg.io.images.checks import finite_intensities, plausible_grid, whole_numbers
from corereg.io.images.image import ITK_SUFFIXES, Image
from corereg.io.images.itk import affine_of_sitk_image, itk_reader, read_itk_image, write_itk
from corereg.io.images.nifti import header_of_grid, is_nifti, write_nifti
from corereg.io.images.nifti_geometry import check_spacing, warn_of_doubtful_geometry
from corereg.io.images.nifti_reader import has_nifti_name, open_nifti
from corereg.lazy import simpleitk

__all__ = ["Series", "read_series", "write_series"]


@dataclass(frozen=True, eq=False)
class Series:
    """Frames on one grid.

    Args:
        values: (I, J, K, ...), as stored.
        grid: of each frame.
        header: the NIfTI header, for the meaning of the further axes; else None.
        name: what messages call it.
        step: distance between neighbouring values, where integers are scaled; else 0.
        time: origin and spacing of the fourth axis of an ITK image that has one; else None.
    """

    values: NDArray[Any]
    grid: Grid
    header: Any
    name: str
    step: float = 0.0
    time: tuple[float, float] | None = None

    @property
    def further(self) -> tuple[int, ...]:
        """The sizes of the axes behind the first three."""
        return tuple(self.values.shape[3:])

    def frames(self, *, labels: bool = False) -> Iterator[Image]:
        """Each frame, the last axis running fastest."""
        for at in np.ndindex(self.further):
            frame = np.ascontiguousarray(self.values[(..., *at)])
            name = f"{self.name}, frame {', '.join(map(str, at))}"
            array = whole_numbers(frame, name, self.step) if labels else finite_intensities(frame, name)
            yield Image(array, self.grid, None, name)


def read_series(path: Path) -> Series | None:
    """A file of several values per voxel; None for any other.

    Raises:
        InputError: such a file that is damaged, or with an impossible geometry.
    """
    if not path.is_file():
        return None
    if has_nifti_name(path):
        return _nifti_series(path)
    return _itk_series(path) if _is_itk(path) else None


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
            write_itk(staged, values, grid, time=series.time)
    else:
        raise InputError(f"got the output {path} for a series, expected a name ending in .nii.gz or .nii; rename it")


def _is_itk(path: Path) -> bool:
    return path.suffix.lower() in ITK_SUFFIXES


def _nifti_series(path: Path) -> Series | None:
    file = open_nifti(path)
    if len(file.shape) < 4 or all(n == 1 for n in file.shape[3:]) or file.dtype.kind not in "biuf":
        return None
    name = str(path)
    check_spacing(file.header, name)
    warn_of_doubtful_geometry(file.header, file.shape, name)
    return Series(file.read(), file.grid, file.header, name, file.step)


def _itk_series(path: Path) -> Series | None:
    """Vectors, or frames along a fourth axis."""
    reader = itk_reader(path)
    size, components = reader.GetSize(), reader.GetNumberOfComponents()
    frames = len(size) == 4 and size[3] > 1
    if frames == (components > 1) or len(size) < 3 or "complex" in _type_name(reader):
        return None
    grid = plausible_grid(size, affine_of_sitk_image(reader), str(path))
    array = simpleitk().GetArrayFromImage(read_itk_image(reader))
    values = array.T if frames else array.transpose(2, 1, 0, 3)
    time = (reader.GetOrigin()[3], reader.GetSpacing()[3]) if frames else None
    return Series(values, grid, None, str(path), time=time)


def _type_name(reader: Any) -> str:
    return str(simpleitk().GetPixelIDValueAsString(reader.GetPixelID()))
