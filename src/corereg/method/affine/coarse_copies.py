"""Coarse copies of the scans, on which the affine pre-alignment works. Downstream: align."""

import math
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from corereg.geometry.grid import Grid, Matrix
from corereg.io.images.image import Image
from corereg.kept import kept
from corereg.lazy import scipy_module
from corereg.preprocessing.detection import Intensities
from corereg.preprocessing.intensity import HU_SCALE, normalise
from corereg.preprocessing.working_grid import resample_mask, shrink

__all__ = ["CoarseCopy", "coarse_copy", "common_unit_mm"]

AFFINE_SPACING_MM = 3.0
"""Voxel size of the coarse copies; a scan with larger voxels keeps its own."""

CT_HU, CT_LEVELS = (-1000.0, -200.0, 300.0, 1000.0), (0.0, 0.1, 0.95, 1.0)
"""Piecewise linear scale of a CT. Fat, muscle and organs show where one field of view lies within another, so they get
most of the levels; but lung and bone must not vanish, as a mask may leave nothing else. Mean error of breathing chest
phantoms under a fixed mask of the lungs: 77 mm in the abdominal window, 3.4 with air to bone, 3.7 with this scale; Dice
of a head-and-neck pair after the affine map: 0.421, 0.362 and 0.416."""
MASK_MARGIN_MM = 12.0
"""How far masks are dilated: the edge of an organ tells more about its place than what lies inside."""

SIZES_MM, USUAL_SIZE_MM = (30.0, 1000.0), 100.0
"""Edges of the smallest and the largest cube that the spacings and tolerances of the affine step suit, and of one that
they suit well. A mouse's brain is smaller, and a header may give micrometres as millimetres."""

CPU = torch.device("cpu")


class CoarseCopy(NamedTuple):
    """A scan reduced to what the pre-alignment needs."""

    array: NDArray[np.float32]
    """(I, J, K), scaled intensities."""
    grid: Grid
    mask: NDArray[np.bool_] | None = None
    """Voxels that count; None counts all."""
    unit_mm: float = 1.0
    """Size of a unit of its grid; the affine step takes a unit for a millimetre."""

    def map_in_mm(self, matrix: Matrix) -> Matrix:
        """A map (4, 4) in units, in millimetres."""
        return _with_shift(matrix, self.unit_mm)

    def map_in_units(self, matrix: Matrix) -> Matrix:
        """A map (4, 4) in millimetres, in units."""
        return _with_shift(matrix, 1 / self.unit_mm)


def common_unit_mm(*grids: Grid) -> float:
    """The unit in which the larger of the fields of view has a size that suits the affine step: 1 for a person."""
    size = max(math.prod(grid.extent_mm) ** (1 / 3) for grid in grids)
    return 1.0 if SIZES_MM[0] <= size <= SIZES_MM[1] else size / USUAL_SIZE_MM


def coarse_copy(
    image: Image, intensities: Intensities, mask: NDArray[np.bool_] | None = None, *, unit_mm: float = 1.0
) -> CoarseCopy:
    """Reduce an image to voxels of about 3 units and scale its intensities.

    Raises:
        InputError: an image without contrast.
    """
    key = "coarse copy", intensities, image.grid.affine.tobytes(), image.name, unit_mm
    return kept(key, lambda: _copied(image, intensities, mask, unit_mm), of=(image.array, mask))


def _copied(image: Image, intensities: Intensities, mask: NDArray[np.bool_] | None, unit_mm: float) -> CoarseCopy:
    whole = Grid(image.grid.shape, np.diag([1 / unit_mm] * 3 + [1.0]) @ image.grid.affine)
    volume, grid = shrink(image.array, whole, AFFINE_SPACING_MM, device=CPU)
    ct = intensities.modality.startswith("ct")
    scaled = normalise(volume, "ct" if ct else intensities.modality, intensities.offset_hu)[0, 0].numpy()
    if ct:
        scaled = np.interp(HU_SCALE * scaled, CT_HU, CT_LEVELS).astype(np.float32)
    coarse = None if mask is None else resample_mask(mask, whole, grid, device=CPU)[0, 0].numpy() > 0
    if coarse is not None:
        coarse = scipy_module("ndimage").distance_transform_edt(~coarse, sampling=grid.spacing) <= MASK_MARGIN_MM
    return CoarseCopy(scaled, grid, coarse, unit_mm)


def _with_shift(matrix: Matrix, factor: float) -> Matrix:
    found = matrix.copy()
    found[:3, 3] *= factor
    return found
