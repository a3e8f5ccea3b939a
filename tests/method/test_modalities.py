"""What `register` does with scans whose values alone say what they are."""

from functools import cache

import numpy as np
import pytest
from numpy.testing import assert_allclose

from corereg import RegistrationResult, register
from corereg.data.phantom import make_breathing_pair
from corereg.io.images.image import Image


@cache
def breathing() -> tuple[Image, Image]:
    pair = make_breathing_pair(5, "abdomen", 6.0)
    return Image(pair.fixed, pair.grid, name="the fixed"), Image(pair.moving, pair.grid, name="the moving")


def registered(fixed: Image, moving: Image) -> RegistrationResult:
    return register(fixed, moving, affine="none", refine_steps=4)


def test_ct_stored_without_a_sign_is_registered_as_the_same_ct() -> None:
    fixed, moving = breathing()
    plain = registered(fixed, moving)
    assert [each.modality for each in plain.intensities] == ["ct", "ct"]
    stored = Image(np.rint(np.clip(moving.array + 1024, 0, None)).astype(np.uint16), moving.grid, name="the stored")
    with pytest.warns(UserWarning, match=r"the stored .* 1024"):
        found = registered(fixed, stored)
    assert found.summary()["intensities"]["moving"]["offset_hu"] == -1024
    assert found.moving.array.dtype == np.uint16
    assert_allclose(found.refined.disp_vox.numpy(), plain.refined.disp_vox.numpy(), atol=1e-3)
    assert float(found.warped().array.min()) >= 0


def test_one_voxel_does_not_turn_a_pair_of_mrs_into_cts() -> None:
    """Magnitudes of 0 to 4000, as a spline leaves them after it overshoots at one place."""
    grid = breathing()[0].grid
    positive = [np.clip(each.array + 1000, 0, None) ** 1.1 for each in breathing()]
    arrays = [4000 * np.sqrt(array / array.max()) for array in positive]
    plain = registered(*(Image(array, grid) for array in arrays))
    assert [each.modality for each in plain.intensities] == ["mr", "mr"]
    for array in arrays:
        array[20, 3, 4] = -321.0
    found = registered(*(Image(array, grid) for array in arrays))
    assert [each.modality for each in found.intensities] == ["mr", "mr"]
    apart = np.abs(found.refined.disp_vox.numpy() - plain.refined.disp_vox.numpy())
    assert np.quantile(apart, 0.999) < 0.1  # next to the voxel itself the refinement follows what was changed
