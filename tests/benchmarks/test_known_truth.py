"""Motions that are known: random diffeomorphisms are what they claim to be, and a registration finds one again."""

import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

import corereg
from corereg.evaluation.metrics import inverse_consistency_mm, jacobian_determinant
from corereg.io.images.image import Image
from helpers.scenes import centred_grid, in_body, scan, voxels_mm

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
from known_motion import MAX_MM, MEAN_MM, Pair, random_diffeomorphism
from known_truth import score, worse

GRID = centred_grid((70, 52, 60), (2.5, 3.0, 2.8))
INSIDE = in_body(voxels_mm(GRID))
SPACING = np.reshape(GRID.spacing, (3, 1, 1, 1))


@pytest.fixture(scope="module")
def fields() -> tuple[np.ndarray, np.ndarray]:
    return random_diffeomorphism(GRID, INSIDE, seed=4)


def test_random_diffeomorphism_has_its_length_no_fold_and_its_inverse(fields: tuple[np.ndarray, np.ndarray]) -> None:
    there_vox, back_vox = fields
    length = np.linalg.norm(there_vox * SPACING, axis=0)[INSIDE]
    assert length.mean() == pytest.approx(MEAN_MM, rel=0.1)
    assert length.max() == pytest.approx(MAX_MM, rel=0.25)
    assert min(jacobian_determinant(field).min() for field in fields) > 0
    assert inverse_consistency_mm(there_vox, back_vox, GRID.spacing).mean() < 0.01


def test_random_diffeomorphism_is_recovered_within_three_millimetres(fields: tuple[np.ndarray, np.ndarray]) -> None:
    there_vox, back_vox = fields
    fixed = scan(GRID)
    moved = ndimage.map_coordinates(fixed.array, np.indices(GRID.shape) + back_vox, order=1, mode="nearest")
    noise = 10 * np.random.default_rng(0).standard_normal(GRID.shape)
    moving = Image((moved + noise).astype(np.float32), GRID, name="moved")
    found = corereg.register(fixed, moving, affine="none", device="cpu")
    row = score(Pair(fixed.array, moving.array, GRID, there_vox), found.refined.at(GRID).disp_vox.numpy())
    assert row["before_mm"] > 5
    assert row["error_mm"] < 3
    assert row["folds_percent"] < 0.1


def test_rows_that_got_worse_are_reported() -> None:
    row = {"status": "ok", "before_mm": "3", "error_mm": "1", "dice": "", "dice_before": ""}
    assert worse([row]) == []
    assert len(worse([row, row | {"error_mm": "3.5"}, row | {"dice": "0.4", "dice_before": "0.5"}])) == 2
