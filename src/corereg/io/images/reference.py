"""The grid of an image, whatever its voxels hold: a series, an empty or a constant image will do."""

import os
from pathlib import Path
from typing import Any

import numpy as np

from corereg.errors import InputError
from corereg.geometry.grid import Grid
from corereg.io.images.checks import plausible_grid
from corereg.io.images.image import ITK_SUFFIXES, Image, as_image
from corereg.io.images.itk import affine_of_sitk_image, itk_reader
from corereg.io.images.nifti_geometry import check_spacing, header_affine, mm_affine, warn_of_doubtful_geometry
from corereg.io.images.nifti_reader import has_nifti_name, open_nifti
from corereg.lazy import nibabel, simpleitk

__all__ = ["as_reference"]


def as_reference(image: Any) -> Image | Grid:
    """The grid of anything that `as_image` takes, or of a series, as an image that is 0 everywhere; a Grid as it is.

    Raises:
        InputError: missing, unreadable, of fewer than three axes, or with an impossible geometry.
    """
    if isinstance(image, Grid | Image):
        return image
    if isinstance(image, (str, os.PathLike)):
        path = Path(image)
        if path.is_file() and has_nifti_name(path):
            file = open_nifti(path)
            header = file.header if file.usual_form else None
            _check_axes(file.shape, str(path))
            check_spacing(file.header, str(path))
            warn_of_doubtful_geometry(file.header, file.shape, str(path))
            return _empty(file.shape, file.affine, header, str(path))
        if path.is_file() and path.suffix.lower() in ITK_SUFFIXES:
            reader = itk_reader(path)
            _check_axes(reader.GetSize(), str(path))
            return _empty(reader.GetSize(), affine_of_sitk_image(reader), None, str(path))
        return as_image(path, blank=True)
    if isinstance(image, nibabel().spatialimages.SpatialImage):
        header = image.header if isinstance(image.header, nibabel().Nifti1Header) else None
        header = header if header is None or header_affine(header)[1] else None
        return _empty(image.shape, mm_affine(image), header, image.get_filename() or "the nibabel image")
    if isinstance(image, simpleitk().Image):
        _check_axes(image.GetSize(), "the SimpleITK image")
        return _empty(image.GetSize(), affine_of_sitk_image(image), None, "the SimpleITK image")
    return as_image(image, blank=True)


def _empty(shape: tuple[int, ...], affine: Any, header: Any, name: str) -> Image:
    _check_axes(shape, name)
    grid = plausible_grid(shape, affine, name)
    if header is not None:
        header = header.copy()
        header["dim"] = (3, *grid.shape, 1, 1, 1, 1)
    return Image(np.broadcast_to(np.uint8(0), grid.shape), grid, header, name)


def _check_axes(shape: tuple[int, ...], name: str) -> None:
    if len(shape) < 3:
        raise InputError(
            f"got {name}, a 2-D image of shape {tuple(shape)}, expected a grid of three axes; give the whole scan"
        )
