"""The challenge's formulas: golden numbers of its own code, slow loops, scipy and SimpleITK as oracles."""

import itertools
import math

import numpy as np
import pytest
import SimpleITK
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial.distance import cdist

from corereg.errors import InputError
from corereg.evaluation import metrics
from corereg.evaluation.metrics.surface_distance import CORNERS, neighbour_code_areas, robust_hausdorff

Array = NDArray[np.float64]
SHAPE = (40, 36, 44)
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


def golden_field(amplitude: float) -> Array:
    i, j, k = np.meshgrid(*map(np.arange, SHAPE), indexing="ij")
    turn = 2 * np.pi
    return amplitude * np.stack(
        [
            np.sin(turn * j / 18) * np.cos(turn * k / 22),
            np.cos(turn * i / 20) * np.sin(turn * k / 11),
            np.sin(turn * i / 10) * np.cos(turn * j / 12),
        ]
    )


def golden_labels() -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    fixed, moving = np.zeros(SHAPE, np.int64), np.zeros(SHAPE, np.int64)
    fixed[10:25, 8:24, 12:30] = 1
    fixed[26:36, 20:32, 5:20] = 2
    fixed[2:6, 2:6, 36:42] = 3
    moving[12:27, 9:25, 10:28] = 1
    moving[25:35, 22:34, 6:21] = 2
    return fixed, moving


def random_blob(rng: np.random.Generator, shape: tuple[int, int, int], smoothness: float) -> NDArray[np.bool_]:
    return ndimage.gaussian_filter(rng.normal(size=shape), smoothness) > 0


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
        with pytest.raises(InputError, match=r"\(4, 5, 7\).*expected one grid"):
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


# The area of each marching-cubes patch in closed form, by the number of corners inside (or outside, whichever is
# rarer), of those how many pairs share an edge, and how many lie across a face. Written independently of the module.
TRIANGLE = math.sqrt(3) / 8
PATCH_AREAS = {
    (0, 0, 0): 0.0,
    (1, 0, 0): TRIANGLE,
    (2, 1, 0): math.sqrt(2) / 2,
    (2, 0, 1): 2 * TRIANGLE,
    (2, 0, 0): 2 * TRIANGLE,
    (3, 2, 1): 0.5 + 3 * TRIANGLE,
    (3, 1, 1): math.sqrt(2) / 2 + TRIANGLE,
    (3, 0, 3): 3 * TRIANGLE,
    (4, 4, 2): 1.0,
    (4, 3, 3): 6 * TRIANGLE,
    (4, 3, 2): math.sqrt(2) / 2 + 4 * TRIANGLE,
    (4, 2, 3): 0.5 + 4 * TRIANGLE,
    (4, 2, 2): math.sqrt(2),
    (4, 0, 6): 4 * TRIANGLE,
}


def patch_area(inside: list[tuple[int, int, int]]) -> float:
    rarer = inside if len(inside) <= 4 else [corner for corner in CORNERS if corner not in inside]
    pairs = [np.abs(np.subtract(a, b)).sum() for a, b in itertools.combinations(rarer, 2)]
    return PATCH_AREAS[len(rarer), pairs.count(1), pairs.count(2)]


def brute_force_hd95(mask_a: NDArray[np.bool_], mask_b: NDArray[np.bool_]) -> float:
    def surface(mask: NDArray[np.bool_]) -> list[tuple[tuple[int, int, int], float]]:
        padded = np.pad(mask, 1)
        cells = itertools.product(*(range(size - 1) for size in padded.shape))
        elements = []
        for cell in cells:
            inside = [corner for corner in CORNERS if padded[tuple(np.add(cell, corner))]]
            if 0 < len(inside) < 8:
                elements.append((cell, patch_area(inside)))
        return elements

    def directed(elements: list, others: list) -> float:
        nearest = cdist([cell for cell, _ in elements], [cell for cell, _ in others]).min(1)
        rows = sorted(zip(nearest.tolist(), (area for _, area in elements), strict=True))
        total, reached = sum(area for _, area in rows), 0.0
        for distance, area in rows:
            reached += area
            if reached / total >= 0.95:
                return distance
        return rows[-1][0]

    a, b = surface(mask_a), surface(mask_b)
    return max(directed(a, b), directed(b, a))


class TestSurfaceDistance:
    def test_area_of_every_neighbour_code(self):
        for code, area in enumerate(neighbour_code_areas()):
            inside = [corner for bit, corner in enumerate(CORNERS) if code >> bit & 1]
            assert area == pytest.approx(patch_area(inside), abs=1e-12), f"code {code}"

    def test_area_scales_with_the_face_it_lies_on(self):
        half_space = [bit for bit, (_, j, _) in enumerate(CORNERS) if j == 0]
        area = neighbour_code_areas((1.6, 0.9, 5.0))[sum(1 << bit for bit in half_space)]
        assert area == pytest.approx(1.6 * 5.0)

    @pytest.mark.parametrize("seed", range(6))
    def test_equals_brute_force_on_random_shapes(self, seed):
        rng = np.random.default_rng(seed)
        shape = tuple(rng.integers(5, 13, 3).tolist())
        mask_a, mask_b = (random_blob(rng, shape, smoothness) for smoothness in (0.7, 1.5))
        assert robust_hausdorff(mask_a, mask_b) == pytest.approx(brute_force_hd95(mask_a, mask_b), abs=1e-9)

    def test_shifted_box_in_voxels_and_in_mm(self):
        box, shifted = np.zeros((2, 20, 22, 24), np.uint8)
        box[4:12, 5:15, 6:16] = 1
        shifted[4:12, 5:15, 9:19] = 1
        assert metrics.hd95(box, shifted) == {1: 3.0}
        assert metrics.hd95(box, shifted, spacing_mm=(1.0, 1.5, 2.5)) == {1: 7.5}

    def test_is_symmetric_and_zero_for_equal_masks(self):
        rng = np.random.default_rng(5)
        mask_a, mask_b = (random_blob(rng, (9, 11, 13), 1.0) for _ in range(2))
        assert robust_hausdorff(mask_a, mask_b) == robust_hausdorff(mask_b, mask_a)
        assert robust_hausdorff(mask_a, mask_a) == 0

    def test_mask_that_touches_the_border_has_a_surface_there(self):
        full, half = np.ones((2, 6, 7, 8), bool)
        half[:, :, 4:] = False
        assert robust_hausdorff(full, half, percent=100.0) == 4


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
        with pytest.raises(InputError, match="one grid"):
            metrics.sdlogj(np.zeros((3, 9, 9, 9)), np.ones((9, 9, 8)))
        with pytest.raises(ValueError, match="at least 1"):
            metrics.jacobian_determinant(np.zeros((3, 9, 9, 9)), border=0)


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
        with pytest.raises(InputError, match="matching row"):
            metrics.tre(np.zeros((3, 9, 9, 9)), np.zeros((4, 3)), np.zeros((5, 3)), SPACING_MOVING_MM)
