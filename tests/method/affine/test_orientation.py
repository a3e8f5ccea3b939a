"""Orientations: the score of a scan that was mirrored or turned is best where that is undone."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from corereg.geometry.grid import Grid
from corereg.io.images.image import Image
from corereg.method.affine.coarse_copies import CoarseCopy, coarse_copy
from corereg.method.affine.orientation import Flips, _ratios, _scores, orientation_ratios
from corereg.preprocessing.detection import Intensities
from helpers.grids import make_grid

SHAPE, SPACING_MM = (36, 44, 30), (4.0, 3.5, 5.0)
UNMOVED = np.eye(4)
SHIFTED = np.array([[1, 0, 0, 9.0], [0, 1, 0, -14.0], [0, 0, 1, 11.0], [0, 0, 0, 1]])


def lopsided(grid: Grid, shift: np.ndarray = UNMOVED) -> CoarseCopy:
    """Three balls of their own brightness in a body, alike in no two orientations."""
    places = np.stack(np.meshgrid(*(np.linspace(-1, 1, n) for n in SHAPE), indexing="ij"), -1)
    array = 200.0 * ((places / (0.8, 0.7, 0.85)) ** 2).sum(-1).__lt__(1)
    for value, centre, radius in (
        (900, (0.3, 0.2, 0.4), 0.25),
        (600, (-0.4, 0.25, 0), 0.2),
        (1200, (0.1, -0.3, -0.5), 0.2),
    ):
        array[((places - centre) ** 2).sum(-1) < radius**2] = value
    return coarse_copy(
        Image(array.astype(np.float32), Grid(SHAPE, shift @ grid.affine), name="balls"), Intensities("mr")
    )


@pytest.mark.parametrize("orientation", ["RAS", "LPS", "oblique"])
def test_as_it_is_wins_for_a_scan_in_its_right_orientation(orientation: str) -> None:
    grid = make_grid(SHAPE, SPACING_MM, orientation)
    ratios = orientation_ratios(lopsided(grid), lopsided(grid, SHIFTED), np.eye(4))
    assert len(ratios) == 7
    assert max(ratios.values()) < 1 / 1.2


@pytest.mark.parametrize("flips", [(-1, 1, 1), (1, -1, 1), (1, 1, -1), (-1, -1, 1), (1, -1, -1), (-1, -1, -1)])
def test_a_flip_is_found(flips: Flips) -> None:
    """RAS, so that array axes are those of the patient."""
    grid = make_grid(SHAPE, SPACING_MM, "RAS")
    right = lopsided(grid, SHIFTED)
    wrong = right._replace(array=np.ascontiguousarray(right.array[tuple(slice(None, None, f) for f in flips)]))
    ratios = orientation_ratios(lopsided(grid), wrong, np.eye(4))
    assert max(ratios, key=lambda tried: ratios[tried]) == flips
    assert ratios[flips] > 1.2


def test_blank_corners_do_not_speak_for_another_orientation() -> None:
    """What a turned scan lacks at its corners happens to meet dark places of a flipped one."""
    rng = np.random.default_rng(0)
    whole = gaussian_filter(rng.normal(size=SHAPE), 3).astype(np.float32)
    grid = make_grid(SHAPE, SPACING_MM, "oblique")
    i, j, _ = np.indices(SHAPE)
    dark = whole < np.quantile(whole, 0.2)
    whole[dark] = whole.min()
    # Blank where the flipped scan is dark.
    blank = dark[::-1] | (i + j < 8) | (i + j > sum(SHAPE[:2]) - 10)
    turned = CoarseCopy(np.where(blank, whole.min() - 3, whole).astype(np.float32), grid)
    ratios = orientation_ratios(turned, CoarseCopy(whole, grid), np.eye(4))
    assert max(ratios.values()) < 1
    for power in (0.5, 1.0):
        assert max(_ratios(_scores(turned, CoarseCopy(whole, grid), np.eye(4), 0, power=power)).values()) > 1
