"""Overlap, warped labels and landmarks against scipy and SimpleITK."""

import itertools
import math

import numpy as np
import pytest
import SimpleITK
from scipy import ndimage

from corereg.errors import InputError
from corereg.evaluation import metrics
from helpers.golden import golden_labels

SPACING_MOVING_MM = (1.5, 2.0, 0.5)


class TestWarpLabels:
    FIELDS = ("random", "half voxels", "border", "just outside")

    @pytest.mark.parametrize("kind", FIELDS)
    @pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int64])
    def test_equals_scipy_order_0(self, kind, dtype):
        rng = np.random.default_rng(3)
        shape = (11, 14, 17)
        labels = rng.integers(0, 100, shape).astype(dtype)
        identity = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij")).astype(np.float64)
        sizes = np.reshape(shape, (3, 1, 1, 1))
        disp_vox = {
            "random": rng.normal(0, 4, identity.shape),
            "half voxels": rng.integers(-9, 9, identity.shape) / 2,
            "border": rng.choice([0.0, 0.5, 1.0], identity.shape) * (sizes - 1) - identity,
            "just outside": np.where(rng.random(identity.shape) < 0.1, rng.choice([-1e-9, 1e-9]), 0.0),
        }[kind]
        warped = metrics.warp_labels(labels, disp_vox)
        assert warped.dtype == dtype
        np.testing.assert_array_equal(warped, ndimage.map_coordinates(labels, identity + disp_vox, order=0))

    def test_a_billionth_of_a_voxel_outside_is_background(self):
        labels = np.full((4, 5, 6), 7)
        for axis, sign in itertools.product(range(3), (-1, 1)):
            disp_vox = np.zeros((3, 4, 5, 6))
            disp_vox[axis] = sign * 1e-9
            inner = [slice(None)] * 3
            inner[axis] = slice(1, None) if sign < 0 else slice(None, -1)
            expected = np.zeros_like(labels)
            expected[tuple(inner)] = 7
            np.testing.assert_array_equal(metrics.warp_labels(labels, disp_vox), expected)

    def test_not_a_number_is_background(self):
        disp_vox = np.zeros((3, 4, 5, 6))
        disp_vox[1, 2, 3, 4] = np.nan
        warped = metrics.warp_labels(np.ones((4, 5, 6), np.uint8), disp_vox)
        assert warped[2, 3, 4] == 0
        assert warped.sum() == 4 * 5 * 6 - 1

    def test_pulls_back_along_the_axis_it_names(self):
        labels = np.zeros((8, 9, 10), np.int16)
        labels[3, 4, 5] = 1
        disp_vox = np.zeros((3, 8, 9, 10))
        disp_vox[1] = 2
        assert np.argwhere(metrics.warp_labels(labels, disp_vox)).tolist() == [[3, 2, 5]]

    def test_field_of_another_pair_is_refused(self):
        with pytest.raises(InputError, match=r"\(4, 5, 7\).*expected the same shape"):
            metrics.warp_labels(np.zeros((4, 5, 6), int), np.zeros((3, 4, 5, 7)))


class TestDice:
    def test_equals_simpleitk(self):
        rng = np.random.default_rng(11)
        fixed, warped = rng.integers(0, 5, (2, 9, 12, 15)).astype(np.uint8)
        oracle = SimpleITK.LabelOverlapMeasuresImageFilter()
        oracle.Execute(SimpleITK.GetImageFromArray(fixed), SimpleITK.GetImageFromArray(warped))
        scores = metrics.dice(fixed, warped)
        assert list(scores) == [1, 2, 3, 4]
        for label, score in scores.items():
            assert score == pytest.approx(oracle.GetDiceCoefficient(label), abs=1e-12)

    def test_label_absent_in_fixed_or_unwarped_moving_is_nan(self):
        one, two, both = np.array([0, 1, 1]), np.array([0, 2, 2]), np.array([1, 2, 2])
        fixed, moving, warped = (labels.reshape(3, 1, 1) for labels in (one, two, both))
        scores = metrics.dice(fixed, warped, moving, labels=[1, 2, 3])
        assert all(math.isnan(score) for score in scores.values())
        assert math.isnan(metrics.mean_dice(fixed, warped, moving))

    def test_label_lost_by_the_warp_scores_zero(self):
        fixed = np.ones((3, 4, 5), int)
        assert metrics.dice(fixed, np.zeros_like(fixed), fixed) == {1: 0.0}
        assert metrics.hd95(fixed, np.zeros_like(fixed), fixed) == {1: math.inf}

    def test_asked_labels_only(self):
        fixed, _ = golden_labels()
        assert metrics.dice(fixed, fixed, labels=[2]) == {2: 1.0}

    def test_unequal_shapes_are_refused(self):
        with pytest.raises(InputError, match="warp the moving labels"):
            metrics.dice(np.zeros((4, 5, 6), int), np.zeros((4, 5, 7), int))


class TestLandmarks:
    def test_exact_field_leaves_no_error(self):
        disp_vox = np.empty((3, 9, 10, 11))
        disp_vox[:] = np.reshape((1.25, -0.5, 2.0), (3, 1, 1, 1))
        fixed = np.array([(2.0, 3.0, 4.0), (5.5, 6.25, 3.0)])
        errors_mm = metrics.tre(disp_vox, fixed, np.add(fixed, (1.25, -0.5, 2.0)), SPACING_MOVING_MM)
        assert errors_mm == pytest.approx([0, 0], abs=1e-9)

    def test_landmark_outside_the_grid_is_not_moved(self):
        errors_mm = metrics.tre(np.full((3, 9, 9, 9), 5.0), [(20.0, 4.0, 4.0)], [(20.0, 4.0, 6.0)], SPACING_MOVING_MM)
        assert errors_mm == pytest.approx([1.0])

    def test_unequal_lists_are_refused(self):
        with pytest.raises(InputError, match="row n of one matches"):
            metrics.tre(np.zeros((3, 9, 9, 9)), np.zeros((4, 3)), np.zeros((5, 3)), SPACING_MOVING_MM)
