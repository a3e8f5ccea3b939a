"""The challenge's formulas: golden numbers of its own code."""

import math

import numpy as np
import pytest

from corereg.evaluation import metrics
from helpers.golden import SHAPE, golden_field, golden_labels

LANDMARKS_FIXED = [(10.0, 10.0, 10.0), (20.5, 18.25, 30.75), (35.0, 30.0, 40.0)]

SPACING_MOVING_MM = (1.5, 2.0, 0.5)

GOLDEN = {
    0.0: {
        "sdlogj": 0.0,
        "det": (1.0, 1.0),
        "fold_percent": 0.0,
        "dice": (0.713891, [0.727782, 0.7, math.nan]),
        "hd95": (2.0, [2.0, 2.0, math.nan]),
        "tre": [2.54951] * 3,
        "ndv_percent": 0.0,
    },
    1.0: {
        "sdlogj": 0.02141280,
        "det": (0.79201, 1.20799),
        "fold_percent": 0.0,
        "dice": (0.718975, [0.727951, 0.71, math.nan]),
        "hd95": (2.914214, [3.0, 2.828427, math.nan]),
        "tre": [1.452448, 4.262884, 2.900023],
        "ndv_percent": 0.0,
    },
    2.5: {
        "sdlogj": 0.14360528,
        "det": (-0.69824, 2.69824),
        "fold_percent": 3.3832,
        "dice": (0.699911, [0.713122, 0.6867, math.nan]),
        "hd95": (3.5, [4.0, 3.0, math.nan]),
        "tre": [0.903914, 7.019634, 3.516727],
        "ndv_percent": 1.017100,
    },
}
"""Amplitude of the field -> what the official evaluation code returns, to the digits that are known."""


@pytest.fixture(params=sorted(GOLDEN), ids="amplitude {}".format)
def amplitude(request: pytest.FixtureRequest) -> float:
    return request.param


class TestGoldenTable:
    def test_regularity(self, amplitude):
        golden, disp_vox = GOLDEN[amplitude], golden_field(amplitude)
        determinant = metrics.jacobian_determinant(disp_vox)
        assert determinant.shape == tuple(size - 4 for size in SHAPE)
        assert metrics.sdlogj(disp_vox) == pytest.approx(golden["sdlogj"], abs=1e-8)
        assert (determinant.min(), determinant.max()) == pytest.approx(golden["det"], abs=1e-5)
        assert metrics.fold_percent(disp_vox) == pytest.approx(golden["fold_percent"], abs=5e-5)
        assert metrics.num_foldings_l2r(disp_vox) == 0
        everywhere = np.ones(SHAPE, bool)
        assert metrics.ndv_percent(disp_vox, everywhere) == pytest.approx(golden["ndv_percent"], abs=1e-6)
        assert metrics.ndv_percent(disp_vox) == metrics.ndv_percent(disp_vox, everywhere)
        assert metrics.sdlogj(disp_vox) == metrics.sdlogj(disp_vox, everywhere)

    def test_labels(self, amplitude):
        (fixed, moving), golden = golden_labels(), GOLDEN[amplitude]
        warped = metrics.warp_labels(moving, golden_field(amplitude))
        overlap, distance = metrics.dice(fixed, warped, moving), metrics.hd95(fixed, warped, moving)
        assert list(overlap) == list(distance) == [1, 2, 3]
        assert list(overlap.values()) == pytest.approx(golden["dice"][1], abs=1e-6, nan_ok=True)
        assert list(distance.values()) == pytest.approx(golden["hd95"][1], abs=1e-6, nan_ok=True)
        assert metrics.mean_dice(fixed, warped, moving) == pytest.approx(golden["dice"][0], abs=1e-6)
        assert metrics.mean_over_labels(distance) == pytest.approx(golden["hd95"][0], abs=1e-6)

    def test_landmarks(self, amplitude):
        moving = np.add(LANDMARKS_FIXED, 1)
        errors_mm = metrics.tre(golden_field(amplitude), LANDMARKS_FIXED, moving, SPACING_MOVING_MM)
        assert errors_mm == pytest.approx(GOLDEN[amplitude]["tre"], abs=1e-6)

    def test_single_precision_changes_nothing_that_is_printed(self, amplitude):
        disp_vox = golden_field(amplitude)
        assert metrics.sdlogj(disp_vox.astype(np.float32)) == pytest.approx(metrics.sdlogj(disp_vox), abs=1e-6)
