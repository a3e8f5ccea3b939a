"""The command `corereg` and the files that its tests give it."""

from pathlib import Path

import numpy as np
import pytest

from corereg.io.images.image import read_image, write_image
from corereg.io.transforms.transform import Transform
from helpers import transforms
from helpers.pairs import FIXED, MOVING
from helpers.scenes import affine_map, scan, wave
from helpers.transforms import label_map, wavy


@pytest.fixture(scope="session")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """fixed.nii.gz, moving.nii.gz and label maps of both; not to be changed."""
    folder = tmp_path_factory.mktemp("scans")
    for name, grid, motion in (("fixed", FIXED, affine_map(np.eye(4))), ("moving", MOVING, wave)):
        write_image(folder / f"{name}.nii.gz", scan(grid, motion).array.astype(np.int16), grid)
        write_image(folder / f"{name}_labels.nii.gz", label_map(grid, np.uint8, motion).array, grid)
    return folder


@pytest.fixture(scope="session")
def field(scans: Path) -> Path:
    """A transform file on the fixed grid."""
    shift = np.eye(4)
    shift[:3, 3] = 6.0, -3.0, 3.5
    Transform((shift,), fixed=read_image(scans / "fixed.nii.gz")).save(scans / "field.nii.gz")
    return scans / "field.nii.gz"


@pytest.fixture
def h5(tmp_path: Path) -> Path:
    wavy(transforms.FIXED).save(tmp_path / "transform.h5")
    return tmp_path / "transform.h5"
