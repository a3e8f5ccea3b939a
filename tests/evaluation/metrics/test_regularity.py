"""Regularity of fields against analytic truth and a slow loop."""

import itertools
import math

import numpy as np
import pytest

from corereg.errors import InputError
from corereg.evaluation import metrics
from helpers.golden import SHAPE, golden_field


class TestRegularity:
    def test_determinant_of_an_affine_map(self):
        rng = np.random.default_rng(2)
        matrix = np.eye(3) + rng.normal(0, 0.2, (3, 3))
        shape = (7, 9, 21)
        coords_vox = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij")).astype(np.float64)
        disp_vox = np.tensordot(matrix, coords_vox, 1) - coords_vox + 0.3
        expected = np.linalg.det(matrix)
        np.testing.assert_allclose(metrics.jacobian_determinant(disp_vox), expected, rtol=1e-10)
        np.testing.assert_allclose(metrics.jacobian_determinant(disp_vox, border=1), expected, rtol=1e-10)
        assert metrics.sdlogj(disp_vox) == pytest.approx(0, abs=1e-10)
        assert metrics.ndv_percent(disp_vox) == 0

    @pytest.mark.parametrize("axis", range(3))
    def test_stretch_reads_the_same_along_every_axis(self, axis):
        shape = (8, 10, 12)
        disp_vox = np.zeros((3, *shape))
        disp_vox[axis] = 0.2 * np.indices(shape)[axis]
        np.testing.assert_allclose(metrics.jacobian_determinant(disp_vox), 1.2)

    def test_equals_a_slow_loop(self):
        rng = np.random.default_rng(8)
        disp_vox = rng.normal(0, 0.6, (3, 20, 6, 7))
        fast = metrics.jacobian_determinant(disp_vox)
        for voxel in np.ndindex(*fast.shape):
            jacobian = np.eye(3)
            for component, axis in itertools.product(range(3), repeat=2):
                step = np.eye(3, dtype=int)[axis]
                ahead, behind = (tuple(np.add(voxel, 2) + sign * step) for sign in (1, -1))
                jacobian[component, axis] += (disp_vox[(component, *ahead)] - disp_vox[(component, *behind)]) / 2
            assert fast[voxel] == pytest.approx(np.linalg.det(jacobian), abs=1e-12)
        shifted = [math.log(min(max(value + 3, 1e-9), 1e9)) for value in fast.reshape(-1).tolist()]
        mean = sum(shifted) / len(shifted)
        expected = math.sqrt(sum((value - mean) ** 2 for value in shifted) / len(shifted))
        assert metrics.sdlogj(disp_vox) == pytest.approx(expected, abs=1e-12)
        assert metrics.fold_percent(disp_vox) == pytest.approx(100 * (fast <= 0).mean())

    def test_mask_chooses_the_voxels_that_count(self):
        disp_vox = golden_field(2.5)
        mask = np.zeros(SHAPE, np.uint8)
        mask[10:20, 12:30, 5:40] = 1
        inner = metrics.jacobian_determinant(disp_vox)[8:18, 10:28, 3:38]
        assert metrics.sdlogj(disp_vox, mask) == pytest.approx(np.log((inner + 3).clip(1e-9, 1e9)).std())
        assert metrics.fold_percent(disp_vox, mask) == pytest.approx(100 * (inner <= 0).mean())
        assert metrics.ndv_percent(disp_vox, mask) != metrics.ndv_percent(disp_vox)

    def test_empty_mask_is_nan(self):
        disp_vox, nothing = golden_field(1), np.zeros(SHAPE, bool)
        for measure in (metrics.sdlogj, metrics.fold_percent, metrics.ndv_percent):
            assert math.isnan(measure(disp_vox, nothing))

    def test_ndv_of_a_mirror_is_the_whole_volume(self):
        disp_vox = np.zeros((3, 6, 7, 8))
        disp_vox[0] = 5 - 2 * np.arange(6).reshape(-1, 1, 1)
        # Each of the 8 one-sided determinants is -1 and each of the 2 inner ones -2: 12 sixths, counted twice.
        assert metrics.ndv_percent(disp_vox) == pytest.approx(100)
        assert metrics.fold_percent(disp_vox) == 100

    def test_too_small_or_misshapen_fields_are_refused(self):
        with pytest.raises(InputError, match="more than 4 voxels"):
            metrics.sdlogj(np.zeros((3, 4, 9, 9)))
        with pytest.raises(InputError, match=r"expected \(3, I, J, K\)"):
            metrics.sdlogj(np.zeros((9, 9, 9, 3)))
        with pytest.raises(InputError, match="expected the same shape"):
            metrics.sdlogj(np.zeros((3, 9, 9, 9)), np.ones((9, 9, 8)))
        with pytest.raises(ValueError, match="at least 1"):
            metrics.jacobian_determinant(np.zeros((3, 9, 9, 9)), border=0)
