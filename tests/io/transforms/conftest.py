"""A fixed image in each orientation."""

from pathlib import Path

import pytest

from corereg.io.images.image import Image, read_image
from helpers.grids import ORIENTATIONS
from helpers.images import save_nifti
from helpers.scenes import scan
from helpers.transforms import (
    fixed_grid,
)


@pytest.fixture(params=ORIENTATIONS)
def fixed(request: pytest.FixtureRequest, tmp_path: Path) -> Image:
    """A scan that has been a file, with the header that it got there."""
    image = scan(fixed_grid(request.param))
    save_nifti(tmp_path / "fixed.nii", image.array, image.grid.affine, qform_code=3, sform_code=2, xyzt_units=10)
    return read_image(tmp_path / "fixed.nii")
