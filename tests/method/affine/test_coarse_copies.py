"""Coarse copies: the full range of a CT, and masks that keep the edges of what they hold."""

from functools import cache

import numpy as np
import pytest
from numpy.typing import NDArray

from corereg.data.phantom import make_breathing_pair
from corereg.data.phantom.images import BreathingPair
from corereg.geometry.grid import Grid, transform_points
from corereg.io.images.image import Image
from corereg.method.affine.align import align
from corereg.method.affine.coarse_copies import MASK_MARGIN_MM, coarse_copy
from corereg.preprocessing.detection import Intensities
from helpers.motions import motion
from helpers.scenes import centred_grid, scan

CT = Intensities("ct")
TRUTH = motion(degrees=(5, -4, 6), scale=1.04, shift_mm=(12, -9, 8))


@cache
def chest() -> tuple[BreathingPair, NDArray[np.bool_], NDArray[np.bool_]]:
    """A breathing pair, and masks of the lungs: labels whose mean is below -500 HU."""
    pair = make_breathing_pair(1, "chest", 5.0)
    lungs = [n for n in np.unique(pair.fixed_labels) if n and pair.fixed[pair.fixed_labels == n].mean() < -500]
    return pair, np.isin(pair.fixed_labels, lungs), np.isin(pair.moving_labels, lungs)


@cache
def error_mm(masked: str) -> float:
    """Mean error over the lungs of the map found after the moving image was moved by TRUTH."""
    pair, fixed_lungs, moving_lungs = chest()
    fixed = Image(pair.fixed, pair.grid)
    moving = Image(pair.moving, Grid(pair.grid.shape, TRUTH @ pair.grid.affine))
    found = align(
        coarse_copy(fixed, CT, fixed_lungs if masked in ("fixed", "both") else None),
        coarse_copy(moving, CT, moving_lungs if masked == "both" else None),
    )
    voxels = np.argwhere(fixed_lungs)
    there = voxels + pair.disp_vox[:, voxels[:, 0], voxels[:, 1], voxels[:, 2]].T
    truth = transform_points(TRUTH, pair.grid.to_world(there))
    mapped = transform_points(found.affine, pair.grid.to_world(voxels.astype(float)))
    return float(np.linalg.norm(mapped - truth, axis=1).mean())


@pytest.mark.parametrize("masked", ["fixed", "both"])
def test_mask_of_the_lungs_leaves_a_chest_as_well_aligned_as_none(masked: str) -> None:
    assert error_mm("none") < 5
    assert error_mm(masked) < error_mm("none") + 0.2


def test_lung_and_bone_differ_from_air_and_from_soft_tissue() -> None:
    values = np.array([-1000.0, -850, -600, -100, 40, 250, 700])
    image = Image(np.tile(values[:, None, None], (1, 4, 5)), centred_grid((7, 4, 5), (3.0, 4.0, 5.0)))
    levels = coarse_copy(image, CT).array[:, 0, 0]
    assert (np.diff(levels) > 0.015).all()
    shifted = Image(image.array + 1024, image.grid)
    np.testing.assert_allclose(coarse_copy(shifted, Intensities("ct", -1024.0)).array[:, 0, 0], levels, atol=1e-6)


def test_mask_is_dilated_by_millimetres_whatever_the_voxels() -> None:
    image = scan(centred_grid((31, 21, 15), (3.0, 4.0, 6.0), "LPS"))
    mask = np.zeros(image.grid.shape, dtype=bool)
    mask[15, 10, 7] = True
    dilated = coarse_copy(image, CT, mask).mask
    assert dilated is not None
    away = np.linalg.norm((np.argwhere(np.ones_like(mask)) - [15, 10, 7]) * image.grid.spacing, axis=1)
    np.testing.assert_array_equal(dilated.ravel(), away <= MASK_MARGIN_MM)
