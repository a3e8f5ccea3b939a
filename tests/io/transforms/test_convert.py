"""Conversion of transforms."""

from pathlib import Path

import numpy as np
from numpy.testing import assert_allclose
from scipy.ndimage import zoom

from corereg.io.transforms.convert import convert_transform, shortcomings
from corereg.io.transforms.transform import Transform
from helpers.scenes import voxels_mm
from helpers.transforms import (
    FIXED,
    MOVING,
    wavy,
    written,
)

FLOAT32_MM = 3e-4
"""A few roundings of positions of some 100 mm."""


def test_half_resolution_field_is_what_the_challenge_makes_of_it(tmp_path: Path) -> None:
    transform = wavy(FIXED)
    path = written(transform, tmp_path, "learn2reg-half", "disp_0001_0002.npz")
    with np.load(path) as content:
        (half,) = content.values()
    assert half.dtype == np.float16
    assert half.shape == (3, 13, 12, 15)
    full = np.array([zoom(component.astype(np.float32), 2, order=2) for component in half])
    loaded = Transform.load(path, fixed=FIXED, moving=MOVING)
    expected = MOVING.to_world(np.moveaxis(np.indices(FIXED.shape) + full, 0, -1))
    assert_allclose(loaded.apply_points(voxels_mm(FIXED)), expected, atol=FLOAT32_MM)
    inner = slice(2, -2)
    error = np.linalg.norm(expected - transform.apply_points(voxels_mm(FIXED)), axis=-1)[inner, inner, inner]
    assert error.mean() < 0.2  # mm, of voxels of 4: half the samples, and 11 bits


def test_what_a_format_cannot_hold_is_said_before_anything_is_written(tmp_path: Path) -> None:
    wavy(FIXED).save(tmp_path / "transform.h5")
    said: list[str] = []

    def log(line: str) -> None:
        assert not (tmp_path / "disp.nii.gz").exists()
        said.append(line)

    convert_transform(tmp_path / "transform.h5", tmp_path / "disp.nii.gz", to="learn2reg", log=log)
    assert any("deformation, affine are composed" in line for line in said)
    assert any("--inverse" in line for line in said)
    assert any("neither grid" in line for line in said)
    assert (tmp_path / "disp.nii.gz").exists()
    assert shortcomings(wavy(FIXED), "itk", "out.h5") == []
    assert "holds one direction" in " ".join(shortcomings(Transform.load(tmp_path / "transform.h5"), "itk", "out.tfm"))
