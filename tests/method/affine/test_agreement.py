"""Local agreement of two images under an affine map: what it sees, and what it leaves out."""

import numpy as np
import pytest
from numpy.typing import NDArray

from corereg.method.affine.agreement import local_agreement
from corereg.method.affine.coarse_copies import CoarseCopy
from helpers.grids import make_grid
from helpers.motions import motion

SHAPE = (24, 30, 20)


def textured(seed: int = 0, *, width: int = SHAPE[2]) -> CoarseCopy:
    noise = np.random.default_rng(seed).random((*SHAPE[:2], width)).astype(np.float32)
    return CoarseCopy(noise, make_grid(noise.shape, (3.0, 2.5, 4.0), "oblique"))


def shifted(voxels: float, copy: CoarseCopy) -> NDArray[np.float64]:
    return motion(shift_mm=tuple(voxels * copy.grid.linear[:, 0]))


def test_equal_images_agree_wholly_and_a_linear_change_of_contrast_changes_nothing() -> None:
    image = textured()
    inverted = image._replace(array=np.float32(2) - 0.5 * image.array)
    for other in (image, inverted):
        odds, compared = local_agreement(image, other, np.eye(4))
        assert odds > 1000
        assert compared == 1


def test_it_falls_with_the_distance_from_the_right_place() -> None:
    image = textured()
    odds = [local_agreement(image, image, shifted(voxels, image)).odds for voxels in (0, 0.5, 2)]
    assert odds == sorted(odds, reverse=True)
    assert odds[-1] < 0.2


def test_regions_without_content_count_nothing() -> None:
    """As padding does in mutual information."""
    fixed, moving = textured(), textured(1)
    blank = np.arange(SHAPE[2]) < 12
    padded = [copy._replace(array=np.where(blank, np.float32(0), copy.array)) for copy in (fixed, moving)]
    assert local_agreement(padded[0], padded[1], np.eye(4)).odds < 0.25
    part = [copy._replace(mask=np.broadcast_to(~blank, SHAPE)) for copy in padded]
    assert local_agreement(part[0], padded[1], np.eye(4)).compared == pytest.approx(8 / 20)
    assert local_agreement(padded[0], part[1], np.eye(4)).compared == pytest.approx(8 / 20)


def test_a_slab_of_few_slices_says_nothing() -> None:
    slab = textured(width=3)
    assert local_agreement(slab, slab, np.eye(4)).odds == -np.inf
